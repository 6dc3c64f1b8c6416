package chat

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type kind uint8

const (
	kindEnd      kind = iota
	kindData          // text between tags
	kindOpen          // {{
	kindClose         // }}
	kindBlock         // {%
	kindBlockEnd      // %}
	kindName
	kindString
	kindInt
	kindFloat
	kindOp
)

type token struct {
	kind kind
	text string // of a string what it means
	line int
}

func (t token) String() string {
	switch t.kind {
	case kindEnd:
		return "end of template"
	case kindData:
		return "text"
	case kindOpen:
		return "{{"
	case kindClose:
		return "}}"
	case kindBlock:
		return "{%"
	case kindBlockEnd:
		return "%}"
	}
	return fmt.Sprintf("%.40q", t.text)
}

// lexer cuts a template into tokens, as Jinja does with trim_blocks and
// lstrip_blocks set: the line end behind a block or comment is dropped, and so
// is white space between the beginning of a line and a block or comment.
type lexer struct {
	s         string
	at, line  int
	lineStart bool // what came last ended a line, or nothing came
	out       []token
	open      []byte // closing brackets that are due
}

func lex(source string) ([]token, error) {
	source = strings.ReplaceAll(strings.ReplaceAll(source, "\r\n", "\n"), "\r", "\n")
	l := &lexer{s: strings.TrimSuffix(source, "\n"), line: 1, lineStart: true}
	for l.at < len(l.s) {
		if err := l.root(); err != nil {
			return nil, err
		}
	}
	return append(l.out, token{kind: kindEnd, line: l.line}), nil
}

func (l *lexer) errorf(format string, args ...any) error {
	return fmt.Errorf("line %d: %s", l.line, fmt.Sprintf(format, args...))
}

func (l *lexer) emit(k kind, text string) { l.out = append(l.out, token{k, text, l.line}) }

// root reads the text up to the next tag, and the tag.
func (l *lexer) root() error {
	rest := l.s[l.at:]
	open := -1
	for i := 0; i+1 < len(rest); i++ {
		if rest[i] == '{' && strings.IndexByte("{%#", rest[i+1]) >= 0 {
			open = i
			break
		}
	}
	if open < 0 {
		l.emit(kindData, rest)
		l.at = len(l.s)
		return nil
	}
	data, tag := rest[:open], rest[open+1]
	after := l.at + open + 2
	sign := byte(0)
	if after < len(l.s) && (l.s[after] == '-' || l.s[after] == '+') {
		sign = l.s[after]
		after++
	}
	l.data(data, sign, tag != '{')
	l.at = after
	if tag == '#' {
		return l.comment()
	}
	if tag == '%' {
		if end, ok := l.rawTag(); ok {
			return l.raw(end)
		}
		l.emit(kindBlock, "")
	} else {
		l.emit(kindOpen, "")
	}
	return l.inside(tag == '%')
}

// data emits a text with the white space before a tag removed as its sign and
// kind say.
func (l *lexer) data(s string, sign byte, block bool) {
	kept := s
	switch {
	case sign == '-':
		kept = strings.TrimRightFunc(s, isSpace)
	case sign != '+' && block:
		start := strings.LastIndexByte(s, '\n') + 1
		if (start > 0 || l.lineStart) && strings.TrimFunc(s[start:], isSpace) == "" {
			kept = s[:start]
		}
	}
	if kept != "" {
		l.emit(kindData, kept)
	}
	l.line += strings.Count(s, "\n")
}

// skip moves on to a place and remembers whether it begins a line.
func (l *lexer) skip(to int) {
	l.line += strings.Count(l.s[l.at:to], "\n")
	l.lineStart = to > l.at && l.s[to-1] == '\n'
	l.at = to
}

// closing returns the place behind a closing tag at i, of which end is the
// last two characters, and whether there is one.
func (l *lexer) closing(i int, end string, block bool) (int, bool) {
	rest := l.s[i:]
	switch {
	case strings.HasPrefix(rest, "-"+end):
		return len(l.s) - len(strings.TrimLeftFunc(rest[1+len(end):], isSpace)), true
	case block && strings.HasPrefix(rest, "+"+end):
		return i + 1 + len(end), true
	case strings.HasPrefix(rest, end):
		i += len(end)
		if block && i < len(l.s) && l.s[i] == '\n' {
			i++
		}
		return i, true
	}
	return 0, false
}

func (l *lexer) comment() error {
	for i := l.at; i < len(l.s); i++ {
		if to, ok := l.closing(i, "#}", true); ok {
			l.skip(to)
			return nil
		}
	}
	return l.errorf("comment is not closed")
}

// rawTag reports whether a block that begins here is raw, and where it ends.
func (l *lexer) rawTag() (int, bool) {
	rest, ok := strings.CutPrefix(strings.TrimLeftFunc(l.s[l.at:], isSpace), "raw")
	if !ok {
		return 0, false
	}
	rest = strings.TrimLeftFunc(rest, isSpace)
	if text, ok := strings.CutPrefix(rest, "-%}"); ok {
		return len(l.s) - len(strings.TrimLeftFunc(text, isSpace)), true
	}
	if text, ok := strings.CutPrefix(rest, "%}"); ok {
		return len(l.s) - len(text), true
	}
	return 0, false
}

