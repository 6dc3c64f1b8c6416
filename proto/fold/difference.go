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
	// rawChunk is the width of a chunk that does not follow from an outer step:
	// one of a merge, say. It has the values of the next state.
	rawChunk = 255
	maxWidth = 34 // bits of a mean, which is below 2^33, and its sign
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
		width := 0
		for j, m := range after.Momentum {
			g[j] = int64(m) - mulQ16(int64(before.Momentum[j]), o.MomentumQ16)
			width = max(width, bits.Len64(zigzag(g[j])))
		}
		copy(theta[:], before.Theta)
		copy(momentum[:], before.Momentum)
		o.step(theta[:c.n], momentum[:c.n], g[:c.n])
		if width > maxWidth || !sameValues(theta[:c.n], after.Theta) || !sameValues(momentum[:c.n], after.Momentum) {
			b = append(b, rawChunk)
			b = appendValues(appendValues(b, after.Theta), after.Momentum)
			continue
		}
		b = packBits(append(b, byte(width)), g[:c.n], width)
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
		width := int(b[0])
		b = b[1:]
		need := (c.n*width + 7) / 8
		if width == rawChunk {
			need = 8 * c.n
		}
		if width > maxWidth && width != rawChunk || len(b) < need {
			return nil, fmt.Errorf("apply difference: chunk %d of width %d with %d bytes: %w", i, width, len(b), ErrDifference)
		}
		to := next.chunk(c)
		if width == rawChunk {
			if !readValues(to.Theta, b) || !readValues(to.Momentum, b[4*c.n:]) {
				return nil, fmt.Errorf("apply difference: chunk %d has -2^31: %w", i, ErrDifference)
			}
		} else {
			unpackBits(g[:c.n], b, width)
			o.step(to.Theta, to.Momentum, g[:c.n])
		}
		b = b[need:]
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

// packBits appends width bits of each value, lowest first.
func packBits(b []byte, g []int64, width int) []byte {
	var word uint64
	have := 0
	for _, v := range g {
		word |= zigzag(v) << have
		have += width
		for have >= 8 {
			b = append(b, byte(word))
			word >>= 8
			have -= 8
		}
	}
	if have > 0 {
		b = append(b, byte(word))
	}
	return b
}

func unpackBits(g []int64, b []byte, width int) {
	var word uint64
	have := 0
	mask := uint64(1)<<width - 1
	for j := range g {
		for have < width {
			word |= uint64(b[0]) << have
			b = b[1:]
			have += 8
		}
		g[j] = unzigzag(word & mask)
		word >>= width
		have -= width
	}
}
