package tokenizer

import (
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is a token that is recognised in the text before anything else
// happens to it.
type addedToken struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// added finds the added tokens of a text. The zero value finds none.
type added struct {
	raw        matcher // looked for in the text as given
	normalized matcher // looked for after normalisation
}

// part is a piece of text, or a token when id is not -1.
type part struct {
	text string
	id   int32
}

func (a *added) add(t addedToken, normalized string) {
	if t.Normalized {
		a.normalized.add(normalized, t)
	} else {
		a.raw.add(t.Content, t)
	}
}

// split cuts text at the added tokens.
func (a *added) split(text string, normalized, special bool) iter.Seq[part] {
	m := &a.raw
	if normalized {
		m = &a.normalized
	}
	return func(yield func(part) bool) {
		rest := 0 // text before it has been yielded
		for at := 0; m.any && at < len(text); {
			at += m.skip(text[at:])
			if at >= len(text) {
				break
			}
			t, n := m.longest(text, at, special)
			if n == 0 {
				at++
				continue
			}
			begin, end := at, at+n
			at = end
			if t.SingleWord && (wordBefore(text, begin) || wordAfter(text, end)) {
				continue
			}
			if t.LStrip {
				begin = rest + len(strings.TrimRightFunc(text[rest:begin], unicode.IsSpace))
			}
			if t.RStrip {
				end = len(text) - len(strings.TrimLeftFunc(text[end:], unicode.IsSpace))
				at = end
			}
			if begin > rest && !yield(part{text[rest:begin], -1}) {
				return
			}
			rest = end
			if !yield(part{id: int32(t.ID)}) {
				return
			}
		}
		if rest < len(text) {
			yield(part{text[rest:], -1})
		}
	}
}

func wordBefore(s string, at int) bool {
	r, _ := utf8.DecodeLastRuneInString(s[:at])
	return at > 0 && wordRune(r)
}

func wordAfter(s string, at int) bool {
	r, _ := utf8.DecodeRuneInString(s[at:])
	return at < len(s) && wordRune(r)
}

func wordRune(r rune) bool {
	return unicode.In(r, unicode.L, unicode.M, unicode.Nd, unicode.Pc) || r == 0x200C || r == 0x200D
}

// matcher finds the longest of a set of strings at a place in a text. The zero
// value finds none.
type matcher struct {
	any   bool
	begin [256]bool // bytes that one of them begins with
	next  map[edge]int32
	ends  []int32 // index into list of the string that ends in a state, -1 if none
	list  []addedToken
}

type edge struct {
	state int32
	c     byte
}

func (m *matcher) add(s string, t addedToken) {
	if !m.any {
		m.any, m.next, m.ends = true, map[edge]int32{}, []int32{-1}
	}
	m.begin[s[0]] = true
	state := int32(0)
	for i := range len(s) {
		to, ok := m.next[edge{state, s[i]}]
		if !ok {
			to = int32(len(m.ends))
			m.next[edge{state, s[i]}] = to
			m.ends = append(m.ends, -1)
		}
		state = to
	}
	m.ends[state] = int32(len(m.list))
	m.list = append(m.list, t)
}

// skip returns how many bytes of s can be passed over.
func (m *matcher) skip(s string) int {
	for i := range len(s) {
		if m.begin[s[i]] {
			return i
		}
	}
	return len(s)
}

// longest returns the longest token at text[at:] and its length, 0 if there is
// none.
func (m *matcher) longest(text string, at int, special bool) (t addedToken, n int) {
	state := int32(0)
	for i := at; i < len(text); i++ {
		to, ok := m.next[edge{state, text[i]}]
		if !ok {
			break
		}
		state = to
		if k := m.ends[state]; k >= 0 && (special || !m.list[k].Special) {
			t, n = m.list[k], i+1-at
		}
	}
	return t, n
}
