package tokenizer

import (
	"iter"
	"sort"
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
	at   int // where it begins
}

// trust says which special tokens may be made of a text: none, or those without
// a byte of the foreign parts. base is where the text begins in their counting.
type trust struct {
	special bool
	foreign []Range
	base    int
}

// allows reports whether the bytes from begin to end may be a special token.
func (t *trust) allows(begin, end int) bool {
	if !t.special || len(t.foreign) == 0 {
		return t.special
	}
	begin, end = begin+t.base, end+t.base
	next := sort.Search(len(t.foreign), func(i int) bool { return t.foreign[i].End > begin })
	return next == len(t.foreign) || t.foreign[next].Begin >= end
}

// within returns the foreign parts of the text from begin to end, counted from
// begin.
func (t *trust) within(begin, end int) []Range {
	var out []Range
	for _, f := range t.foreign {
		if f.Begin, f.End = max(f.Begin-t.base, begin), min(f.End-t.base, end); f.Begin < f.End {
			out = append(out, Range{f.Begin - begin, f.End - begin})
		}
	}
	return out
}

func (a *added) add(t addedToken, normalized string) {
	if t.Normalized {
		a.normalized.add(normalized, t)
	} else {
		a.raw.add(t.Content, t)
	}
}

// split cuts text at the tokens.
func (m *matcher) split(text string, trusted trust) iter.Seq[part] {
	return func(yield func(part) bool) {
		rest := 0 // text before it has been yielded
		for at := 0; m.any && at < len(text); {
			at += m.skip(text[at:])
			if at >= len(text) {
				break
			}
			t, n := m.longest(text, at, &trusted)
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
			if begin > rest && !yield(part{text[rest:begin], -1, rest}) {
				return
			}
			rest = end
			if !yield(part{id: int32(t.ID), at: begin}) {
				return
			}
		}
		if rest < len(text) {
			yield(part{text[rest:], -1, rest})
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
	magic bool      // one of them is a special token
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
	m.magic = m.magic || t.Special
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
func (m *matcher) longest(text string, at int, trusted *trust) (t addedToken, n int) {
	state := int32(0)
	for i := at; i < len(text); i++ {
		to, ok := m.next[edge{state, text[i]}]
		if !ok {
			break
		}
		state = to
		if k := m.ends[state]; k >= 0 && (!m.list[k].Special || trusted.allows(at, i+1)) {
			t, n = m.list[k], i+1-at
		}
	}
	return t, n
}
