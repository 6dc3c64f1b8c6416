package model

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/node/internal/tensor"
)

// NewFrozen makes a model whose matrices are kept as Load keeps those of a
// checkpoint of bfloat16 (tensor.Half) or of four bits (the embedding and the
// output layer stay bfloat16). Their values repeat, so that it is made fast: it
// is for measuring.
func NewFrozen(c Config, kind tensor.Kind, o Options) (*Model, error) {
	if kind != tensor.Half && kind != tensor.FourBits {
		return nil, fmt.Errorf("new model: matrices of kind %d", kind)
	}
	if c.InitRange == 0 {
		c.InitRange = 0.02
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	packed := map[string]bool{}
	for _, p := range c.params() {
		packed[p.name] = p.rows > 0
	}
	m := newPacked(c, o.backend(), packed)
	tables := map[string]bool{c.EmbeddingPath() + ".weight": true, c.family().head + ".weight": true}
	for i, p := range c.params() {
		switch {
		case p.rows == 0:
			values := make([]float32, p.size())
			for j := range values {
				if isNorm(p) && c.Norm != RMSNormPlusOne {
					values[j] = 1
				}
			}
			m.b.Upload(m.params[i].Value, values)
		case kind == tensor.FourBits && !tables[p.name] && !p.transposed:
			v, err := repeatedNF4(p, c.InitRange)
			if err != nil {
				return nil, err
			}
			m.setPacked(i, p, v)
		default:
			m.setPacked(i, p, repeatedBF16(p.size(), c.InitRange))
		}
		if err := m.b.Err(); err != nil {
			return nil, err
		}
	}
	m.bind()
	m.SetRecompute(o.Recompute)
	return m, m.b.Err()
}

// period is after how many values they repeat; it divides no usual width.
const period = 1<<16 + 1

func repeatedBF16(n int, deviation float64) tensor.BF16 {
	values := make([]float32, min(n, period))
	fillNormal(values, rand.NewPCG(1, uint64(n)), deviation)
	out := make(tensor.BF16, n)
	for i := range out[:len(values)] {
		out[i] = uint16(math.Float32bits(values[i]) >> 16)
	}
	for at := len(values); at < n; at *= 2 {
		copy(out[at:], out[:at])
	}
	return out
}

func repeatedNF4(p paramSpec, deviation float64) (*nf4.Weight, error) {
	r := rand.New(rand.NewPCG(2, uint64(p.size())))
	w := &nf4.Weight{Rows: p.rows, Cols: p.cols, BlockSize: nf4.BlockSize, Packed: make([]byte, nf4.PackedSize(p.size())), Code: nf4.Code}
	n := min(len(w.Packed), period)
	for i := range w.Packed[:n] {
		w.Packed[i] = byte(r.Uint32())
	}
	for at := n; at < len(w.Packed); at *= 2 {
		copy(w.Packed[at:], w.Packed[:at])
	}
	scales := make([]float32, nf4.Blocks(p.size(), nf4.BlockSize))
	for i := range scales {
		scales[i] = float32(deviation * (2 + r.Float64()))
	}
	w.Nested = nf4.NewNested(scales)
	return w, w.Validate()
}
