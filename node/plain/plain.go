// Package plain writes numbers and texts from elsewhere for terminals; the
// daemon's own screen and the command line share it.
package plain

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxMarks is how many accents a character can have: more of them make towers
// over other lines.
const maxMarks = 2

// Clean takes out of a text what could move the cursor, change the direction of
// writing or fake another line: names and texts come from peers and models. Line
// breaks and tabs become spaces.
func Clean(s string) string {
	var b strings.Builder
	marks := 0
	for _, r := range s {
		switch {
		case r == '\n' || r == '\t':
			r, marks = ' ', 0
		case unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Me, r):
			if marks++; marks > maxMarks || b.Len() == 0 {
				continue
			}
		case r == utf8.RuneError || !unicode.IsPrint(r):
			r, marks = '?', 0
		default:
			marks = 0
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Group writes a number with commas, 612,864.
func Group[T int | int64 | uint64](n T) string {
	s := strconv.FormatUint(uint64(n), 10)
	head := ""
	if n < 0 {
		head, s = "-", strconv.FormatUint(-uint64(n), 10)
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return head + s
}

// Plural writes 1 round, 2 rounds.
func Plural[T int | int64 | uint64](n T, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return Group(n) + " " + word + "s"
}
