package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// page is what a command says of itself with --help.
type page struct {
	name  []string // moot run show
	short string
	// sections by their heading; "" is the description.
	sections map[string]string
	commands []page // below it, with name and short alone
}

// writeMan writes a page for each command of the binaries.
func writeMan(dir string, at time.Time, version string, binaries []string) error {
	if len(binaries) == 0 {
		return errors.New("no binaries are given")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, b := range binaries {
		if err := manOf(b, page{name: []string{filepath.Base(b)}}, dir, at, version); err != nil {
			return err
		}
	}
	return nil
}

func manOf(binary string, p page, dir string, at time.Time, version string) error {
	cmd := exec.Command(binary, append(p.name[1:len(p.name):len(p.name)], "--help")...)
	// Defaults in the home folder are the same for everybody.
	cmd.Env = []string{"HOME=~", "PATH=" + os.Getenv("PATH")}
	help, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s --help: %w", strings.Join(p.name, " "), err)
	}
	p.read(string(help))
	file := filepath.Join(dir, strings.Join(p.name, "-")+".1")
	if err := os.WriteFile(file, []byte(p.roff(at, version)), 0o644); err != nil {
		return err
	}
	for _, c := range p.commands {
		if err := manOf(binary, c, dir, at, version); err != nil {
			return err
		}
	}
	return nil
}

// read divides the help of cobra into its sections.
func (p *page) read(help string) {
	p.sections = map[string]string{}
	at := ""
	for line := range strings.Lines(help) {
		line = strings.TrimRight(line, " \n")
		switch heading := strings.TrimSuffix(line, ":"); {
		case line != heading && !strings.HasPrefix(line, " ") && isHeading(heading):
			at = heading
			continue
		case strings.HasPrefix(line, "Use \""+p.name[0]):
			continue
		}
		p.sections[at] += line + "\n"
	}
	for k, v := range p.sections {
		p.sections[k] = strings.Trim(v, "\n")
	}
	for line := range strings.Lines(p.sections["Available Commands"]) {
		name, short, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "" || name == "help" {
			continue
		}
		p.commands = append(p.commands, page{name: append(p.name[:len(p.name):len(p.name)], name), short: strings.TrimSpace(short)})
	}
	if p.short == "" {
		p.short, _, _ = strings.Cut(strings.ReplaceAll(p.sections[""], "\n", " "), ". ")
	}
}

func isHeading(s string) bool {
	switch s {
	case "Usage", "Aliases", "Examples", "Available Commands", "Flags", "Global Flags", "Additional help topics":
		return true
	}
	return false
}

// roff returns the page for man.
func (p *page) roff(at time.Time, version string) string {
	name := strings.Join(p.name, "-")
	var b strings.Builder
	fmt.Fprintf(&b, ".TH \"%s\" 1 \"%s\" \"%s\" \"moot\"\n", strings.ToUpper(escape(name)), at.Format(time.DateOnly), "moot "+escape(version))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", escape(name), escape(strings.TrimSuffix(p.short, ".")))
	verbatim := func(heading, section string) {
		if text := p.sections[section]; text != "" {
			fmt.Fprintf(&b, ".SH %s\n.nf\n%s\n.fi\n", heading, escapeLines(text))
		}
	}
	verbatim("SYNOPSIS", "Usage")
	if text := p.sections[""]; text != "" {
		fmt.Fprintf(&b, ".SH DESCRIPTION\n%s\n", strings.ReplaceAll(escapeLines(text), "\n\n", "\n.PP\n"))
	}
	verbatim("COMMANDS", "Available Commands")
	verbatim("OPTIONS", "Flags")
	verbatim("OPTIONS OF ALL COMMANDS", "Global Flags")
	verbatim("EXAMPLES", "Examples")
	var also []string
	if len(p.name) > 1 {
		also = append(also, strings.Join(p.name[:len(p.name)-1], "-"))
	}
	for _, c := range p.commands {
		also = append(also, strings.Join(c.name, "-"))
	}
	if len(also) > 0 {
		fmt.Fprintf(&b, ".SH SEE ALSO\n")
		for i, a := range also {
			comma := ","
			if i == len(also)-1 {
				comma = ""
			}
			fmt.Fprintf(&b, ".BR %s (1)%s\n", escape(a), comma)
		}
	}
	return b.String()
}

func escape(s string) string { return strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s) }

// escapeLines is escape for lines, which must not begin like a request.
func escapeLines(s string) string {
	lines := strings.Split(escape(s), "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
