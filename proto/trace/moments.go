package trace

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/moot-net/moot/proto/msg"
)

const (
	momentsMagic  = "mootmmnt"
	momentsHeader = 8 + 4 + 4 + 8
	// MaxVectors is the most vectors of moments that an optimizer has.
	MaxVectors = 2
)

// Moments are what an optimizer remembers: for AdamW the first and the second
// moments, for SGD the mean of the gradients if it has momentum, else nothing.
type Moments struct {
	Steps   uint64      // that it took since all was zero
	Vectors [][]float32 // each as long as the layout has parameters
}

// MomentsBytes is how long the moments of so many vectors of parameters are.
func MomentsBytes(vectors, params int) int64 { return momentsHeader + 2*int64(vectors)*int64(params) }

// upper is the upper half of a float32, a bfloat16, rounded to the nearest, ties
// to even. A finite value stays finite.
func upper(x float32) uint16 {
	b := math.Float32bits(x)
	r := b + 0x7fff + b>>16&1
	if r&0x7f800000 == 0x7f800000 && b&0x7f800000 != 0x7f800000 {
		r = b
	}
	return uint16(r >> 16)
}

// Marshal returns the bytes of the moments.
func (m *Moments) Marshal() []byte {
	n := 0
	if len(m.Vectors) > 0 {
		n = len(m.Vectors[0])
	}
	b := append(make([]byte, 0, MomentsBytes(len(m.Vectors), n)), momentsMagic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(m.Vectors)))
	b = binary.LittleEndian.AppendUint64(b, m.Steps)
	for _, v := range m.Vectors {
		for _, x := range v {
			b = binary.LittleEndian.AppendUint16(b, upper(x))
		}
	}
	return b
}

// UnmarshalMoments decodes moments of so many vectors of parameters. All are
// finite, and the second vector has nothing below zero: it has squares.
func UnmarshalMoments(b []byte, vectors, params int) (*Moments, error) {
	if int64(len(b)) != MomentsBytes(vectors, params) || string(b[:8]) != momentsMagic ||
		binary.LittleEndian.Uint32(b[8:]) != version || binary.LittleEndian.Uint32(b[12:]) != uint32(vectors) {
		return nil, fmt.Errorf("moments: %d bytes, or another beginning: %w", len(b), ErrForm)
	}
	m := &Moments{Steps: binary.LittleEndian.Uint64(b[16:])}
	if m.Steps > msg.MaxSteps {
		return nil, fmt.Errorf("moments: of %d steps: %w", m.Steps, ErrForm)
	}
	b = b[momentsHeader:]
	for k := range vectors {
		v := make([]float32, params)
		for i := range v {
			u := uint32(binary.LittleEndian.Uint16(b[2*i:]))
			if u&0x7f80 == 0x7f80 || k == 1 && u&0x8000 != 0 {
				return nil, fmt.Errorf("moments: value %d of vector %d is not finite, or negative: %w", i, k, ErrForm)
			}
			v[i] = math.Float32frombits(u << 16)
		}
		m.Vectors, b = append(m.Vectors, v), b[2*params:]
	}
	return m, nil
}

// Cold are the moments before the first step.
func Cold(vectors, params int) *Moments {
	m := &Moments{}
	for range vectors {
		m.Vectors = append(m.Vectors, make([]float32, params))
	}
	return m
}
