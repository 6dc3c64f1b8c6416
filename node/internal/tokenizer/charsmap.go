package tokenizer

import (
	"encoding/binary"
	"fmt"
	"strings"
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
