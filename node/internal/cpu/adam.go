package cpu

import (
	"math"

	"github.com/moot-net/moot/node/internal/tensor"
)

// adamPiece is how many parameters one piece updates, and how many squares are
// added before the sum is widened.
const adamPiece = 1 << 13

type adamTask struct {
	k          *kernels
	p, g, m, v []float32
	c          adamConsts
}

// AdamW updates p, m and v.
func (b *Backend) AdamW(p, g, m, v tensor.Mat, o tensor.AdamW) {
	for _, x := range []tensor.Mat{g, m, v} {
		mustShape("state", x, 1, p.Cols)
	}
	t := float64(o.Step)
	b.adam = adamTask{k: b.k, p: p.Host(), g: g.Host(), m: m.Host(), v: v.Host(), c: adamConsts{
		adamGradScale: float32(o.GradScale),
		adamDecay:     float32(1 - o.LearningRate*o.WeightDecay),
		adamBeta1:     float32(o.Beta1),
		adamRest1:     float32(1 - o.Beta1),
		adamBeta2:     float32(o.Beta2),
		adamRest2:     float32(1 - o.Beta2),
		adamStep:      float32(o.LearningRate / (1 - math.Pow(o.Beta1, t))),
		adamRoot:      float32(1 / math.Sqrt(1-math.Pow(o.Beta2, t))),
		adamEpsilon:   float32(o.Epsilon),
	}}
	b.pool.do(ceilDiv(p.Cols, adamPiece), &b.adam)
	b.adam = adamTask{}
}

func (t *adamTask) piece(_, i int) {
	from, to := i*adamPiece, min((i+1)*adamPiece, len(t.p))
	t.k.adamw(t.p[from:to], t.g[from:to], t.m[from:to], t.v[from:to], &t.c)
}

type squaresTask struct {
	k    *kernels
	x    []float32
	sums []float64
}

// SumSquares returns the sum of the squares of m.
func (b *Backend) SumSquares(m tensor.Mat) float64 {
	t := &b.squares
	t.k = b.k
	sum := 0.0
	for i := range m.Rows {
		t.x = m.HostRow(i)
		pieces := ceilDiv(len(t.x), adamPiece)
		if len(t.sums) < pieces {
			t.sums = make([]float64, pieces)
		}
		b.pool.do(pieces, t)
		for _, s := range t.sums[:pieces] {
			sum += s
		}
	}
	t.x = nil
	return sum
}

func (t *squaresTask) piece(_, i int) {
	x := t.x[i*adamPiece : min((i+1)*adamPiece, len(t.x))]
	sum := 0.0
	for len(x) > 0 {
		n := min(len(x), 256) // so that float32 sums stay short
		sum += float64(t.k.dot(x[:n], x[:n]))
		x = x[n:]
	}
	t.sums[i] = sum
}
