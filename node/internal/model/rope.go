package model

import (
	"math"

	"github.com/moot-net/moot/node/internal/tensor"
)

// Frequencies returns the angle per position of each pair of a head.
func (r Rope) Frequencies(headDim int) []float64 {
	freq := make([]float64, headDim/2)
	for i := range freq {
		freq[i] = r.Scaling.apply(math.Pow(r.Theta, -2*float64(i)/float64(headDim)))
	}
	return freq
}

func (s RopeScaling) apply(freq float64) float64 {
	switch s.Kind {
	case "linear":
		return freq / s.Factor
	case "llama3":
		// Wavelengths above long are stretched, those below short are kept,
		// and those between are mixed.
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
	return freq
}

// ropeTables are the cosines and sines of the first positions.
type ropeTables struct {
	positions int
	cos, sin  tensor.Mat // (positions, HD/2)
}

// ensure makes the tables long enough for positions.
func (t *ropeTables) ensure(b tensor.Backend, c *Config, positions int) {
	if positions <= t.positions {
		return
	}
	positions = max(positions, 2*t.positions, 64)
	freq := c.Rope.Frequencies(c.HeadDim)
	cos, sin := make([]float32, positions*len(freq)), make([]float32, positions*len(freq))
	for p := range positions {
		for i, f := range freq {
			s, co := math.Sincos(float64(p) * f)
			cos[p*len(freq)+i], sin[p*len(freq)+i] = float32(co), float32(s)
		}
	}
	t.positions = positions
	t.cos, t.sin = b.Alloc(len(cos)).Mat(0, positions, len(freq)), b.Alloc(len(sin)).Mat(0, positions, len(freq))
	b.Upload(t.cos, cos)
	b.Upload(t.sin, sin)
}
