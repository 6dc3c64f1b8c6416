package model

import (
	"math"

	"github.com/moot-net/moot/node/internal/tensor"
)

// cache holds the keys and values of a sequence that is being generated.
type cache struct {
	k, v []tensor.Mat // of each layer, (max tokens, KH*HD)
	n    int          // tokens in it
}

// forward runs the blocks on a batch and leaves the residual stream in
// m.ws.x. With kv the batch is one sequence that continues the cache.
func (m *Model) forward(b *Batch, kv *cache) tensor.Mat {
	n := b.Tokens()
	m.ropes.ensure(m.b, &m.cfg, b.positions())
	x := m.ws.act(0).x.RowRange(0, n)
	m.b.Gather(x, m.embed, b.ids)
	for i := range m.layers {
		if m.trace != nil {
			m.trace(i, x)
		}
		out := m.ws.x.RowRange(0, n)
		if i+1 < len(m.layers) {
			out = m.ws.act(i+1).x.RowRange(0, n)
		}
		m.block(i, b, kv, x, out)
		x = out
	}
	if m.trace != nil {
		m.trace(len(m.layers), x)
	}
	return x
}

// block computes layer i: x (T,C) to out (T,C). They may be the same.
func (m *Model) block(i int, b *Batch, kv *cache, x, out tensor.Mat) {
	l, be, n := &m.layers[i], m.b, x.Rows
	a := m.ws.act(i).rowRange(n)

	be.RMSNorm(a.n1, a.inv1, x, l.norm1, m.cfg.rms())
	k, v := a.k, a.v
	if kv != nil {
		k, v = kv.k[i].RowRange(kv.n, kv.n+n), kv.v[i].RowRange(kv.n, kv.n+n)
	}
	l.q.forward(be, a.q, a.n1, l.q.low(a.low[0]), false)
	l.k.forward(be, k, a.n1, l.k.low(a.low[1]), false)
	l.v.forward(be, v, a.n1, l.v.low(a.low[2]), false)
	be.Rope(a.q, m.ropes.cos, m.ropes.sin, m.cfg.HeadDim, b.pos, false)
	be.Rope(k, m.ropes.cos, m.ropes.sin, m.cfg.HeadDim, b.pos, false)
	if kv != nil {
		k, v = kv.k[i].RowRange(0, kv.n+n), kv.v[i].RowRange(0, kv.n+n)
	}
	be.Attention(m.attention(l, b, a, k, v))
	be.Copy(a.mid, x)
	l.o.forward(be, a.mid, a.att, l.o.low(a.low[3]), true)

	be.RMSNorm(a.n2, a.inv2, a.mid, l.norm2, m.cfg.rms())
	l.gate.forward(be, a.gate, a.n2, l.gate.low(a.low[4]), false)
	l.up.forward(be, a.up, a.n2, l.up.low(a.low[5]), false)
	be.SwiGLU(a.act, a.gate, a.up)
	be.Copy(out, a.mid)
	l.down.forward(be, out, a.act, l.down.low(a.low[6]), true)
}

func (m *Model) attention(l *layer, b *Batch, a acts, k, v tensor.Mat) tensor.Attention {
	return tensor.Attention{
		Q: a.q, K: k, V: v, Out: a.att, LSE: a.lse,
		Heads: m.cfg.Heads, KVHeads: m.cfg.KVHeads,
		Scale:  float32(1 / math.Sqrt(float64(m.cfg.HeadDim))),
		Window: l.window, Spans: b.spans,
	}
}

// rowRange returns the first n rows of everything.
func (a *acts) rowRange(n int) acts {
	cut := func(m tensor.Mat) tensor.Mat {
		if m.None() {
			return m
		}
		return m.RowRange(0, n)
	}
	c := acts{
		x: cut(a.x), inv1: cut(a.inv1), n1: cut(a.n1), q: cut(a.q), k: cut(a.k), v: cut(a.v),
		att: cut(a.att), lse: cut(a.lse), mid: cut(a.mid), inv2: cut(a.inv2), n2: cut(a.n2),
		gate: cut(a.gate), up: cut(a.up), act: cut(a.act),
	}
	for i, l := range a.low {
		c.low[i] = cut(l)
	}
	return c
}

// low returns the columns of m that the adapter's rank needs.
func (l *linear) low(m tensor.Mat) tensor.Mat {
	if l.lora == nil {
		return tensor.Mat{}
	}
	return m.ColRange(0, l.rank())
}

// backward takes m.ws.dx, the derivative by the residual stream after the last
// layer, down to the lowest layer that is trained. The activations of the
// layers it passes are overwritten.
func (m *Model) backward(b *Batch) {
	lowest := m.lowestTrained()
	for i := len(m.layers) - 1; i >= max(0, lowest); i-- {
		m.blockBackward(i, b, i > lowest)
	}
	if lowest < 0 {
		m.b.ScatterAdd(m.dEmbed, m.ws.dx.RowRange(0, b.Tokens()), b.ids)
	}
}

// blockBackward replaces m.ws.dx, the derivative by the output of layer i, by
// that by its input, unless further is false and nobody needs it.
func (m *Model) blockBackward(i int, b *Batch, further bool) {
	l, be, n := &m.layers[i], m.b, b.Tokens()
	a := m.ws.act(i).rowRange(n)
	w := &m.ws
	dx, dn := w.dx.RowRange(0, n), w.dn.RowRange(0, n)
	dq, dk, dv, datt := w.dq.RowRange(0, n), w.dk.RowRange(0, n), w.dv.RowRange(0, n), w.datt.RowRange(0, n)
	dact := w.dact.RowRange(0, n)
	back := func(lin *linear, j int, dx, dy, x tensor.Mat, add bool) {
		dlow := tensor.Mat{}
		if lin.lora != nil {
			dlow = lin.low(w.dlow.RowRange(0, n))
		}
		lin.backward(be, dx, dy, x, lin.low(a.low[j]), dlow, add)
	}

	back(&l.down, 6, dact, dx, a.act, false)
	be.SwiGLUBackward(dact, a.gate, a.up)
	back(&l.gate, 4, dn, a.gate, a.n2, false)
	back(&l.up, 5, dn, a.up, a.n2, true)
	be.RMSNormBackward(dx, l.dNorm2, dn, a.mid, a.inv2, l.norm2, m.cfg.rms())

	back(&l.o, 3, datt, dx, a.att, false)
	be.AttentionBackward(tensor.AttentionBackward{
		Attention: m.attention(l, b, a, a.k, a.v), DOut: datt, DQ: dq, DK: dk, DV: dv,
	})
	be.Rope(dq, m.ropes.cos, m.ropes.sin, m.cfg.HeadDim, b.pos, true)
	be.Rope(dk, m.ropes.cos, m.ropes.sin, m.cfg.HeadDim, b.pos, true)
	if !further {
		dn = tensor.Mat{}
	}
	back(&l.q, 0, dn, dq, a.n1, false)
	back(&l.k, 1, dn, dk, a.n1, true)
	back(&l.v, 2, dn, dv, a.n1, true)
	if further {
		be.RMSNormBackward(dx, l.dNorm1, dn, a.x, a.inv1, l.norm1, m.cfg.rms())
	}
}
