package fold

import (
	"encoding/binary"
	"fmt"
	"runtime"
)

// CellBits is the codec of what a cell publishes.
const CellBits = 8

// Cell is what a cell publishes of the deltas of its seats, and with what it
// enters the fold of the round.
type Cell struct {
	// Delta is the encoded mean, in the codec of CellBits. Other than with the
	// delta of a peer, each of its bytes follows from the inputs.
	Delta []byte
	// Tokens are the sum of the weights that the inputs have in the mean.
	Tokens uint64
	// FactorQ16 is FactorFresh if no input of the cell counts.
	FactorQ16 uint32
	Applied   []Applied // of each input
}

// Input returns what enters the fold of the round, with the decoded Delta.
func (c *Cell) Input(d *Delta) Input {
	return Input{Delta: d, Tokens: c.Tokens, FactorQ16: c.FactorQ16}
}

// NewCell returns the first level of a fold in two levels: the weighted mean of
// the deltas of one cell, weighed and clipped as Fold does. The second level is
// Fold over the cells. The order of inputs does not matter; there is at least
// one.
func NewCell(inputs []Input) (*Cell, error) {
	return newCellOn(runtime.GOMAXPROCS(0), inputs)
}

func newCellOn(workers int, inputs []Input) (*Cell, error) {
	if len(inputs) == 0 {
		return nil, fmt.Errorf("fold cell: inputs are 0, must be at least 1")
	}
	l := inputs[0].Delta.layout
	if err := checkInputs(l, inputs); err != nil {
		return nil, fmt.Errorf("fold cell: %w", err)
	}
	s, applied := newSum(inputs, Outer{})
	c := &Cell{Applied: applied, Delta: make([]byte, EncodedBytes(l, CellBits))}
	for i, in := range inputs {
		c.Tokens += applied[i].Weight
		if in.FactorQ16 > 0 {
			c.FactorQ16 = FactorFull
		}
	}
	c.Tokens = min(c.Tokens, MaxInputTokens)
	copy(c.Delta, appendDeltaHeader(nil, l, CellBits))
	table := c.Delta[deltaHeaderBytes:]
	codes := table[scaleBytes*len(l.chunks):]
	parallelOn(workers, len(l.chunks), func(lo, hi int) {
		w := newWorker(s)
		for i := lo; i < hi; i++ {
			k := l.chunks[i]
			// With 8 bits a code is a byte, so a chunk's codes begin where its
			// values do.
			encodeMean(table[scaleBytes*i:], codes[k.start:][:k.n], w.mean(i, k))
		}
	})
	return c, nil
}

// encodeMean writes the scale and the codes of a chunk: the smallest scale that
// reaches its largest value, and the nearest level of each, halves away from
// zero.
func encodeMean(table, codes []byte, g []int64) {
	var largest int64
	for _, v := range g {
		largest = max(largest, v, -v)
	}
	s := reachingScale(largest)
	binary.LittleEndian.PutUint16(table, s.mantissa)
	table[2] = s.exponent
	if largest == 0 {
		return // codes are 0
	}
	v := s.value()
	for j, x := range g {
		level := min((2*max(x, -x)+v)/(2*v), maxCode(CellBits))
		if x < 0 {
			level = -level
		}
		codes[j] = codeOf(CellBits, level)
	}
}

// reachingScale returns the smallest scale whose reach is at least largest, or
// the largest there is.
func reachingScale(largest int64) scale {
	v := (largest + maxCode(CellBits) - 1) / maxCode(CellBits)
	var s scale
	for (v+1<<s.exponent-1)>>s.exponent >= 1<<16 {
		s.exponent++
	}
	s.mantissa = uint16((v + 1<<s.exponent - 1) >> s.exponent)
	if !s.valid(CellBits) {
		return scale{uint16(maxValue / maxCode(CellBits) >> s.exponent), s.exponent}
	}
	return s
}
