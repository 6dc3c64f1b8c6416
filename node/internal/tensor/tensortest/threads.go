package tensortest

import (
	"slices"
	"testing"

	"github.com/moot-net/moot/node/internal/tensor"
)

// threads runs everything that is cut into pieces with several numbers of
// threads and compares bits.
func threads(t *testing.T, open func(threads int) tensor.Backend) {
	want := everything(open(1))
	for _, n := range []int{2, 3, 7} {
		for i, got := range everything(open(n)) {
			if !slices.Equal(got, want[i]) {
				t.Errorf("result %d with %d threads differs from that with one", i, n)
			}
		}
	}
}

func everything(b tensor.Backend) [][]float32 {
	r := newRand()
	var results [][]float32
	keep := func(m mat) {
		got := make([]float32, m.Rows*m.Cols)
		b.Download(got, m.Mat)
		results = append(results, got)
	}
	for _, s := range [][3]int{{301, 64, 96}, {65, 257, 400}, {3, 999, 200}, {2, 3000, 70}, {999, 8, 50}, {1000, 3, 99}} {
		for i := range 4 {
			o := tensor.MatMul{TransA: i&1 != 0, TransB: i&2 != 0}
			c := random(b, r, s[0], s[1], 0)
			b.MatMul(c.Mat, operand(b, r, s[0], s[2], 0, o.TransA).Mat, operand(b, r, s[2], s[1], 0, o.TransB).Mat, o)
			keep(c)
		}
	}
	x, w, inv, out, dx := random(b, r, 500, 90, 0), random(b, r, 1, 90, 0), random(b, r, 500, 1, 0), random(b, r, 500, 90, 0), random(b, r, 500, 90, 0)
	b.RMSNorm(out.Mat, inv.Mat, x.Mat, w.Mat, tensor.RMSNorm{Eps: 1e-5})
	keep(out)
	b.RMSNormBackward(dx.Mat, w.Mat, out.Mat, x.Mat, inv.Mat, w.Mat, tensor.RMSNorm{Eps: 1e-5})
	keep(dx)
	keep(w)
	stats, bias, dw := random(b, r, 500, 2, 0), random(b, r, 1, 90, 0), random(b, r, 1, 90, 0)
	b.LayerNorm(out.Mat, stats.Mat, x.Mat, w.Mat, bias.Mat, 1e-5)
	keep(out)
	b.LayerNormBackward(dx.Mat, dw.Mat, bias.Mat, out.Mat, x.Mat, stats.Mat, w.Mat)
	for _, m := range []mat{dx, dw, bias} {
		keep(m)
	}
	for _, kind := range []tensor.GELU{tensor.GELUExact, tensor.GELUTanh} {
		b.GELU(out.Mat, x.Mat, dx.Mat, kind)
		keep(out)
		b.GELUBackward(out.Mat, x.Mat, dx.Mat, kind)
		keep(x)
		keep(dx)
	}
	b.SoftCapBackward(out.Mat, x.Mat, 2)
	b.SoftCap(out.Mat, 2)
	b.ClampBackward(x.Mat, out.Mat, 1)
	b.Clamp(out.Mat, 1)
	b.Scale(out.Mat, 3)
	keep(x)
	keep(out)
	gate, up := random(b, r, 300, 77, 0), random(b, r, 300, 77, 0)
	b.SwiGLUBackward(random(b, r, 300, 77, 0).Mat, gate.Mat, up.Mat)
	keep(gate)
	keep(up)
	logits := random(b, r, 130, 500, 0)
	nll := make([]float32, 130)
	b.CrossEntropy(logits.Mat, make([]int32, 130), 0.5, nll, make([]int32, 130))
	keep(logits)
	results = append(results, nll)

	spans := []tensor.Span{{Q: 0, QLen: 130, K: 0, KLen: 130}, {Q: 130, QLen: 7, K: 130, KLen: 7}}
	q, k, v := random(b, r, 137, 64, 0), random(b, r, 137, 32, 0), random(b, r, 137, 32, 0)
	lse := random(b, r, 137, 4, 0)
	o, dq, dk, dv := random(b, r, 137, 64, 0), random(b, r, 137, 64, 0), random(b, r, 137, 32, 0), random(b, r, 137, 32, 0)
	p := tensor.Attention{Q: q.Mat, K: k.Mat, V: v.Mat, Out: o.Mat, LSE: lse.Mat, Heads: 4, KVHeads: 2, Scale: 0.25, Spans: spans}
	dout := random(b, r, 137, 64, 0)
	for range 2 {
		b.Attention(p)
		b.AttentionBackward(tensor.AttentionBackward{Attention: p, DOut: dout.Mat, DQ: dq.Mat, DK: dk.Mat, DV: dv.Mat})
		for _, m := range []mat{o, lse, dq, dk, dv} {
			keep(m)
		}
		p.SoftCap, p.Slopes = 2, []float32{0.5, 0.25, 0.125, 0.0625}
	}
	params, m1, m2 := random(b, r, 1, 50_000, 0), random(b, r, 1, 50_000, 0), random(b, r, 1, 50_000, 0)
	b.Zero(m2.Mat) // a mean of squares is not negative
	b.AdamW(params.Mat, random(b, r, 1, 50_000, 0).Mat, m1.Mat, m2.Mat, tensor.AdamW{LearningRate: 1, Beta1: 0.9, Beta2: 0.9, Step: 1, GradScale: 1})
	keep(params)
	return append(results, []float32{float32(b.SumSquares(params.Mat)), float32(b.SumSquares(logits.Mat))})
}
