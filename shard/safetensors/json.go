package safetensors

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads the JSON of a header. The grammar of a header is small, and a
// general decoder is too lenient for it: it would accept repeated keys, keys
// in another case, and replace broken UTF-8.
type scanner struct {
	b   []byte
	pos int
}

func (s *scanner) errorf(format string, args ...any) error {
	return fmt.Errorf("%w: header byte %d: %s", ErrFormat, s.pos, fmt.Sprintf(format, args...))
}

func (s *scanner) space() {
	for s.pos < len(s.b) {
		switch s.b[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// next skips white space and consumes c if it comes next.
func (s *scanner) next(c byte) bool {
	s.space()
	if s.pos < len(s.b) && s.b[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

func (s *scanner) expect(c byte) error {
	if !s.next(c) {
		return s.errorf("want %q", c)
	}
	return nil
}

// object calls field for each key, which must consume the value.
func (s *scanner) object(field func(key string) error) error {
	if err := s.expect('{'); err != nil {
		return err
	}
	if s.next('}') {
		return nil
	}
	for {
		key, err := s.str()
		if err != nil {
			return err
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		if err := field(key); err != nil {
			return err
		}
		if s.next('}') {
			return nil
		}
		if err := s.expect(','); err != nil {
			return err
		}
	}
}

// integers reads an array of at most limit non-negative integers.
func (s *scanner) integers(limit int) ([]int64, error) {
	if err := s.expect('['); err != nil {
		return nil, err
	}
	list := []int64{}
	if s.next(']') {
		return list, nil
	}
	for {
		n, err := s.integer()
		if err != nil {
			return nil, err
		}
		if len(list) == limit {
			return nil, s.errorf("more than %d numbers", limit)
		}
		list = append(list, n)
		if s.next(']') {
			return list, nil
		}
		if err := s.expect(','); err != nil {
			return nil, err
		}
	}
}

func (s *scanner) integer() (int64, error) {
	s.space()
	start := s.pos
	for s.pos < len(s.b) && '0' <= s.b[s.pos] && s.b[s.pos] <= '9' {
		s.pos++
	}
	text := string(s.b[start:s.pos])
	if text == "" || len(text) > 1 && text[0] == '0' {
		return 0, s.errorf("want a non-negative integer")
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, s.errorf("number %s is too large", text)
	}
	return n, nil
}

func (s *scanner) str() (string, error) {
	if err := s.expect('"'); err != nil {
		return "", err
	}
	var out strings.Builder
	for {
		start := s.pos
		for s.pos < len(s.b) && s.b[s.pos] != '"' && s.b[s.pos] != '\\' && s.b[s.pos] >= 0x20 {
			s.pos++
		}
		out.Write(s.b[start:s.pos])
		if s.pos == len(s.b) {
			return "", s.errorf("string is not closed")
		}
		c := s.b[s.pos]
		s.pos++
		switch {
		case c == '"':
			if !utf8.ValidString(out.String()) {
				return "", s.errorf("string is not UTF-8")
			}
			return out.String(), nil
		case c < 0x20:
			return "", s.errorf("control character in a string")
		}
		r, err := s.escape()
		if err != nil {
			return "", err
		}
		out.WriteRune(r)
	}
}

// escape reads what follows a backslash.
func (s *scanner) escape() (rune, error) {
	if s.pos == len(s.b) {
		return 0, s.errorf("string is not closed")
	}
	c := s.b[s.pos]
	s.pos++
	if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 {
		return rune("\"\\/\b\f\n\r\t"[i]), nil
	}
	if c != 'u' {
		return 0, s.errorf("unknown escape \\%c", c)
	}
	r, err := s.hex4()
	if err != nil {
		return 0, err
	}
	if !utf16.IsSurrogate(r) {
		return r, nil
	}
	if s.pos+2 > len(s.b) || s.b[s.pos] != '\\' || s.b[s.pos+1] != 'u' {
		return 0, s.errorf("lone surrogate")
	}
	s.pos += 2
	low, err := s.hex4()
	if err != nil {
		return 0, err
	}
	if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
		return 0, s.errorf("lone surrogate")
	}
	return r, nil
}

func (s *scanner) hex4() (rune, error) {
	if s.pos+4 > len(s.b) {
		return 0, s.errorf("string is not closed")
	}
	n, err := strconv.ParseUint(string(s.b[s.pos:s.pos+4]), 16, 16)
	if err != nil {
		return 0, s.errorf("bad \\u escape")
	}
	s.pos += 4
	return rune(n), nil
}

// appendString appends text as the reference implementation writes it: only
// what JSON demands is escaped.
func appendString(b []byte, text string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(text) {
		c := text[i]
		if j := strings.IndexByte("\"\\\b\f\n\r\t", c); j >= 0 {
			b = append(b, '\\', `"\bfnrt`[j])
		} else if c < 0x20 {
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return append(b, '"')
}
