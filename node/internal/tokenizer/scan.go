package tokenizer

import (
	"unicode"
	"unicode/utf8"
)

// pattern is the family of expressions by which byte-level tokenizers cut text
// into pieces. They are written here as scanners, because Go's expressions
// have no lookahead. Of two pieces that could begin at a place the alternative
// that comes first in the expression wins:
//
//	contractions: 's 't 're 've 'm 'll 'd
//	letters, after one character that is neither letter, digit nor line end, or after a space
//	numbers, of up to some digits, or of any length after a space
//	other characters, after a space; with the line ends behind them
//	white space with a line end, up to its last line end
//	white space but for its last character, if something follows
//	white space
type pattern struct {
	anyCase bool // of contractions
	lead    bool // any character but letter, number, line end may lead letters; else only a space
	digits  int  // longest run of numbers; 0: any, and a space may lead it
	lines   bool // line ends belong to the punctuation before them, and end a run of white space
}

// patterns are the expressions that are known, by their text in
// tokenizer.json.
func patterns(expression string) (pattern, bool) {
	p, ok := map[string]pattern{
		gpt2Pattern:   {},
		llama3Pattern: {anyCase: true, lead: true, digits: 3, lines: true},
		qwen2Pattern:  {anyCase: true, lead: true, digits: 1, lines: true},
	}[expression]
	return p, ok
}

const (
	gpt2Pattern   = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	llama3Pattern = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	qwen2Pattern  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// class of a character.
type class uint8

const (
	other class = iota
	letter
	number
	space
	lineEnd // also white space
)

func (c class) white() bool { return c >= space }

// asciiClass is a table in a string, so that it needs no variable.
const asciiClass = "" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x04\x03\x03\x04\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x00\x00\x00\x00\x00\x00" +
	"\x00\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01" +
	"\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x00\x00\x00\x00\x00" +
	"\x00\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01" +
	"\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x00\x00\x00\x00\x00"

// at returns the class of the character at s[i], and its length; 0 at the end.
func at(s string, i int) (class, int) {
	if i >= len(s) {
		return other, 0
	}
	if c := s[i]; c < utf8.RuneSelf {
		return class(asciiClass[c]), 1
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	switch {
	case unicode.IsLetter(r):
		return letter, n
	case unicode.IsNumber(r):
		return number, n
	case unicode.IsSpace(r):
		return space, n
	}
	return other, n
}

// run returns the end of the characters of class c from i on, at most limit of
// them; 0 is no limit.
func run(s string, i int, c class, limit int) int {
	for n := 0; limit == 0 || n < limit; n++ {
		got, size := at(s, i)
		if size == 0 || got != c {
			break
		}
		i += size
	}
	return i
}

// next returns the length of the piece that s begins with. s is not empty.
func (p pattern) next(s string) int {
	if s[0] == '\'' {
		if n := p.contraction(s); n > 0 {
			return n
		}
	}
	c, n := at(s, 0)
	switch c {
	case letter:
		return run(s, n, letter, 0)
	case number:
		if p.digits == 1 {
			return n
		}
		return run(s, n, number, max(0, p.digits-1))
	}
	// One character may lead what follows it.
	if follow, size := at(s, n); size > 0 {
		switch {
		case follow == letter && (s[0] == ' ' || p.lead && c != lineEnd):
			return run(s, n, letter, 0)
		case follow == number && s[0] == ' ' && p.digits == 0:
			return run(s, n, number, 0)
		case follow == other && s[0] == ' ':
			return p.others(s, n)
		}
	}
	if c == other {
		return p.others(s, 0)
	}
	return p.whiteSpace(s)
}

// others returns the end of a run of other characters from i on.
func (p pattern) others(s string, i int) int {
	i = run(s, i, other, 0)
	if p.lines {
		i = run(s, i, lineEnd, 0)
	}
	return i
}

// whiteSpace returns the length of the piece of white space that s begins
// with.
func (p pattern) whiteSpace(s string) int {
	end, last, afterLine := 0, 0, 0
	for {
		c, n := at(s, end)
		if n == 0 || !c.white() {
			break
		}
		last = end
		end += n
		if c == lineEnd {
			afterLine = end
		}
	}
	switch {
	case p.lines && afterLine > 0:
		return afterLine
	case end < len(s) && last > 0:
		return last // the last one leads what follows
	}
	return end
}

// contraction returns the length of a contraction that s begins with, 0 if
// there is none.
func (p pattern) contraction(s string) int {
	a, n := p.fold(s, 1)
	switch a {
	case 's', 't', 'm', 'd':
		return 1 + n
	}
	b, m := p.fold(s, 1+n)
	switch {
	case a == 'r' && b == 'e', a == 'v' && b == 'e', a == 'l' && b == 'l':
		return 1 + n + m
	}
	return 0
}

// fold returns the character at s[i], in lower case where case does not
// matter, and its length.
func (p pattern) fold(s string, i int) (rune, int) {
	if i >= len(s) {
		return 0, 0
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	if p.anyCase {
		switch {
		case r >= 'A' && r <= 'Z':
			r += 'a' - 'A'
		case r == '\u017f': // long s
			r = 's'
		}
	}
	return r, n
}
