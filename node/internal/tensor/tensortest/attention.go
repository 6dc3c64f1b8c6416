package tensortest

import (
	"fmt"
	"math"
	"testing"

	"github.com/moot-net/moot/node/internal/tensor"
)

type attentionCase struct {
	heads, kv, hd, window int
	spans                 []tensor.Span
	limit                 float32 // of the soft cap
	slopes                []float32
}

func attention(t *testing.T, b tensor.Backend) {
	same := func(at, n int) tensor.Span { return tensor.Span{Q: at, QLen: n, K: at, KLen: n} }
	for _, c := range []attentionCase{
		{heads: 1, kv: 1, hd: 2, spans: []tensor.Span{same(0, 1)}},
		{heads: 2, kv: 2, hd: 4, spans: []tensor.Span{same(0, 5)}},
		{heads: 4, kv: 2, hd: 8, spans: []tensor.Span{same(0, 3), same(3, 7)}},
		{heads: 6, kv: 2, hd: 6, spans: []tensor.Span{same(2, 9)}}, // rows of no span before it
		{heads: 3, kv: 1, hd: 16, spans: []tensor.Span{same(0, 20)}},
		{heads: 2, kv: 1, hd: 4, window: 3, spans: []tensor.Span{same(0, 11), same(11, 2)}},
		{heads: 2, kv: 2, hd: 4, spans: []tensor.Span{{Q: 0, QLen: 1, K: 0, KLen: 9}, {Q: 1, QLen: 3, K: 9, KLen: 5}}}, // a cache
		{heads: 2, kv: 1, hd: 4, window: 4, spans: []tensor.Span{{Q: 0, QLen: 2, K: 0, KLen: 9}}},
		{heads: 4, kv: 2, hd: 4, spans: []tensor.Span{same(0, 6), same(6, 9)}, limit: 0.7},
		{heads: 2, kv: 2, hd: 4, window: 3, spans: []tensor.Span{same(0, 9)}, limit: 2},
		{heads: 3, kv: 3, hd: 4, spans: []tensor.Span{same(0, 6), same(6, 9)}, slopes: []float32{0.5, 0.25, 0.7}},
		{heads: 4, kv: 2, hd: 4, window: 3, spans: []tensor.Span{{Q: 0, QLen: 2, K: 0, KLen: 9}}, slopes: []float32{0.5, 0.25, 1, 0.1}},
	} {
		checkAttention(t, b, c, true)
	}
	if testing.Short() {
		return
	}
	// Longer than a block of queries; forward only against the naive one, and
	// the derivatives against those of shorter pieces (TestThreads).
	checkAttention(t, b, attentionCase{heads: 2, kv: 1, hd: 8, spans: []tensor.Span{same(0, 230)}}, false)
	checkAttention(t, b, attentionCase{heads: 2, kv: 1, hd: 8, window: 50, spans: []tensor.Span{same(0, 230)}}, false)
	checkAttention(t, b, attentionCase{heads: 2, kv: 1, hd: 8, window: 50, spans: []tensor.Span{same(0, 230)}, limit: 1, slopes: []float32{0.1, 0.01}}, false)
}

