package fold

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// A difference brings somebody who has the state before a round to the state
// after it, with about a quarter of the bytes of a state: it has the mean
// pseudo-gradient, from which the outer step follows. Nobody has to believe it:
// the CID of the state that it gives says whether it is right.
const (
	differenceMagic       = "mootdiff"
	differenceVersion     = 1
	differenceHeaderBytes = 8 + 4 + 32
	// rawChunk stands in place of the low bits of a chunk that does not follow from an
	// outer step: one of a merge, say. It has the values of the next state.
	rawChunk = 255
	maxLow   = 34 // bits of a mean, which is below 2^33, and its sign
)

// ErrDifference is wrapped by the errors of ApplyDifference.
var ErrDifference = errors.New("not a difference of this layout and version")

// MaxDifferenceBytes is the length of the longest difference of l.
func MaxDifferenceBytes(l *Layout) int64 {
	return differenceHeaderBytes + int64(len(l.chunks)) + 8*int64(l.params)
}

// Difference returns what leads from prev to next, of one layout, with an outer
// step where that is all that happened. The same states give the same bytes.
func Difference(prev, next *State, o Outer) []byte {
	l := prev.Layout
	b := append(make([]byte, 0, 3*l.params), differenceMagic...)
	b = binary.LittleEndian.AppendUint32(b, differenceVersion)
	b = append(b, l.digest[:]...)
	var g [ChunkValues]int64
	var theta, momentum [ChunkValues]int32
	for _, c := range l.chunks {
		before, after := prev.chunk(c), next.chunk(c)
		for j, m := range after.Momentum {
			g[j] = int64(m) - mulQ16(int64(before.Momentum[j]), o.MomentumQ16)
		}
		copy(theta[:], before.Theta)
		copy(momentum[:], before.Momentum)
		o.step(theta[:c.n], momentum[:c.n], g[:c.n])
		low, size := riceOf(g[:c.n])
		if size > 8*c.n || !sameValues(theta[:c.n], after.Theta) || !sameValues(momentum[:c.n], after.Momentum) {
			b = append(b, rawChunk)
			b = appendValues(appendValues(b, after.Theta), after.Momentum)
			continue
		}
		b = appendRice(append(b, byte(low)), g[:c.n], low)
	}
	return b
}

// ApplyDifference returns the state that a difference leads to.
func ApplyDifference(prev *State, b []byte, o Outer) (*State, error) {
	l := prev.Layout
	if len(b) < differenceHeaderBytes || string(b[:8]) != differenceMagic ||
		binary.LittleEndian.Uint32(b[8:]) != differenceVersion || string(b[12:differenceHeaderBytes]) != string(l.digest[:]) {
		return nil, fmt.Errorf("apply difference: the header is %w", ErrDifference)
	}
	b = b[differenceHeaderBytes:]
	next := NewState(l)
	copy(next.Theta, prev.Theta)
	copy(next.Momentum, prev.Momentum)
	var g [ChunkValues]int64
	for i, c := range l.chunks {
		if len(b) == 0 {
			return nil, fmt.Errorf("apply difference: chunk %d is missing: %w", i, ErrDifference)
		}
		low, to := int(b[0]), next.chunk(c)
		b = b[1:]
		switch {
		case low == rawChunk && len(b) >= 8*c.n:
			if !readValues(to.Theta, b) || !readValues(to.Momentum, b[4*c.n:]) {
				return nil, fmt.Errorf("apply difference: chunk %d has -2^31: %w", i, ErrDifference)
			}
			b = b[8*c.n:]
		case low <= maxLow:
			n, ok := readRice(g[:c.n], b, low)
			if !ok {
				return nil, fmt.Errorf("apply difference: chunk %d is cut off or too large: %w", i, ErrDifference)
			}
			b = b[n:]
			o.step(to.Theta, to.Momentum, g[:c.n])
		default:
			return nil, fmt.Errorf("apply difference: chunk %d with %d low bits and %d bytes: %w", i, low, len(b), ErrDifference)
		}
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("apply difference: %d bytes after the last chunk: %w", len(b), ErrDifference)
	}
	return next, nil
}

