package pull

import (
	"fmt"
	"io"
	"math/bits"
)

// bitset is a set of leaves, the lowest bit of a byte first.
type bitset []byte

func newBitset(n int) bitset { return make(bitset, (n+7)/8) }

func (b bitset) has(i int) bool { return b[i>>3]&(1<<(i&7)) != 0 }
func (b bitset) clear(i int)    { b[i>>3] &^= 1 << (i & 7) }

// set reports whether the bit was not set before.
func (b bitset) set(i int) bool {
	was := b.has(i)
	b[i>>3] |= 1 << (i & 7)
	return !was
}

func (b bitset) count() (n int) {
	for _, x := range b {
		n += bits.OnesCount8(x)
	}
	return n
}

// appendBytes appends the first n bits.
func (b bitset) appendBytes(to []byte, n int) []byte { return append(to, b[:(n+7)/8]...) }

// readBitset reads n bits. It allocates as they come.
func readBitset(r io.Reader, n int) (bitset, error) {
	const step = 1 << 16
	var b bitset
	for left := (n + 7) / 8; left > 0; {
		k := min(left, step)
		b = append(b, make([]byte, k)...)
		if _, err := io.ReadFull(r, b[len(b)-k:]); err != nil {
			return nil, unexpected(err)
		}
		left -= k
	}
	if n&7 != 0 && b[len(b)-1]>>(n&7) != 0 {
		return nil, fmt.Errorf("%w: bitmap has bits after the last leaf", errProtocol)
	}
	return b, nil
}
