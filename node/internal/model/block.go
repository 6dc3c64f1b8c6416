package model

import "github.com/moot-net/moot/node/internal/tensor"

// cache holds the keys and values of a sequence that is being generated.
type cache struct {
	k, v []tensor.Mat // of each layer, (max tokens, KH*HD)
	n    int          // tokens in it
}

// forward runs the blocks on a batch and leaves the residual stream in
// m.ws.x. With kv the batch is one sequence that continues the cache.
func (m *Model) forward(b *Batch, kv *cache) tensor.Mat {
	n := b.Tokens()
	m.prepareRope(b)
	x := m.ws.act(0).x.RowRange(0, n)
	m.embedTokens(x, b)
	for i := range m.layers {
		if m.trace != nil {
			m.trace(i, x)
		}
		if host, ok := m.ws.host(i, n); ok && kv == nil {
			m.b.Copy(host, x)
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

// embedTokens sets x (T,C) to what the first layer reads.
func (m *Model) embedTokens(x tensor.Mat, b *Batch) {
	m.b.Gather(x, m.embed, b.ids)
	if s := m.cfg.EmbedScale; s != 0 {
		m.b.Scale(x, float32(s))
	}
	if !m.positions.None() {
		learned := m.ws.x.RowRange(0, x.Rows) // free until the last layer
		m.b.Gather(learned, m.positions, b.pos)
		m.b.Add(x, learned)
	}
}

// embedBackward adds the derivatives by the tables; dx is that by what the
// first layer read, and is overwritten.
func (m *Model) embedBackward(dx tensor.Mat, b *Batch) {
	if !m.dPositions.None() {
		m.b.ScatterAdd(m.dPositions, dx, b.pos)
	}
	if s := m.cfg.EmbedScale; s != 0 {
		m.b.Scale(dx, float32(s))
	}
	m.b.ScatterAdd(m.dEmbed, dx, b.ids)
}

// block computes layer i: x (T,C) to out (T,C). They may be the same.
func (m *Model) block(i int, b *Batch, kv *cache, x, out tensor.Mat) {
	l, be, c, n := &m.layers[i], m.b, &m.cfg, x.Rows
	a := m.ws.act(i).rowRange(n)

	m.normalise(a.n1, a.stats1, x, &l.norm1)
	k, v := a.k, a.v
	if kv != nil {
		k, v = kv.k[i].RowRange(kv.n, kv.n+n), kv.v[i].RowRange(kv.n, kv.n+n)
	}
	m.project(l, &a, k, v)
	if c.Position == Rotary {
		be.Rope(a.q, m.ropes.cos, m.ropes.sin, c.HeadDim, m.turns, false)
		be.Rope(k, m.ropes.cos, m.ropes.sin, c.HeadDim, m.turns, false)
	}
	if kv != nil {
		k, v = kv.k[i].RowRange(0, kv.n+n), kv.v[i].RowRange(0, kv.n+n)
	}
	be.Attention(m.attention(l, b, a, k, v))
	if c.PostNorms {
		l.forward(be, oSlot, a.o, a.att, &a, false)
		m.normalise(a.mid, a.statsO, a.o, &l.post1)
		be.Add(a.mid, x)
	} else {
		be.Copy(a.mid, x)
		l.forward(be, oSlot, a.mid, a.att, &a, true)
	}

	in := a.mid
	if c.Parallel {
		in = x
	}
	if !c.SharedNorm {
		m.normalise(a.n2, a.stats2, in, &l.norm2)
	}
	m.activate(l, &a)
	if c.PostNorms {
		l.forward(be, downSlot, a.down, a.act, &a, false)
		m.normalise(out, a.statsDown, a.down, &l.post2)
		be.Add(out, a.mid)
	} else {
		be.Copy(out, a.mid)
		l.forward(be, downSlot, out, a.act, &a, true)
	}
}

// project sets a.q, k and v to the queries, keys and values of a.n1, before
// rotary embedding.
func (m *Model) project(l *layer, a *acts, k, v tensor.Mat) {
	be, q0, k0 := m.b, a.q, k
	if m.cfg.QKNorm {
		q0, k0 = a.q0, a.k0
	}
	if m.family.fused == notFused {
		l.forward(be, qSlot, q0, a.n1, a, false)
		l.forward(be, kSlot, k0, a.n1, a, false)
		l.forward(be, vSlot, v, a.n1, a, false)
	} else {
		qkv := m.ws.qkv.RowRange(0, a.q.Rows)
		l.forward(be, qSlot, qkv, a.n1, a, false)
		if limit := m.cfg.ClipQKV; limit != 0 {
			be.Clamp(qkv, float32(limit))
		}
		m.eachPart(qkv, q0, k0, v, func(part, whole tensor.Mat) { be.Copy(part, whole) })
	}
	if m.cfg.QKNorm {
		m.normaliseHeads(a.q, a.statsQ, q0, &l.qNorm)
		m.normaliseHeads(k, a.statsK, k0, &l.kNorm)
	}
}

// eachPart calls fn for q, k and v, each with its columns of qkv. Taking a row
// for each group of heads, the columns of a part lie together.
func (m *Model) eachPart(qkv, q, k, v tensor.Mat, fn func(part, whole tensor.Mat)) {
	groups := 1
	if m.family.fused == byGroup {
		groups = m.cfg.KVHeads
	}
	rows, at := qkv.Rows*groups, 0
	whole := qkv.Reshape(rows, qkv.Cols/groups)
	for _, part := range []tensor.Mat{q, k, v} {
		w := part.Cols / groups
		fn(part.Reshape(rows, w), whole.ColRange(at, at+w))
		at += w
	}
}

// activate sets a.act to the input of the MLP's last layer.
func (m *Model) activate(l *layer, a *acts) {
	be, f := m.b, m.family
	switch {
	case f.fusedGate:
		l.forward(be, gateSlot, a.gateUp, a.n2, a, false)
	case !a.gate.None():
		l.forward(be, gateSlot, a.gate, a.n2, a, false)
		l.forward(be, upSlot, a.up, a.n2, a, false)
	default:
		l.forward(be, upSlot, a.up, a.n2, a, false)
	}
	switch {
	case m.cfg.Activation == SiLU:
		be.SwiGLU(a.act, a.gate, a.up)
	case !a.gate.None():
		be.GELU(a.act, a.gate, a.up, m.cfg.gelu())
	default:
		be.GELU(a.act, a.up, tensor.Mat{}, m.cfg.gelu())
	}
}

// activateBackward replaces what the activation read by the derivatives by it,
// and sets dn, unless it is none, to that by a.n2.
func (m *Model) activateBackward(l *layer, a *acts, dact, dn tensor.Mat) {
	be, f := m.b, m.family
	switch {
	case m.cfg.Activation == SiLU:
		be.SwiGLUBackward(dact, a.gate, a.up)
	case !a.gate.None():
		be.GELUBackward(dact, a.gate, a.up, m.cfg.gelu())
	default:
		be.GELUBackward(dact, a.up, tensor.Mat{}, m.cfg.gelu())
	}
	switch {
	case f.fusedGate:
		m.linearBackward(l, gateSlot, dn, a.gateUp, a.n2, a, false)
	case !a.gate.None():
		m.linearBackward(l, gateSlot, dn, a.gate, a.n2, a, false)
		m.linearBackward(l, upSlot, dn, a.up, a.n2, a, true)
	default:
		m.linearBackward(l, upSlot, dn, a.up, a.n2, a, false)
	}
}

func (m *Model) attention(l *layer, b *Batch, a acts, k, v tensor.Mat) tensor.Attention {
	return tensor.Attention{
		Q: a.q, K: k, V: v, Out: a.att, LSE: a.lse,
		Heads: m.cfg.Heads, KVHeads: m.cfg.KVHeads,
		Scale:  float32(m.cfg.scale()),
		Window: l.window, SoftCap: float32(m.cfg.AttentionCap), Slopes: m.slopes, Spans: b.spans,
	}
}

// forward sets y to what the linear layer in a slot makes of x, or adds it.
func (l *layer) forward(be tensor.Backend, slot int, y, x tensor.Mat, a *acts, add bool) {
	lin := &l.linears[slot]
	lin.forward(be, y, x, lin.low(a.low[slot]), add)
}

// linearBackward sets dx, or adds to it, and adds the derivatives by the
// parameters of the linear layer in a slot.
func (m *Model) linearBackward(l *layer, slot int, dx, dy, x tensor.Mat, a *acts, add bool) {
	lin, dlow := &l.linears[slot], tensor.Mat{}
	if lin.lora != nil {
		dlow = lin.low(m.ws.dlow.RowRange(0, x.Rows))
	}
	lin.backward(m.b, dx, dy, x, lin.low(a.low[slot]), dlow, add)
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
		if i < m.ws.again-1 { // the last of those that share is still there
			x := m.ws.act(i).x.RowRange(0, b.Tokens())
			if host, ok := m.ws.host(i, b.Tokens()); ok {
				m.b.Copy(x, host)
			}
			m.block(i, b, nil, x, m.ws.x.RowRange(0, b.Tokens()))
		}
		m.blockBackward(i, b, i > lowest)
	}
	if lowest < 0 {
		m.embedBackward(m.ws.dx.RowRange(0, b.Tokens()), b)
	}
}

// blockBackward replaces m.ws.dx, the derivative by the output of layer i, by
// that by its input, unless further is false and nobody needs it.
func (m *Model) blockBackward(i int, b *Batch, further bool) {
	l, be, c, n := &m.layers[i], m.b, &m.cfg, b.Tokens()
	a := m.ws.act(i).rowRange(n)
	w := &m.ws
	dx, dn, datt, dact := w.dx.RowRange(0, n), w.dn.RowRange(0, n), w.datt.RowRange(0, n), w.dact.RowRange(0, n)

	// The MLP: dn becomes the derivative by its input.
	dout := dx
	if c.PostNorms {
		be.Zero(dn)
		m.normaliseBackward(dn, dx, a.down, a.statsDown, &l.post2)
		dout = dn
	}
	m.linearBackward(l, downSlot, dact, dout, a.act, &a, false)
	if c.Parallel {
		if !further {
			dn = tensor.Mat{}
		}
		m.activateBackward(l, &a, dact, dn)
		m.linearBackward(l, oSlot, datt, dx, a.att, &a, false)
		if further && !c.SharedNorm {
			m.normaliseBackward(dx, dn, a.x, a.stats2, &l.norm2)
		}
	} else {
		m.activateBackward(l, &a, dact, dn)
		m.normaliseBackward(dx, dn, a.mid, a.stats2, &l.norm2)
		dout := dx
		if c.PostNorms {
			be.Zero(dn)
			m.normaliseBackward(dn, dx, a.o, a.statsO, &l.post1)
			dout = dn
		}
		m.linearBackward(l, oSlot, datt, dout, a.att, &a, false)
		if !further {
			dn = tensor.Mat{}
		}
	}

	// Attention: with a shared norm its input's derivative adds to the MLP's.
	m.projectBackward(l, b, &a, datt, dn)
	if further {
		m.normaliseBackward(dx, dn, a.x, a.stats1, &l.norm1)
	}
}

// projectBackward sets dn, the derivative by a.n1, or adds to it where the norm
// is shared, or does without if it is none. datt, that by the output of the
// attention, is overwritten.
func (m *Model) projectBackward(l *layer, b *Batch, a *acts, datt, dn tensor.Mat) {
	be, c, n := m.b, &m.cfg, datt.Rows
	dq, dk, dv := m.ws.dq.RowRange(0, n), m.ws.dk.RowRange(0, n), m.ws.dv.RowRange(0, n)
	be.AttentionBackward(tensor.AttentionBackward{
		Attention: m.attention(l, b, *a, a.k, a.v), DOut: datt, DQ: dq, DK: dk, DV: dv,
	})
	if c.Position == Rotary {
		be.Rope(dq, m.ropes.cos, m.ropes.sin, c.HeadDim, m.turns, true)
		be.Rope(dk, m.ropes.cos, m.ropes.sin, c.HeadDim, m.turns, true)
	}
	if c.QKNorm {
		// datt is done with, and then dq, which is not narrower than dk.
		dq0, dk0 := datt, dq.Buf.Mat(dq.Off, n, dk.Cols)
		m.normaliseHeadsBackward(dq0, dq, a.q0, a.statsQ, &l.qNorm)
		m.normaliseHeadsBackward(dk0, dk, a.k0, a.statsK, &l.kNorm)
		dq, dk = dq0, dk0
	}
	if m.family.fused == notFused {
		m.linearBackward(l, qSlot, dn, dq, a.n1, a, c.SharedNorm)
		m.linearBackward(l, kSlot, dn, dk, a.n1, a, true)
		m.linearBackward(l, vSlot, dn, dv, a.n1, a, true)
		return
	}
	if limit := float32(c.ClipQKV); limit != 0 {
		be.ClampBackward(dq, a.q, limit)
		be.ClampBackward(dk, a.k, limit)
		be.ClampBackward(dv, a.v, limit)
	}
	dqkv := m.ws.qkv.RowRange(0, n)
	m.eachPart(dqkv, dq, dk, dv, func(part, whole tensor.Mat) { be.Copy(whole, part) })
	m.linearBackward(l, qSlot, dn, dqkv, a.n1, a, c.SharedNorm)
}
