package model

import (
	"slices"

	"github.com/moot-net/moot/node/internal/tensor"
)

// workspace is the memory of forward and backward passes. It grows to the
// largest batch and is kept.
type workspace struct {
	rows    int // tokens it is made for
	counted int
	kept    bool // activations are kept for the backward pass
	// Layers up to again share an acts, and keep their inputs only: their
	// backward pass computes the rest again. Without kept that is all layers,
	// and nothing is kept.
	again  int
	shared acts
	inputs []tensor.Mat // (T,C) of the layers that share, none without kept
	// hosts hold the inputs in the host's memory, all but the last, where two of
	// inputs are used in turn; none without.
	hosts []tensor.Mat
	acts  []acts     // of the other layers
	x     tensor.Mat // (T,C) residual stream after the last layer
	qkv   tensor.Mat // (T, (NH+2*KH)*HD) of a fused layer, or its derivative

	// the output layer, on counted rows only
	xs, stats, hs tensor.Mat // (S,C), (S,statsCols), (S,C)
	logits        tensor.Mat // (some rows, V)
	capped        tensor.Mat // the same behind a soft cap, while logits are derivatives
	lowHead       tensor.Mat // (some rows, R) of its adapter
	nll           []float32
	top           []int32

	// derivatives
	dx, dn     tensor.Mat // (T,C)
	dxs, dhs   tensor.Mat // (S,C)
	dq, dk, dv tensor.Mat
	datt       tensor.Mat
	dact       tensor.Mat
	dlow       tensor.Mat // (T,R) of the largest rank

	// what the three parts above were allocated as
	forwardMem, lossMem, backwardMem []*tensor.Buffer
}

// acts are the activations of a layer, rows are tokens. What the architecture
// lacks is none.
type acts struct {
	x, stats1, n1   tensor.Mat // input, its norm
	q0, statsQ      tensor.Mat // before the norms of heads
	k0, statsK      tensor.Mat
	q, k, v         tensor.Mat // after rotary embedding
	att, lse        tensor.Mat
	o, statsO       tensor.Mat // before the norm behind attention
	mid             tensor.Mat // residual stream after attention
	stats2, n2      tensor.Mat // the MLP's input
	gateUp          tensor.Mat // holds gate and up where one layer makes them
	gate, up, act   tensor.Mat
	down, statsDown tensor.Mat        // before the norm behind the MLP
	low             [slots]tensor.Mat // x A^T of each linear layer
}

// logitsValues is the default of tensor.Sizes.
const logitsValues = 8 << 20

func (c *Config) logitsRows(counted int, s tensor.Sizes) int {
	values := s.LogitsValues
	if values == 0 {
		values = logitsValues
	}
	return min(counted, max(64, values/c.Vocab))
}

// sizer allocates, or only counts.
type sizer struct {
	b           tensor.Backend
	plain, half int // values of activations in float32, and in the backend's type
	host        int // values that are left in the host's memory
	taken       []*tensor.Buffer
}

// away is for activations that are left in the host's memory.
func (s *sizer) away(rows, cols int) tensor.Mat {
	s.host += rows * cols
	return s.take(rows, cols, func(b tensor.Backend, n int) *tensor.Buffer { return b.(tensor.Offloader).AllocOffload(n) })
}

// mat is for what stays float32: statistics and logits.
func (s *sizer) mat(rows, cols int) tensor.Mat {
	s.plain += rows * cols
	return s.take(rows, cols, tensor.Backend.Alloc)
}

// act is for all other activations.
func (s *sizer) act(rows, cols int) tensor.Mat {
	s.half += rows * cols
	return s.take(rows, cols, tensor.Backend.AllocActivations)
}

func (s *sizer) take(rows, cols int, alloc func(tensor.Backend, int) *tensor.Buffer) tensor.Mat {
	if s.b == nil || rows*cols == 0 {
		return tensor.Mat{}
	}
	b := alloc(s.b, rows*cols)
	s.taken = append(s.taken, b)
	return b.Mat(0, rows, cols)
}

// again frees what list holds, and returns a sizer of the same backend.
func (s *sizer) again(list []*tensor.Buffer) *sizer {
	if s.b != nil {
		for _, b := range list {
			s.b.Free(b)
		}
	}
	return &sizer{b: s.b}
}

