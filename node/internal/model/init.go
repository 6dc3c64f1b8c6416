package model

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
)

// New makes a model with random weights, which depend on c and seed only:
// matrices normal with deviation c.InitRange (those that write to the residual
// stream divided by sqrt(2 layers)), norms one (as a model stores it), biases
// zero.
func New(c Config, seed uint64, o Options) (*Model, error) {
	if c.InitRange == 0 {
		c.InitRange = 0.02
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m := newModel(c, o.backend())
	m.SetRecompute(o.Recompute)
	for i, spec := range c.params() {
		values := make([]float32, spec.size())
		switch {
		case spec.rows > 0:
			deviation := c.InitRange
			if spec.residual {
				deviation /= math.Sqrt(2 * float64(c.Layers))
			}
			h := fnv.New64a()
			h.Write([]byte(spec.name))
			fillNormal(values, rand.NewPCG(seed, h.Sum64()), deviation)
		case isNorm(spec) && c.Norm != RMSNormPlusOne:
			for j := range values {
				values[j] = 1
			}
		}
		m.b.Upload(m.params[i].Value, values)
	}
	return m, m.b.Err()
}

// isNorm tells the scale of a norm from a bias: vectors named weight.
func isNorm(p paramSpec) bool { return p.rows == 0 && p.name[len(p.name)-1] == 't' }

// fillNormal draws nearly normal values: sums of twelve uniform ones, because
// additions give the same bits on every machine, which logarithms do not.
func fillNormal(dst []float32, src *rand.PCG, deviation float64) {
	for i := range dst {
		sum := -6.0
		for range 6 {
			u := src.Uint64()
			sum += float64(u>>32)/(1<<32) + float64(u&(1<<32-1))/(1<<32)
		}
		dst[i] = float32(sum * deviation)
	}
}
