package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// copyrightHead says what is true of the project's own files: nobody chose a
// licence for them yet.
const copyrightHead = `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: moot

Files: *
Copyright: the authors of moot
License: none-yet
 No licence has been chosen for moot itself: its authors keep all rights. Nothing
 here gives leave to copy or change it.
Comment:
 The programs contain the Go modules and the standard library that follow, each
 under its own licence. Those with the same text are listed together.
`

// licenceFile is the name of a file with a licence, or with what has to be told
// besides.
var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|copyright|patents)([-._].*)?$`)

// module is one that a program contains.
type module struct {
	Path, Version, Dir string
}

// writeCopyright writes the licences of all that is in the programs.
func writeCopyright(out string, programs []string) error {
	modules, err := modulesIn(programs)
	if err != nil {
		return err
	}
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	modules = append(modules, module{"the Go standard library", "", strings.TrimSpace(string(goroot))})
	byText := map[string][]string{} // names of modules
	var texts []string              // in order of their first module
	for _, m := range modules {
		text, err := licenceOf(m)
		if err != nil {
			return err
		}
		if byText[text] == nil {
			texts = append(texts, text)
		}
		byText[text] = append(byText[text], strings.TrimSpace(m.Path+" "+m.Version))
	}
	b := bytes.NewBufferString(copyrightHead)
	for i, text := range texts {
		fmt.Fprintf(b, "\nFiles: %s\nCopyright: as the text says\nLicense: text-%d\n", strings.Join(byText[text], "\n "), i+1)
		for line := range strings.Lines(text) {
			if line = strings.TrimRight(line, " \t\r\n\f"); line == "" {
				line = "."
			}
			b.WriteString(" " + line + "\n")
		}
	}
	return os.WriteFile(out, b.Bytes(), 0o644)
}

// modulesIn are the modules that programs contain, by themselves, sorted.
func modulesIn(programs []string) ([]module, error) {
	if len(programs) == 0 {
		return nil, errors.New("no program was given")
	}
	seen := map[string]bool{}
	var names []string
	for _, p := range programs {
		info, err := buildinfo.ReadFile(p)
		if err != nil {
			return nil, fmt.Errorf("read what is in %s: %w", p, err)
		}
		for _, d := range info.Deps {
			if d.Replace != nil {
				d = d.Replace
			}
			if !seen[d.Path] {
				seen[d.Path] = true
				names = append(names, d.Path)
			}
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return nil, nil
	}
	b, err := exec.Command("go", append([]string{"list", "-m", "-json=Path,Version,Dir"}, names...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("go list -m: %w", err)
	}
	var list []module
	for d := json.NewDecoder(bytes.NewReader(b)); d.More(); {
		var m module
		if err := d.Decode(&m); err != nil {
			return nil, fmt.Errorf("go list -m: %w", err)
		}
		list = append(list, m)
	}
	return list, nil
}

// licenceOf is the text of a module's files with licences. A module without any
// must not be shipped.
func licenceOf(m module) (string, error) {
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return "", fmt.Errorf("licence of %s: %w", m.Path, err)
	}
	var parts []string
	for _, e := range entries {
		if e.IsDir() || !licenceFile.MatchString(e.Name()) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(m.Dir, e.Name()))
		if err != nil {
			return "", fmt.Errorf("licence of %s: %w", m.Path, err)
		}
		parts = append(parts, strings.TrimSpace(strings.ReplaceAll(string(b), "\r\n", "\n")))
	}
	if len(parts) == 0 {
		return "", fmt.Errorf("module %s has no file with a licence in %s", m.Path, m.Dir)
	}
	return strings.Join(parts, "\n\n"), nil
}
