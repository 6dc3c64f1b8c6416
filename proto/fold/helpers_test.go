package fold

import (
	"testing"
)

// prng is splitmix64: the same numbers in every version of Go.
type prng uint64

func (p *prng) next() uint64 {
	*p += 0x9e3779b97f4a7c15
	z := uint64(*p)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// normal returns a number of about normal distribution: the sum of four bytes
// twice over.
func (p *prng) normal(sigma int64) int32 {
	x := p.next()
	var sum int64
	for range 8 {
		sum += int64(uint8(x)) - 127
		x >>= 8
	}
	return int32(sum * sigma / 209)
}

var outerStep = Outer{LearningRateQ16: 45875, MomentumQ16: 39322} // 0.7, 0.6

func newLayout(t testing.TB, tensors ...Tensor) *Layout {
	t.Helper()
	l, err := NewLayout(tensors)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// smallLayout has a tensor of one short chunk, one of a whole and a short one,
// and one of a single value: 4+4099+1 values, the middle one with codes that
// do not end with a byte.
func smallLayout(t testing.TB) *Layout {
	t.Helper()
	return newLayout(t, Tensor{"a", 2, 2}, Tensor{"b", 4099, 1}, Tensor{"c", 1, 1})
}

func mustEncode(t testing.TB, l *Layout, bits int, values []int32) []byte {
	t.Helper()
	b, err := Encode(l, bits, values, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustDecode(t testing.TB, l *Layout, b []byte) *Delta {
	t.Helper()
	d, err := Decode(l, b)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func randomValues(l *Layout, seed uint64, sigma int64) []int32 {
	r := prng(seed)
	values := make([]int32, l.Params())
	for i := range values {
		values[i] = r.normal(sigma)
	}
	return values
}

func randomState(l *Layout, seed uint64) *State {
	return &State{Layout: l, Theta: randomValues(l, seed, 1<<22), Momentum: randomValues(l, seed+1, 1<<14)}
}

// rawDelta writes a delta of given scales and codes, whether allowed or not.
// A code is used for all values of a chunk.
func rawDelta(l *Layout, bits int, scales []scale, codes []uint8) []byte {
	b := appendDeltaHeader(nil, l, bits)
	for _, s := range scales {
		b = append(b, byte(s.mantissa), byte(s.mantissa>>8), s.exponent)
	}
	for i, c := range l.chunks {
		part := make([]byte, chunkBytes(c.n, bits))
		for j := range c.n {
			part[j*bits/8] |= codes[i] << (j * bits % 8)
		}
		b = append(b, part...)
	}
	return b
}
