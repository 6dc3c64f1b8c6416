package autostart

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
)

func options(t *testing.T) Options {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	return Options{
		Exe: exe, Args: []string{"--config", filepath.Join(home, "a 100%\"$x.toml")}, Home: home,
		DataDir: filepath.Join(home, "da&ta"), UID: 501, User: `PC\an<na`,
	}
}

// systemd itself says whether it understands the unit.
func TestSystemdUnit(t *testing.T) {
	o := options(t)
	u := systemd(o)
	if want := filepath.Join(o.Home, ".config/systemd/user/mootd.service"); u.Path != want {
		t.Errorf("path %s, want %s", u.Path, want)
	}
	if !bytes.Contains(u.Content, []byte(`a 100%%\"$$x.toml"`)) {
		t.Errorf("a name with special characters is not quoted:\n%s", u.Content)
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd here")
	}
	verify := func(content []byte) (string, error) {
		path := filepath.Join(t.TempDir(), unitName)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), analyze, "--user", "--man=no", "verify", path)
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir())
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := verify(u.Content); err != nil || strings.Contains(out, unitName) {
		t.Errorf("%v\n%s", err, out)
	}
	// It would tell.
	if out, err := verify(bytes.Replace(u.Content, []byte("LockPersonality=yes"), []byte("LockPersonalities=yes"), 1)); err == nil && !strings.Contains(out, "LockPersonalities") {
		t.Errorf("an unknown setting is not seen: %s", out)
	}
}

// texts are the contents of the elements called name.
func texts(t *testing.T, b []byte, name string) (out []string) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(b))
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	at := ""
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, b)
		}
		switch x := tok.(type) {
		case xml.StartElement:
			at = x.Name.Local
		case xml.EndElement:
			at = ""
		case xml.CharData:
			if at == name {
				out = append(out, string(x))
			}
		}
	}
}

func TestLaunchdAgent(t *testing.T) {
	o := options(t)
	u := launchd(o)
	got := texts(t, u.Content, "string")
	want := []string{agentName, o.Exe, "--config", o.Args[1], "--log-file", filepath.Join(o.DataDir, "mootd.log"), "Background"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSchedulerTask(t *testing.T) {
	o := options(t)
	u := scheduler(o)
	if len(u.Content)%2 != 0 || !bytes.HasPrefix(u.Content, []byte{0xff, 0xfe}) {
		t.Fatal("it is not UTF-16 with a mark")
	}
	var units []uint16
	for i := 2; i < len(u.Content); i += 2 {
		units = append(units, uint16(u.Content[i])|uint16(u.Content[i+1])<<8)
	}
	b := []byte(string(utf16.Decode(units)))
	if got := texts(t, b, "UserId"); !cmp.Equal(got, []string{o.User, o.User}) {
		t.Errorf("users %q", got)
	}
	if got := texts(t, b, "LogonType"); !cmp.Equal(got, []string{"InteractiveToken"}) {
		t.Errorf("logon %q: elsewhere there is no GPU", got)
	}
	args := texts(t, b, "Arguments")
	want := `--headless ` + o.Exe + ` --config "` + strings.ReplaceAll(o.Args[1], `"`, `\"`) + `" --log-file ` + filepath.Join(o.DataDir, "mootd.log")
	if !cmp.Equal(args, []string{want}) {
		t.Errorf("arguments %q, want %q", args, want)
	}
}

func TestWindowsQuote(t *testing.T) {
	for in, want := range map[string]string{
		`a`: `a`, ``: `""`, `a b`: `"a b"`, `C:\x\`: `C:\x\`, `C:\a b\`: `"C:\a b\\"`, `a"b`: `"a\"b"`, `a\"b`: `"a\\\"b"`,
	} {
		if got := windowsQuote(in); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}

func TestInstallAndUninstall(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		t.Run(goos, func(t *testing.T) {
			u, err := For(goos, options(t))
			if err != nil {
				t.Fatal(err)
			}
			var ran [][]string
			failing := false
			run := func(_ context.Context, c []string) (string, error) {
				ran = append(ran, c)
				if failing {
					return "", errors.New("it does not work")
				}
				return "fine", nil
			}
			if s, err := u.Status(t.Context(), run); err != nil || s.Installed || len(ran) != 0 {
				t.Errorf("at first: %+v, %v, ran %v", s, err, ran)
			}
			for range 2 {
				ran = nil
				if err := u.Install(t.Context(), run); err != nil || !cmp.Equal(ran, u.install) {
					t.Errorf("install: %v, ran %v", err, ran)
				}
			}
			if s, err := u.Status(t.Context(), run); err != nil || !s.Installed || !s.Current || len(s.Says) == 0 {
				t.Errorf("installed: %+v, %v", s, err)
			}
			old := *u
			old.Content = []byte("else")
			if s, err := old.Status(t.Context(), run); err != nil || !s.Installed || s.Current {
				t.Errorf("another version: %+v, %v", s, err)
			}
			failing = true
			if err := u.Install(t.Context(), run); err == nil {
				t.Error("a command that fails is no error")
			}
			failing = false
			if err := u.Uninstall(t.Context(), run); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(u.Path); err == nil {
				t.Error("the file is still there")
			}
			failing = true
			if err := u.Uninstall(t.Context(), run); err != nil {
				t.Errorf("what is not installed: %v", err)
			}
		})
	}
	if _, err := For("plan9", options(t)); !errors.Is(err, ErrSystem) {
		t.Errorf("got %v", err)
	}
}