// chunk is the part of a state that a chunk has.
func (s *State) chunk(c chunk) *State {
	return &State{Layout: s.Layout, Theta: s.Theta[c.start:][:c.n], Momentum: s.Momentum[c.start:][:c.n]}
}

func sameValues(a, b []int32) bool {
	for i, v := range a {
		if v != b[i] {
			return false
		}
	}
	return true
}

func appendValues(b []byte, values []int32) []byte {
	n := len(b)
	b = append(b, make([]byte, 4*len(values))...)
	putValues(b[n:], values)
	return b
}

// zigzag maps integers of small size to small ones: 0, -1, 1, -2, …
func zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }

func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// A mean is written as zigzag of it shifted by the low bits, in ones and a zero, and then
// its low bits (Rice): for numbers that are spread like those of a round this
// takes little more than there is to know.

// riceOf returns the number of low bits with which g is shortest, and how many
// bytes it then has.
func riceOf(g []int64) (low, size int) {
	var sum uint64
	for _, v := range g {
		sum += zigzag(v) >> 3 // so that it does not overflow
	}
	guess := max(bits.Len64(sum/uint64(len(g)))+2, 0)
	best := uint64(1) << 62
	for k := max(guess-2, 0); k <= min(guess+2, maxLow); k++ {
		n := uint64(len(g)) * uint64(k+1)
		for _, v := range g {
			n += zigzag(v) >> k
		}
		if n < best {
			low, best = k, n
		}
	}
	return low, int(min((best+7)/8, 1<<40))
}

// bitWriter appends bits, the lowest of a byte first.
type bitWriter struct {
	b    []byte
	word uint64
	have int
}

// put appends up to 34 bits.
func (w *bitWriter) put(v uint64, n int) {
	w.word |= v << w.have
	for w.have += n; w.have >= 8; w.have -= 8 {
		w.b = append(w.b, byte(w.word))
		w.word >>= 8
	}
}

func appendRice(b []byte, g []int64, low int) []byte {
	w := bitWriter{b: b}
	for _, v := range g {
		u := zigzag(v)
		high := u >> low
		for ; high >= 32; high -= 32 {
			w.put(1<<32-1, 32)
		}
		w.put(1<<high-1, int(high)+1)
		w.put(u&(1<<low-1), low)
	}
	if w.have > 0 {
		w.b = append(w.b, byte(w.word))
	}
	return w.b
}

// readRice returns how many bytes it read; not ok: there are too few, or a
// number is larger than any mean.
func readRice(g []int64, b []byte, low int) (n int, ok bool) {
	at := 0 // in bits
	bit := func() (uint64, bool) {
		if at>>3 >= len(b) {
			return 0, false
		}
		v := uint64(b[at>>3]>>(at&7)) & 1
		at++
		return v, true
	}
	for j := range g {
		high := uint64(0)
		for {
			v, ok := bit()
			if !ok || high>>(maxLow-low) > 1 {
				return 0, false
			}
			if v == 0 {
				break
			}
			// Whole bytes of ones at once.
			for at&7 == 0 && at>>3 < len(b) && b[at>>3] == 0xff && high>>(maxLow-low) <= 1 {
				at += 8
				high += 8
			}
			high++
		}
		if at+low > 8*len(b) {
			return 0, false
		}
		u := uint64(0)
		for k := 0; k < low; {
			take := min(8-at&7, low-k)
			u |= uint64(b[at>>3]>>(at&7)) & (1<<take - 1) << k
			at += take
			k += take
		}
		if u |= high << low; u >= 1<<maxLow {
			return 0, false
		}
		g[j] = unzigzag(u)
	}
	return (at + 7) / 8, true
}
