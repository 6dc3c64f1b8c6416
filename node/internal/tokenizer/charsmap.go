package tokenizer

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// charsMap is the table by which sentencepiece normalises: a trie of
// characters as a double array, then the texts that they become, each ended by
// a zero.
type charsMap struct {
	units []uint32
	texts string
}

// parseCharsMap reads precompiled_charsmap; empty is no table.
func parseCharsMap(b []byte) (*charsMap, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if len(b) < 4 {
		return nil, fmt.Errorf("precompiled_charsmap has %d bytes", len(b))
	}
	size := int64(binary.LittleEndian.Uint32(b))
	b = b[4:]
	if size == 0 || size%4 != 0 || size > int64(len(b)) {
		return nil, fmt.Errorf("precompiled_charsmap has %d bytes and a trie of %d", len(b), size)
	}
	m := &charsMap{units: make([]uint32, size/4), texts: string(b[size:])}
	for i := range m.units {
		m.units[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	if !utf8.ValidString(m.texts) || !strings.HasSuffix(m.texts, "\x00") {
		return nil, fmt.Errorf("precompiled_charsmap: the texts are not UTF-8 ended by zeros")
	}
	return m, nil
}

// longest returns what the longest beginning of s in the table becomes, and
// its length, 0 if there is none.
func (m *charsMap) longest(s string) (string, int) {
	offset := func(unit uint32) uint32 { return unit >> 10 << (unit >> 6 & 8) }
	pos, found, length := offset(m.units[0]), uint32(0), 0
	for i := range len(s) {
		pos ^= uint32(s[i])
		if int64(pos) >= int64(len(m.units)) {
			break
		}
		unit := m.units[pos]
		if unit&(1<<31|0xFF) != uint32(s[i]) {
			break
		}
		pos ^= offset(unit)
		if int64(pos) >= int64(len(m.units)) {
			break
		}
		if unit>>8&1 == 1 {
			found, length = m.units[pos]&(1<<31-1), i+1
		}
	}
	if length == 0 || int64(found) >= int64(len(m.texts)) || length > utf8.UTFMax*16 {
		return "", 0
	}
	text := m.texts[found:]
	text = text[:strings.IndexByte(text, 0)]
	if !utf8.ValidString(text) || !utf8.ValidString(s[:length]) {
		return "", 0 // in the middle of a character: the table is damaged
	}
	return text, length
}

// clusters maps a text as the tokenizers library does: what is seen as one
// character, if it is short, by its shortest beginning in the table, and
// else character by character.
func (m *charsMap) clusters(s string) string {
	var b strings.Builder
	for s != "" {
		n := clusterLen(s)
		if out, ok := m.shortest(s[:n]); n < 6 && ok {
			b.WriteString(out)
			s = s[n:]
			continue
		}
		for end := len(s) - n; len(s) > end; {
			_, size := utf8.DecodeRuneInString(s)
			if out, ok := m.shortest(s[:size]); ok {
				b.WriteString(out)
			} else {
				b.WriteString(s[:size])
			}
			s = s[size:]
		}
	}
	return b.String()
}

// clusterLen returns the length of the character with its marks that s begins
// with.
func clusterLen(s string) int {
	if strings.HasPrefix(s, "\r\n") {
		return 2
	}
	r, n := utf8.DecodeRuneInString(s)
	if unicode.IsControl(r) {
		return n
	}
	for n < len(s) {
		r, size := utf8.DecodeRuneInString(s[n:])
		if !unicode.Is(unicode.M, r) && r != 0x200C && r != 0x200D {
			break
		}
		n += size
	}
	return n
}

// shortest returns what the shortest beginning of s in the table becomes.
func (m *charsMap) shortest(s string) (string, bool) {
	for i := range len(s) {
		if i+1 == len(s) || utf8.RuneStart(s[i+1]) {
			if out, n := m.longest(s[:i+1]); n > 0 {
				return out, true
			}
		}
	}
	return "", false
}
