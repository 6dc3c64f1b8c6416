package shard

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// frontMatterLicence finds the licence in the front matter of a model card:
// the lines between two lines of three dashes at the very top, of which
// "license: X", "license: [X, Y]" or a list below "license:" are understood.
// It returns "" when there is none. What it returns is for people to read, so
// YAML need not be understood any further.
func frontMatterLicence(readme []byte) string {
	if !utf8.Valid(readme) {
		readme = bytes.ToValidUTF8(readme, nil)
	}
	lines := strings.Split(string(readme), "\n")
	if strings.TrimSpace(strings.TrimPrefix(lines[0], "\ufeff")) != "---" {
		return ""
	}
	var found []string
	inList := false
	for _, line := range lines[1:] {
		line = strings.TrimRight(line, " \t\r")
		if line == "---" {
			return cleanLicence(strings.Join(found, ", "))
		}
		if inList {
			if item, ok := strings.CutPrefix(strings.TrimSpace(line), "- "); ok {
				found = append(found, unquote(item))
				continue
			}
			inList = false
		}
		value, ok := strings.CutPrefix(line, "license:")
		if !ok || len(found) > 0 {
			continue
		}
		value = strings.TrimSpace(value)
		switch {
		case value == "":
			inList = true
		case strings.HasPrefix(value, "[") && strings.HasSuffix(value, "]"):
			for item := range strings.SplitSeq(value[1:len(value)-1], ",") {
				found = append(found, unquote(item))
			}
		default:
			found = []string{unquote(value)}
		}
	}
	return "" // front matter without an end is none
}

func unquote(s string) string { return strings.Trim(strings.TrimSpace(s), `"'`) }

// cleanLicence makes s fit for one line of a terminal and for dataset.json.
func cleanLicence(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
	for len(s) > 256 {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}
