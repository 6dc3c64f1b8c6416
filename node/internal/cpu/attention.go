package cpu

import (
	"fmt"
	"math"

	"github.com/moot-net/moot/node/internal/tensor"
)

// queryBlock is how many queries are worked on at once: the scores of a block
// against the keys that it sees are in memory, never those of all queries.
const queryBlock = 96

// attentionTask has one piece for each sequence and key-value head (the
// forward pass: query head), so that sums over queries and over the heads of a
// group are made by one goroutine in one order.
type attentionTask struct {
	b        *Backend
	p        tensor.AttentionBackward
	backward bool
	hd       int
}

// Attention is causal attention over the spans of p.
func (b *Backend) Attention(p tensor.Attention) {
	b.attention = attentionTask{b: b, p: tensor.AttentionBackward{Attention: p}, hd: headDim(p)}
	b.pool.do(len(p.Spans)*p.Heads, &b.attention)
	b.attention = attentionTask{}
}

// AttentionBackward sets the derivatives in the rows of the spans.
func (b *Backend) AttentionBackward(p tensor.AttentionBackward) {
	mustShape("dOut", p.DOut, p.Out.Rows, p.Out.Cols)
	mustShape("dQ", p.DQ, p.Q.Rows, p.Q.Cols)
	mustShape("dK", p.DK, p.K.Rows, p.K.Cols)
	mustShape("dV", p.DV, p.V.Rows, p.V.Cols)
	b.attention = attentionTask{b: b, p: p, backward: true, hd: headDim(p.Attention)}
	b.pool.do(len(p.Spans)*p.KVHeads, &b.attention)
	b.attention = attentionTask{}
}

func headDim(p tensor.Attention) int {
	if p.Heads <= 0 || p.KVHeads <= 0 || p.Heads%p.KVHeads != 0 || p.Q.Cols%p.Heads != 0 {
		panic(fmt.Sprintf("bug: %d and %d heads of %d columns", p.Heads, p.KVHeads, p.Q.Cols))
	}
	hd := p.Q.Cols / p.Heads
	mustShape("V", p.V, p.K.Rows, p.KVHeads*hd)
	mustShape("K", p.K, p.K.Rows, p.KVHeads*hd)
	mustShape("Out", p.Out, p.Q.Rows, p.Q.Cols)
	mustShape("LSE", p.LSE, p.Q.Rows, p.Heads)
	if p.Slopes != nil && len(p.Slopes) != p.Heads {
		panic(fmt.Sprintf("bug: %d slopes for %d heads", len(p.Slopes), p.Heads))
	}
	for _, s := range p.Spans {
		if s.QLen > s.KLen || s.Q+s.QLen > p.Q.Rows || s.K+s.KLen > p.K.Rows {
			panic(fmt.Sprintf("bug: span %+v of %d queries and %d keys", s, p.Q.Rows, p.K.Rows))
		}
	}
	return hd
}

func (t *attentionTask) piece(thread, i int) {
	s := &t.b.scratch[thread]
	group := t.p.Heads / t.p.KVHeads
	if !t.backward {
		t.forward(s, t.p.Spans[i/t.p.Heads], i%t.p.Heads)
		return
	}
	span, kv := t.p.Spans[i/t.p.KVHeads], i%t.p.KVHeads
	for h := kv * group; h < (kv+1)*group; h++ {
		t.back(s, span, h, h == kv*group)
	}
}

// head returns the columns of head h and rows from, n of m.
func (t *attentionTask) head(m tensor.Mat, h, from, n int) tensor.Mat {
	return m.ColRange(h*t.hd, (h+1)*t.hd).RowRange(from, from+n)
}

// product computes c = alpha*a*op(b), or c += with add; ta and tb transpose.
func (t *attentionTask) product(s *scratch, m, n, k int, a []float32, rsa, csa int, b []float32, rsb, csb int, c []float32, ldc int, alpha float32, add bool) {
	s.args = gemmArgs{m: m, n: n, k: k, a: a, rsa: rsa, csa: csa, b: b, rsb: rsb, csb: csb, c: c, ldc: ldc, alpha: alpha, add: add}
	s.args.dots = m == 1 && csa == 1 && rsb == 1
	t.b.k.gemm(s, &s.args)
}

// seen returns the keys that a query sees: from first to last-1.
func (t *attentionTask) seen(span tensor.Span, query int) (first, last int) {
	last = span.KLen - span.QLen + query + 1
	if w := t.p.Window; w > 0 {
		first = max(0, last-w)
	}
	return first, last
}

// blockScores computes the scores of queries q0 to q0+n of head h against keys
// k0 to k1 and returns them, a row for each query.
func (t *attentionTask) blockScores(s *scratch, span tensor.Span, h, q0, n int) (scores []float32, k0, k1 int) {
	k0, _ = t.seen(span, q0)
	_, k1 = t.seen(span, q0+n-1)
	group := t.p.Heads / t.p.KVHeads
	q := t.head(t.p.Q, h, span.Q+q0, n)
	k := t.head(t.p.K, h/group, span.K+k0, k1-k0)
	s.scores = grow(s.scores, n*(k1-k0))
	t.product(s, n, k1-k0, t.hd, q.Host(), q.Stride, 1, k.Host(), 1, k.Stride, s.scores, k1-k0, t.p.Scale, false)
	return s.scores, k0, k1
}

