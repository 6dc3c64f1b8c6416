package model

import (
	"math"

	"github.com/moot-net/moot/node/internal/tensor"
)

// Frequencies returns the angle per position of each pair of a head of which
// dims values are turned (of sequences within the original context).
func (r Rope) Frequencies(dims int) []float64 { return r.frequencies(dims, false) }

func (r Rope) frequencies(dims int, long bool) []float64 {
	freq := make([]float64, dims/2)
	for i := range freq {
		freq[i] = math.Pow(r.Theta, -2*float64(i)/float64(dims))
	}
	switch s := r.Scaling; s.Kind {
	case "linear":
		for i := range freq {
			freq[i] /= s.Factor
		}
	case "llama3":
		for i := range freq {
			freq[i] = s.llama3(freq[i])
		}
	case "yarn":
		r.yarn(freq)
	case "longrope":
		factors := s.ShortFactors
		if long {
			factors = s.LongFactors
		}
		for i := range freq {
			freq[i] /= factors[i]
		}
	}
	return freq
}

// llama3: wavelengths above long are stretched, those below short are kept,
// and those between are mixed.
func (s RopeScaling) llama3(freq float64) float64 {
	wave := 2 * math.Pi / freq
	long, short := float64(s.OriginalContext)/s.LowFreqFactor, float64(s.OriginalContext)/s.HighFreqFactor
	if wave > long {
		return freq / s.Factor
	}
	if wave < short {
		return freq
	}
	mix := (float64(s.OriginalContext)/wave - s.LowFreqFactor) / (s.HighFreqFactor - s.LowFreqFactor)
	return (1-mix)*freq/s.Factor + mix*freq
}

// yarn keeps the frequencies of pairs that turn BetaFast times in the original
// context, divides those that turn BetaSlow times, and mixes between.
func (r Rope) yarn(freq []float64) {
	s, dims := r.Scaling, float64(2*len(freq))
	pair := func(turns float64) float64 {
		return dims * math.Log(float64(s.OriginalContext)/(turns*2*math.Pi)) / (2 * math.Log(r.Theta))
	}
	low, high := pair(s.BetaFast), pair(s.BetaSlow)
	if !s.NoTruncate {
		low, high = math.Floor(low), math.Ceil(high)
	}
	low, high = max(low, 0), min(high, dims-1)
	if low == high {
		high += 0.001
	}
	for i := range freq {
		mix := min(1, max(0, (float64(i)-low)/(high-low)))
		freq[i] = freq[i]*(1-mix) + freq[i]/s.Factor*mix
	}
}

// ropeTables are the cosines and sines of the first positions. With longrope
// those of long sequences follow those of short ones.
type ropeTables struct {
	positions int
	cos, sin  tensor.Mat // (positions, RD/2), or twice as many rows
}

// minPositions are in the tables at least.
const minPositions = 64

// ensure makes the tables long enough for positions.
func (t *ropeTables) ensure(b tensor.Backend, c *Config, positions int) {
	if positions <= t.positions {
		return
	}
	positions = max(positions, 2*t.positions, minPositions)
	dims, factor := c.RotaryDims(), c.Rope.Scaling.AttentionFactor
	if factor == 0 {
		factor = 1
	}
	tables := [][]float64{c.Rope.frequencies(dims, false)}
	if c.Rope.Scaling.Kind == "longrope" {
		tables = append(tables, c.Rope.frequencies(dims, true))
	}
	var cos, sin []float32
	for _, freq := range tables {
		for p := range positions {
			for _, f := range freq {
				s, co := math.Sincos(float64(p) * f)
				cos, sin = append(cos, float32(factor*co)), append(sin, float32(factor*s))
			}
		}
	}
	t.positions = positions
	b.Free(t.cos.Buf)
	b.Free(t.sin.Buf)
	rows := positions * len(tables)
	t.cos, t.sin = b.Alloc(len(cos)).Mat(0, rows, dims/2), b.Alloc(len(sin)).Mat(0, rows, dims/2)
	b.Upload(t.cos, cos)
	b.Upload(t.sin, sin)
}

// RopeBytes returns the memory for the tables of a number of positions.
func (c Config) RopeBytes(positions int) int64 {
	if c.Position != Rotary {
		return 0
	}
	n := 4 * int64(max(positions, minPositions)) * int64(c.RotaryDims())
	if c.Rope.Scaling.Kind == "longrope" {
		n *= 2
	}
	return n
}

// prepareRope makes the tables, and sets m.turns to their rows for the tokens
// of a batch.
func (m *Model) prepareRope(b *Batch) {
	if m.cfg.Position != Rotary {
		return
	}
	m.ropes.ensure(m.b, &m.cfg, b.positions())
	m.turns = b.pos
	if m.cfg.Rope.Scaling.Kind != "longrope" {
		return
	}
	m.longTurns = append(m.longTurns[:0], b.pos...)
	m.turns = m.longTurns
	for _, s := range b.spans {
		pos := m.turns[s.Q : s.Q+s.QLen]
		length := 0
		for _, p := range pos {
			length = max(length, int(p)+1)
		}
		if m.cfg.longRope(length) {
			for i := range pos {
				pos[i] += int32(m.ropes.positions)
			}
		}
	}
}

// longRope reports whether a sequence of a length is turned by other
// frequencies than a short one.
func (c *Config) longRope(length int) bool {
	return c.Rope.Scaling.Kind == "longrope" && length > c.Rope.Scaling.OriginalContext
}