func (l *lexer) raw(begin int) error {
	l.skip(begin)
	for i := begin; i < len(l.s); i++ {
		tag, ok := strings.CutPrefix(l.s[i:], "{%")
		if !ok {
			continue
		}
		sign := byte(0)
		if tag != "" && (tag[0] == '-' || tag[0] == '+') {
			sign, tag = tag[0], tag[1:]
		}
		end, ok := strings.CutPrefix(strings.TrimLeftFunc(tag, isSpace), "endraw")
		if !ok {
			continue
		}
		end = strings.TrimLeftFunc(end, isSpace)
		to, ok := l.closing(len(l.s)-len(end), "%}", true)
		if !ok {
			continue
		}
		l.data(l.s[begin:i], sign, true)
		l.at = i
		l.skip(to)
		return nil
	}
	return l.errorf("raw block is not closed")
}

// operators, longest first.
var operators = []string{
	"//", "**", "==", "!=", ">=", "<=",
	"+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":", "|", ",", ";",
}

// inside reads the tokens of a tag.
func (l *lexer) inside(block bool) error {
	end, closeKind := "}}", kindClose
	if block {
		end, closeKind = "%}", kindBlockEnd
	}
	for l.at < len(l.s) {
		if len(l.open) == 0 {
			if to, ok := l.closing(l.at, end, block); ok {
				l.emit(closeKind, "")
				l.skip(to)
				return nil
			}
		}
		if err := l.one(); err != nil {
			return err
		}
	}
	return l.errorf("tag is not closed, %s is missing", end)
}

// one reads a token of an expression.
func (l *lexer) one() error {
	rest := l.s[l.at:]
	c, size := utf8.DecodeRuneInString(rest)
	switch {
	case isSpace(c):
		l.skip(l.at + size)
		return nil
	case c >= '0' && c <= '9':
		return l.number(rest)
	case c == '_' || unicode.IsLetter(c):
		end := strings.IndexFunc(rest, func(r rune) bool {
			return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
		})
		if end < 0 {
			end = len(rest)
		}
		l.emit(kindName, rest[:end])
		l.at += end
		return nil
	case c == '"' || c == '\'':
		return l.quoted(rest)
	}
	for _, op := range operators {
		if strings.HasPrefix(rest, op) {
			l.emit(kindOp, op)
			l.at += len(op)
			return l.balance(op)
		}
	}
	return l.errorf("unexpected character %q", c)
}

func (l *lexer) balance(op string) error {
	switch op {
	case "(":
		l.open = append(l.open, ')')
	case "[":
		l.open = append(l.open, ']')
	case "{":
		l.open = append(l.open, '}')
	case ")", "]", "}":
		if len(l.open) == 0 || l.open[len(l.open)-1] != op[0] {
			return l.errorf("unexpected %q", op)
		}
		l.open = l.open[:len(l.open)-1]
	}
	return nil
}

// number reads an integer or a float; the sign is an operator.
func (l *lexer) number(s string) error {
	digits := func(i int) int {
		for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '_' && i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9') {
			i++
		}
		return i
	}
	end, k := digits(0), kindInt
	if end+1 < len(s) && s[end] == '.' && s[end+1] >= '0' && s[end+1] <= '9' {
		end, k = digits(end+1), kindFloat
	}
	if end < len(s) && (s[end] == 'e' || s[end] == 'E') {
		i := end + 1
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if j := digits(i); j > i {
			end, k = j, kindFloat
		}
	}
	text := strings.ReplaceAll(s[:end], "_", "")
	if k == kindInt {
		if _, err := strconv.ParseInt(text, 10, 64); err != nil {
			return l.errorf("number %.40q is too large", text)
		}
	}
	l.emit(k, text)
	l.at += end
	return nil
}

// quoted reads a string and undoes its escapes.
func (l *lexer) quoted(s string) error {
	var b strings.Builder
	for i := 1; i < len(s); {
		switch c := s[i]; {
		case c == s[0]:
			l.emit(kindString, b.String())
			l.skip(l.at + i + 1)
			l.lineStart = false
			return nil
		case c != '\\' || i+1 == len(s):
			b.WriteByte(c)
			i++
		default:
			n, err := unescape(&b, s[i+1:])
			if err != nil {
				return l.errorf("%v", err)
			}
			i += 1 + n
		}
	}
	return l.errorf("string is not closed")
}

// unescape writes what an escape means, of which s begins behind the backslash,
// and returns its length, as Python's strings have it.
func unescape(b *strings.Builder, s string) (int, error) {
	if at := strings.IndexByte(`abfnrtv\'"`, s[0]); at >= 0 {
		b.WriteByte("\a\b\f\n\r\t\v\\'\""[at])
		return 1, nil
	}
	width := 0
	switch c := s[0]; {
	case c == '\n':
		return 1, nil
	case c == 'x':
		width = 2
	case c == 'u':
		width = 4
	case c == 'U':
		width = 8
	case c >= '0' && c <= '7':
		n, v := 0, 0
		for n < 3 && n < len(s) && s[n] >= '0' && s[n] <= '7' {
			v = v*8 + int(s[n]-'0')
			n++
		}
		b.WriteRune(rune(v))
		return n, nil
	default:
		b.WriteByte('\\')
		return 0, nil
	}
	if len(s) <= width {
		return 0, fmt.Errorf("escape \\%c is cut short", s[0])
	}
	v, err := strconv.ParseUint(s[1:1+width], 16, 32)
	if err != nil || v > unicode.MaxRune || v >= 0xD800 && v < 0xE000 {
		return 0, fmt.Errorf("escape \\%s is no character", s[:1+width])
	}
	b.WriteRune(rune(v))
	return 1 + width, nil
}

// isSpace is white space as Python's str.strip and \s have it.
func isSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1C && r <= 0x1F }