// adjust turns the scaled scores of a query against the keys that it sees, the
// last of which is its own, into those that softmax is taken of. caps, unless
// it is nil, receives the derivatives of the soft cap.
func (t *attentionTask) adjust(row []float32, h int, caps []float32) {
	if c := t.p.SoftCap; c != 0 {
		softCap(row, c)
		softCapSlope(caps, row, c)
	}
	if t.p.Slopes != nil {
		slope := t.p.Slopes[h]
		for j := range row {
			row[j] += slope * float32(j-len(row)+1)
		}
	}
}

func (t *attentionTask) forward(s *scratch, span tensor.Span, h int) {
	group := t.p.Heads / t.p.KVHeads
	for q0 := 0; q0 < span.QLen; q0 += queryBlock {
		n := min(queryBlock, span.QLen-q0)
		scores, k0, k1 := t.blockScores(s, span, h, q0, n)
		for i := range n {
			first, last := t.seen(span, q0+i)
			row := scores[i*(k1-k0) : (i+1)*(k1-k0)]
			clear(row[:first-k0])
			clear(row[last-k0:])
			row = row[first-k0 : last-k0]
			t.adjust(row, h, nil)
			most := t.b.k.maximum(row)
			sum := t.b.k.expSum(row, row, most)
			t.b.k.scale(row, 1/sum)
			t.p.LSE.HostRow(span.Q + q0 + i)[h] = most + float32(math.Log(float64(sum)))
		}
		v := t.head(t.p.V, h/group, span.K+k0, k1-k0)
		out := t.head(t.p.Out, h, span.Q+q0, n)
		t.product(s, n, t.hd, k1-k0, scores, k1-k0, 1, v.Host(), v.Stride, 1, out.Host(), out.Stride, 1, false)
	}
}

// back adds the derivatives of query head h; with first it sets those by keys
// and values.
func (t *attentionTask) back(s *scratch, span tensor.Span, h int, first bool) {
	group := t.p.Heads / t.p.KVHeads
	if first {
		for _, m := range []tensor.Mat{t.head(t.p.DK, h/group, span.K, span.KLen), t.head(t.p.DV, h/group, span.K, span.KLen)} {
			for i := range m.Rows {
				clear(m.HostRow(i))
			}
		}
	}
	for q0 := 0; q0 < span.QLen; q0 += queryBlock {
		n := min(queryBlock, span.QLen-q0)
		scores, k0, k1 := t.blockScores(s, span, h, q0, n)
		w := k1 - k0
		q := t.head(t.p.Q, h, span.Q+q0, n)
		k, v := t.head(t.p.K, h/group, span.K+k0, w), t.head(t.p.V, h/group, span.K+k0, w)
		dk, dv := t.head(t.p.DK, h/group, span.K+k0, w), t.head(t.p.DV, h/group, span.K+k0, w)
		out, dout := t.head(t.p.Out, h, span.Q+q0, n), t.head(t.p.DOut, h, span.Q+q0, n)
		dq := t.head(t.p.DQ, h, span.Q+q0, n)

		s.grads = grow(s.grads, n*w)
		t.product(s, n, w, t.hd, dout.Host(), dout.Stride, 1, v.Host(), 1, v.Stride, s.grads, w, 1, false)
		for i := range n {
			from, to := t.seen(span, q0+i)
			p, d := scores[i*w:(i+1)*w], s.grads[i*w:(i+1)*w]
			clear(p[:from-k0])
			clear(p[to-k0:])
			clear(d[:from-k0])
			clear(d[to-k0:])
			p, d = p[from-k0:to-k0], d[from-k0:to-k0]
			if t.p.SoftCap != 0 {
				s.caps = grow(s.caps, len(p))
			}
			t.adjust(p, h, s.caps)
			t.b.k.expSum(p, p, t.p.LSE.HostRow(span.Q + q0 + i)[h])
			t.b.k.softmaxBack(d, p, t.b.k.dot(out.HostRow(i), dout.HostRow(i)), t.p.Scale)
			if t.p.SoftCap != 0 {
				mul(d, s.caps)
			}
		}
		t.product(s, w, t.hd, n, scores, 1, w, dout.Host(), dout.Stride, 1, dv.Host(), dv.Stride, 1, true)
		t.product(s, w, t.hd, n, s.grads, 1, w, q.Host(), q.Stride, 1, dk.Host(), dk.Stride, 1, true)
		t.product(s, n, t.hd, w, s.grads, w, 1, k.Host(), k.Stride, 1, dq.Host(), dq.Stride, 1, false)
	}
}