func checkAttention(t *testing.T, b tensor.Backend, c attentionCase, differences bool) {
	t.Helper()
	r := newRand()
	nq, nk := 0, 0
	for _, s := range c.spans {
		nq, nk = max(nq, s.Q+s.QLen), max(nk, s.K+s.KLen)
	}
	what := fmt.Sprintf("%+v", c)
	q, k, v := random(b, r, nq, c.heads*c.hd, 3), random(b, r, nk, c.kv*c.hd, 0), random(b, r, nk, c.kv*c.hd, 2)
	out, lse, dout := random(b, r, nq, c.heads*c.hd, 0), random(b, r, nq, c.heads, 0), random(b, r, nq, c.heads*c.hd, 1)
	p := tensor.Attention{
		Q: q.Mat, K: k.Mat, V: v.Mat, Out: out.Mat, LSE: lse.Mat,
		Heads: c.heads, KVHeads: c.kv, Scale: 0.6, Window: c.window, Spans: c.spans, SoftCap: c.limit, Slopes: c.slopes,
	}
	b.Attention(p)
	naive := func(y, l []float64) {
		for _, s := range c.spans {
			for h := range c.heads {
				for i := range s.QLen {
					naiveQuery(c, s, h, i, q, k, v, y, l)
				}
			}
		}
	}
	naive(out.want, lse.want)
	out.check(t, "Attention "+what, 3e-6)
	lse.check(t, "Attention: LSE "+what, 3e-6)

	dq, dk, dv := random(b, r, nq, c.heads*c.hd, 0), random(b, r, nk, c.kv*c.hd, 5), random(b, r, nk, c.kv*c.hd, 0)
	b.AttentionBackward(tensor.AttentionBackward{Attention: p, DOut: dout.Mat, DQ: dq.Mat, DK: dk.Mat, DV: dv.Mat})
	loss := func() float64 {
		y, l := make([]float64, len(out.want)), make([]float64, len(lse.want))
		naive(y, l)
		return inner(y, dout.want)
	}
	for _, d := range []struct {
		name string
		d, x mat
	}{{"dQ", dq, q}, {"dK", dk, k}, {"dV", dv, v}} {
		what := "AttentionBackward: " + d.name + " " + what
		if differences {
			before := clone(d.d.want)
			derivative(t, what, mat{Mat: keepOutside(d.d, c, d.name), b: b, want: d.d.want}, nil, d.x.want, loss, 2e-5)
			copy(d.d.want, before)
			continue
		}
		along(t, what, d.d, d.x, loss)
	}
}

// keepOutside sets rows that belong to no span to 0, which is their
// derivative: the operation leaves them alone.
func keepOutside(m mat, c attentionCase, name string) tensor.Mat {
	covered := make([]bool, m.Rows)
	for _, s := range c.spans {
		from, n := s.K, s.KLen
		if name == "dQ" {
			from, n = s.Q, s.QLen
		}
		for i := range n {
			covered[from+i] = true
		}
	}
	for i, ok := range covered {
		if !ok {
			m.b.Zero(m.RowRange(i, i+1))
		}
	}
	return m.Mat
}

// along compares the derivative in one random direction, where doing it for
// each element would take too long.
func along(t *testing.T, what string, d, x mat, f func() float64) {
	t.Helper()
	r := newRand()
	const h = 1e-6
	dir, old := make([]float64, len(x.want)), clone(x.want)
	got := make([]float32, len(dir))
	d.b.Download(got, d.Mat)
	have := 0.0
	for i := range dir {
		dir[i] = r.NormFloat64()
		have += dir[i] * float64(got[i])
		x.want[i] = old[i] + h*dir[i]
	}
	up := f()
	for i := range dir {
		x.want[i] = old[i] - h*dir[i]
	}
	down := f()
	copy(x.want, old)
	if want := (up - down) / (2 * h); math.Abs(have-want) > 1e-4*(1+math.Abs(want)) {
		t.Fatalf("%s: along a direction %v, want %v", what, have, want)
	}
}

func naiveQuery(c attentionCase, s tensor.Span, h, i int, q, k, v mat, y, lse []float64) {
	last := s.KLen - s.QLen + i
	first := 0
	if c.window > 0 {
		first = max(0, last-c.window+1)
	}
	kv := h / (c.heads / c.kv)
	query := q.want[(s.Q+i)*q.Cols+h*c.hd:][:c.hd]
	sum, scores := 0.0, make([]float64, last+1)
	for j := first; j <= last; j++ {
		score := float64(float32(0.6)) * inner(query, k.want[(s.K+j)*k.Cols+kv*c.hd:][:c.hd])
		if limit := float64(c.limit); limit != 0 {
			score = limit * math.Tanh(score/limit)
		}
		if c.slopes != nil {
			score += float64(c.slopes[h]) * float64(j-last)
		}
		scores[j] = math.Exp(score)
		sum += scores[j]
	}
	lse[(s.Q+i)*c.heads+h] = math.Log(sum)
	for d := range c.hd {
		o := 0.0
		for j := first; j <= last; j++ {
			o += scores[j] / sum * v.want[(s.K+j)*v.Cols+kv*c.hd+d]
		}
		y[(s.Q+i)*q.Cols+h*c.hd+d] = o
	}
}