func (s *sizer) acts(c *Config, ranks [slots]int, rows int) acts {
	f, q, kv, stats := c.family(), c.Heads*c.HeadDim, c.KVHeads*c.HeadDim, c.statsCols()
	a := acts{
		x: s.act(rows, c.Hidden), stats1: s.mat(rows, stats), n1: s.act(rows, c.Hidden),
		q: s.act(rows, q), k: s.act(rows, kv), v: s.act(rows, kv),
		att: s.act(rows, q), lse: s.mat(rows, c.Heads), mid: s.act(rows, c.Hidden), act: s.act(rows, c.Intermediate),
	}
	if c.QKNorm {
		a.q0, a.statsQ = s.act(rows, q), s.mat(rows, c.Heads)
		a.k0, a.statsK = s.act(rows, kv), s.mat(rows, c.KVHeads)
	}
	if c.PostNorms {
		a.o, a.statsO = s.act(rows, c.Hidden), s.mat(rows, stats)
		a.down, a.statsDown = s.act(rows, c.Hidden), s.mat(rows, stats)
	}
	a.n2 = a.n1
	if !c.SharedNorm {
		a.stats2, a.n2 = s.mat(rows, stats), s.act(rows, c.Hidden)
	}
	switch {
	case f.fusedGate:
		a.gateUp = s.act(rows, 2*c.Intermediate)
		if !a.gateUp.None() {
			a.gate, a.up = a.gateUp.ColRange(0, c.Intermediate), a.gateUp.ColRange(c.Intermediate, 2*c.Intermediate)
		}
	case f.linears[gateSlot] != "":
		a.gate, a.up = s.act(rows, c.Intermediate), s.act(rows, c.Intermediate)
	default:
		a.up = s.act(rows, c.Intermediate)
	}
	for i, r := range ranks {
		a.low[i] = s.act(rows, r)
	}
	return a
}

// rowRange returns the first n rows of everything.
func (c acts) rowRange(n int) acts {
	for _, m := range []*tensor.Mat{
		&c.x, &c.stats1, &c.n1, &c.q0, &c.statsQ, &c.k0, &c.statsK, &c.q, &c.k, &c.v, &c.att, &c.lse, &c.o, &c.statsO, &c.mid,
		&c.stats2, &c.n2, &c.gateUp, &c.gate, &c.up, &c.act, &c.down, &c.statsDown,
	} {
		if !m.None() {
			*m = m.RowRange(0, n)
		}
	}
	for i, l := range c.low {
		if !l.None() {
			c.low[i] = l.RowRange(0, n)
		}
	}
	return c
}

// forward makes memory for the layers.
func (w *workspace) forward(s *sizer, c *Config, ranks [][slots]int, rows, again int, keep, offload bool) {
	w.rows, w.kept, w.again, w.shared, w.inputs, w.hosts, w.acts = rows, keep, again, acts{}, nil, nil, nil
	if !keep {
		w.again = len(ranks)
	}
	var most [slots]int
	for _, r := range ranks[:w.again] {
		for j := range r {
			most[j] = max(most[j], r[j])
		}
	}
	if w.again > 0 {
		w.shared = s.acts(c, most, rows)
	}
	if keep {
		for i := range ranks[:w.again] {
			input := w.shared.x // of the first of them
			switch {
			case i > 0 && (!offload || i == 1):
				input = s.act(rows, c.Hidden)
			case i > 0:
				input = w.inputs[i-2]
			}
			w.inputs = append(w.inputs, input)
			if offload && i+1 < w.again {
				w.hosts = append(w.hosts, s.away(rows, c.Hidden))
			}
		}
	}
	for _, r := range ranks[w.again:] {
		w.acts = append(w.acts, s.acts(c, r, rows))
	}
	w.x = s.act(rows, c.Hidden)
	if c.family().fused != notFused {
		w.qkv = s.act(rows, (c.Heads+2*c.KVHeads)*c.HeadDim)
	}
	w.dx = tensor.Mat{}
}

