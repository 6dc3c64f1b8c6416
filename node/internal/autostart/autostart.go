// Package autostart makes the system start the daemon when its user logs in: by
// a systemd user unit, a launchd agent, or a task of Windows' scheduler (not a
// service of Windows, which would run where there is no GPU). None of them
// needs more rights than the user has.
package autostart

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Options say what is started, and for whom.
type Options struct {
	Exe  string   // absolute path of mootd
	Args []string // its arguments
	Home string   // of the user
	// ConfigHome is where systemd looks for units of the user: XDG_CONFIG_HOME,
	// or .config in Home.
	ConfigHome string
	DataDir    string // of the daemon; what it logs goes there where there is no journal
	UID        int    // of the user; launchd wants it
	User       string // of the user; Windows wants it
}

// Unit is how one system starts the daemon: a file, and commands.
type Unit struct {
	System  string // for people
	Path    string
	Content []byte
	Note    string // what else can be done

	install   [][]string // when the file was written
	uninstall [][]string // before it is removed; they may fail, for it may be half installed
	removed   [][]string // afterwards
	status    [][]string
}

// ErrSystem says that nothing is known about a system.
var ErrSystem = errors.New("autostart is not known on this system")

// For returns the unit of a system, by its name in GOOS.
func For(goos string, o Options) (*Unit, error) {
	switch goos {
	case "linux":
		return systemd(o), nil
	case "darwin":
		return launchd(o), nil
	case "windows":
		return scheduler(o), nil
	}
	return nil, fmt.Errorf("%s: %w; start mootd from your session", goos, ErrSystem)
}

// Runner runs a command and returns what it printed.
type Runner func(ctx context.Context, command []string) (string, error)

// Exec is the Runner of this machine.
func Exec(ctx context.Context, command []string) (string, error) {
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return text, fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, text)
	}
	return text, nil
}

// Install writes the file and lets the system start the daemon now and at each
// login. It may be repeated.
func (u *Unit) Install(ctx context.Context, run Runner) error {
	if err := os.MkdirAll(filepath.Dir(u.Path), 0o755); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	temp := u.Path + ".new"
	if err := os.WriteFile(temp, u.Content, 0o644); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	if err := os.Rename(temp, u.Path); err != nil {
		return errors.Join(fmt.Errorf("install: %w", err), os.Remove(temp))
	}
	for _, c := range u.install {
		if _, err := run(ctx, c); err != nil {
			return fmt.Errorf("install: %w", err)
		}
	}
	return nil
}

// Uninstall ends the daemon that the system started, and removes the file.
// What is not installed is no error.
func (u *Unit) Uninstall(ctx context.Context, run Runner) error {
	var errs []error
	for _, c := range u.uninstall {
		if _, err := run(ctx, c); err != nil {
			errs = append(errs, err)
		}
	}
	err := os.Remove(u.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // then the commands had nothing to do
	}
	if err != nil {
		return fmt.Errorf("uninstall: %w", errors.Join(append(errs, err)...))
	}
	for _, c := range u.removed {
		if _, err := run(ctx, c); err != nil {
			return fmt.Errorf("uninstall: %w", err)
		}
	}
	return errors.Join(errs...)
}

// Status is what the system says about the unit.
type Status struct {
	System    string `json:"system"`
	File      string `json:"file"`
	Installed bool   `json:"installed"`
	// Current is that the file is what would be installed now.
	Current bool `json:"current"`
	// Says is what the system said, a line for each question.
	Says []string `json:"says"`
}

// Status asks the system.
func (u *Unit) Status(ctx context.Context, run Runner) (Status, error) {
	s := Status{System: u.System, File: u.Path, Says: []string{}}
	b, err := os.ReadFile(u.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("status: %w", err)
	}
	s.Installed, s.Current = true, string(b) == string(u.Content)
	for _, c := range u.status {
		text, err := run(ctx, c) // "inactive" comes with an error
		if text == "" && err != nil {
			text = err.Error()
		}
		s.Says = append(s.Says, text)
	}
	return s, nil
}
