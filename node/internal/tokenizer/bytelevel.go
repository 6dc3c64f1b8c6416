package tokenizer

import "unicode/utf8"

// byteLevel is the alphabet in which byte-level vocabularies write bytes: each
// byte is one printable character.
type byteLevel struct {
	char [256]rune
	byte [324]int16 // by character; -1 for those outside of the alphabet
}

func newByteLevel() *byteLevel {
	a := &byteLevel{}
	for i := range a.byte {
		a.byte[i] = -1
	}
	next := rune(256)
	for i := range 256 {
		c := rune(i)
		if c < '!' || c > '~' && c < 0xA1 || c == 0xAD {
			c = next
			next++
		}
		a.char[i] = c
		a.byte[c] = int16(i)
	}
	return a
}

// bytes returns the bytes that a token stands for, and false if it has a
// character that stands for none.
func (a *byteLevel) bytes(token string) (string, bool) {
	b := make([]byte, 0, len(token))
	for i := 0; i < len(token); {
		r, n := utf8.DecodeRuneInString(token[i:])
		if int(r) >= len(a.byte) || a.byte[r] < 0 || r == utf8.RuneError {
			return "", false
		}
		b = append(b, byte(a.byte[r]))
		i += n
	}
	return string(b), true
}