// loss makes memory for the output layer.
func (w *workspace) loss(s *sizer, c *Config, counted, rows int) {
	w.counted = counted
	w.xs, w.stats, w.hs = s.act(counted, c.Hidden), s.mat(counted, c.statsCols()), s.act(counted, c.Hidden)
	w.dxs, w.dhs = s.act(counted, c.Hidden), s.act(counted, c.Hidden)
	w.logits = s.mat(rows, c.Vocab)
	if c.LogitCap != 0 {
		w.capped = s.mat(rows, c.Vocab)
	}
	w.nll, w.top = make([]float32, counted), make([]int32, counted)
}

// backward makes memory for derivatives.
func (w *workspace) backward(s *sizer, c *Config, ranks [][slots]int) {
	q, kv, rank := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim, 0
	for _, r := range ranks {
		for _, n := range r {
			rank = max(rank, n)
		}
	}
	w.dx, w.dn = s.act(w.rows, c.Hidden), s.act(w.rows, c.Hidden)
	w.dq, w.dk, w.dv, w.datt = s.act(w.rows, q), s.act(w.rows, kv), s.act(w.rows, kv), s.act(w.rows, q)
	w.dact, w.dlow = s.act(w.rows, c.Intermediate), s.act(w.rows, rank)
}

func (m *Model) ranks() [][slots]int {
	ranks := make([][slots]int, len(m.layers))
	for i := range m.layers {
		for j, lin := range m.layers[i].linears {
			ranks[i][j] = lin.rank()
		}
	}
	return ranks
}

// prepare makes the workspace large enough. What is not a training step is
// computed exactly, so that peers whose processors differ find the same losses.
func (m *Model) prepare(rows, counted int, keep, backward bool) {
	if b, ok := m.b.(interface{ SetExact(on bool) }); ok {
		b.SetExact(!backward)
	}
	w, s := &m.ws, &sizer{b: m.b}
	if rows > w.rows || keep && !w.kept {
		s = s.again(slices.Concat(w.forwardMem, w.backwardMem))
		w.backwardMem = nil
		w.forward(s, &m.cfg, m.ranks(), max(rows, w.rows), m.again, keep, m.offload)
		w.forwardMem = s.taken
	}
	if counted > w.counted {
		s = s.again(w.lossMem)
		w.loss(s, &m.cfg, counted, m.cfg.logitsRows(counted, m.b.Sizes()))
		w.lossMem = s.taken
	}
	if backward && w.dx.None() {
		s = s.again(w.backwardMem)
		w.backward(s, &m.cfg, m.ranks())
		w.backwardMem = s.taken
	}
}

// dropWorkspace gives up all memory for activations; the next pass makes it
// anew.
func (m *Model) dropWorkspace() {
	s := &sizer{b: m.b}
	s.again(slices.Concat(m.ws.forwardMem, m.ws.lossMem, m.ws.backwardMem))
	m.b.Free(m.ws.lowHead.Buf)
	m.ws = workspace{}
}

// Reserve makes memory for a workload, so that none is asked for while it is
// done.
func (m *Model) Reserve(l Workload) error {
	m.prepare(l.Tokens, l.Counted, l.Training, l.Training)
	if m.cfg.Position == Rotary {
		m.ropes.ensure(m.b, &m.cfg, l.Tokens)
	}
	return m.b.Err()
}

// headLow returns memory for x A^T of the output layer's adapter, none without
// one. Few models have one, so it is not made before it is used.
func (w *workspace) headLow(m *Model, rows int) tensor.Mat {
	if m.head.lora == nil {
		return tensor.Mat{}
	}
	if w.lowHead.Rows < rows {
		m.b.Free(w.lowHead.Buf)
		w.lowHead = m.b.AllocActivations(rows*m.head.rank()).Mat(0, rows, m.head.rank())
	}
	return w.lowHead.RowRange(0, rows)
}

// host returns where the input of layer i is kept in the host's memory, if it
// is.
func (w *workspace) host(i, rows int) (tensor.Mat, bool) {
	if i >= len(w.hosts) || w.hosts[i].None() {
		return tensor.Mat{}, false
	}
	return w.hosts[i].RowRange(0, rows), true
}

// act returns the activations of layer i; of those that are shared only x is
// its own.
func (w *workspace) act(i int) acts {
	switch {
	case i >= w.again:
		return w.acts[i-w.again]
	case w.kept:
		a := w.shared
		a.x = w.inputs[i]
		return a
	}
	return w.shared
}
