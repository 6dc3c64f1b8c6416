package shard

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// CheckName reports why name must not become a file name, or nil. What it
// lets through is one path element on every system, printable, not hidden,
// and no device of Windows.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("empty name")
	case len(name) > maxNameBytes:
		return fmt.Errorf("name of %d bytes, at most %d are allowed", len(name), maxNameBytes)
	case !utf8.ValidString(name):
		return fmt.Errorf("name %q is not UTF-8", name)
	case name[0] == '.':
		return fmt.Errorf("name %q begins with a dot", name)
	case strings.HasSuffix(name, ".") || strings.HasSuffix(name, " "):
		return fmt.Errorf("name %q ends with a dot or a space, which Windows cannot write", name)
	}
	for _, r := range name {
		if strings.ContainsRune(`/\:*?"<>|`, r) {
			return fmt.Errorf("name %q has %q, which some system cannot write", name, r)
		}
		if !unicode.IsPrint(r) {
			return fmt.Errorf("name %q has the unprintable character %U", name, r)
		}
	}
	if isDevice(name) {
		return fmt.Errorf("name %q is a device on Windows", name)
	}
	return nil
}

// isDevice reports whether Windows takes name, with whatever ending, for a device.
func isDevice(name string) bool {
	base, _, _ := strings.Cut(name, ".")
	base = strings.ToUpper(strings.TrimRight(base, " "))
	switch base {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	for _, dev := range []string{"COM", "LPT"} {
		switch strings.TrimPrefix(base, dev) {
		case base: // another prefix
		case "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "¹", "²", "³":
			return true
		}
	}
	return false
}

// foldName maps names that some file system takes for one name to one string.
func foldName(name string) string {
	return norm.NFC.String(cases.Fold().String(norm.NFD.String(name)))
}

// checkNames checks the names of one directory, given in order: each valid,
// strictly ascending by bytes, and no two the same to a file system that
// ignores case or Unicode normalization.
func checkNames(n int, name func(i int) string) error {
	folded := make(map[string]string, n)
	for i := range n {
		this := name(i)
		if err := CheckName(this); err != nil {
			return err
		}
		if i > 0 && name(i-1) >= this {
			return fmt.Errorf("name %q after %q: names must ascend", this, name(i-1))
		}
		f := foldName(this)
		if other, dup := folded[f]; dup {
			return fmt.Errorf("names %q and %q are one name on systems that ignore case", other, this)
		}
		folded[f] = this
	}
	return nil
}
