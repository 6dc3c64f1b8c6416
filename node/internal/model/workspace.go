package model

import "github.com/moot-net/moot/node/internal/tensor"

// workspace is the memory of forward and backward passes. It grows to the
// largest batch and is kept.
type workspace struct {
	rows    int // tokens it is made for
	counted int
	kept    bool // there is an acts for each layer
	acts    []acts
	x       tensor.Mat // (T,C) residual stream after the last layer

	// the output layer, on counted rows only
	xs, invs, hs tensor.Mat // (S,C), (S,1), (S,C)
	logits       tensor.Mat // (some rows, V)
	nll          []float32
	top          []int32

	// derivatives
	dx, dn     tensor.Mat // (T,C)
	dxs, dhs   tensor.Mat // (S,C)
	dq, dk, dv tensor.Mat
	datt       tensor.Mat
	dact       tensor.Mat
	dlow       tensor.Mat // (T,R) of the largest rank
}

// acts are the activations of a layer, rows are tokens.
type acts struct {
	x, inv1, n1   tensor.Mat // input, its norm
	q, k, v       tensor.Mat // after rotary embedding
	att, lse      tensor.Mat
	mid, inv2, n2 tensor.Mat // residual stream after attention
	gate, up, act tensor.Mat
	low           [7]tensor.Mat // x A^T of each linear layer
}

// logitsValues is about how many values of logits are held at once.
const logitsValues = 8 << 20

func (c *Config) logitsRows(counted int) int {
	return min(counted, max(64, logitsValues/c.Vocab))
}

// sizer allocates, or only counts.
type sizer struct {
	b tensor.Backend
	n int
}

func (s *sizer) mat(rows, cols int) tensor.Mat {
	s.n += rows * cols
	if s.b == nil || rows*cols == 0 {
		return tensor.Mat{}
	}
	return s.b.Alloc(rows*cols).Mat(0, rows, cols)
}

func (s *sizer) acts(c *Config, ranks [7]int, rows int) acts {
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	a := acts{
		x: s.mat(rows, c.Hidden), inv1: s.mat(rows, 1), n1: s.mat(rows, c.Hidden),
		q: s.mat(rows, q), k: s.mat(rows, kv), v: s.mat(rows, kv),
		att: s.mat(rows, q), lse: s.mat(rows, c.Heads),
		mid: s.mat(rows, c.Hidden), inv2: s.mat(rows, 1), n2: s.mat(rows, c.Hidden),
		gate: s.mat(rows, c.Intermediate), up: s.mat(rows, c.Intermediate), act: s.mat(rows, c.Intermediate),
	}
	for i, r := range ranks {
		a.low[i] = s.mat(rows, r)
	}
	return a
}

// forward makes memory for the layers.
func (w *workspace) forward(s *sizer, c *Config, ranks [][7]int, rows int, keep bool) {
	w.rows, w.kept, w.acts = rows, keep, nil
	for i := range ranks {
		if keep || i == 0 {
			r := ranks[i]
			if !keep { // shared by all layers
				for _, other := range ranks {
					for j := range r {
						r[j] = max(r[j], other[j])
					}
				}
			}
			w.acts = append(w.acts, s.acts(c, r, rows))
		}
	}
	w.x = s.mat(rows, c.Hidden)
	w.dx = tensor.Mat{}
}

// loss makes memory for the output layer.
func (w *workspace) loss(s *sizer, c *Config, counted int) {
	w.counted = counted
	w.xs, w.invs, w.hs = s.mat(counted, c.Hidden), s.mat(counted, 1), s.mat(counted, c.Hidden)
	w.dxs, w.dhs = s.mat(counted, c.Hidden), s.mat(counted, c.Hidden)
	w.logits = s.mat(c.logitsRows(counted), c.Vocab)
	w.nll, w.top = make([]float32, counted), make([]int32, counted)
}

// backward makes memory for derivatives.
func (w *workspace) backward(s *sizer, c *Config, ranks [][7]int) {
	q, kv, rank := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim, 0
	for _, r := range ranks {
		for _, n := range r {
			rank = max(rank, n)
		}
	}
	w.dx, w.dn = s.mat(w.rows, c.Hidden), s.mat(w.rows, c.Hidden)
	w.dq, w.dk, w.dv, w.datt = s.mat(w.rows, q), s.mat(w.rows, kv), s.mat(w.rows, kv), s.mat(w.rows, q)
	w.dact, w.dlow = s.mat(w.rows, c.Intermediate), s.mat(w.rows, rank)
}

func (m *Model) ranks() [][7]int {
	ranks := make([][7]int, len(m.layers))
	for i := range m.layers {
		for j, lin := range m.layers[i].linears() {
			ranks[i][j] = lin.rank()
		}
	}
	return ranks
}

// prepare makes the workspace large enough.
func (m *Model) prepare(rows, counted int, keep, backward bool) {
	w, s := &m.ws, &sizer{b: m.b}
	if rows > w.rows || keep && !w.kept {
		w.forward(s, &m.cfg, m.ranks(), max(rows, w.rows), keep)
	}
	if counted > w.counted {
		w.loss(s, &m.cfg, counted)
	}
	if backward && w.dx.None() {
		w.backward(s, &m.cfg, m.ranks())
	}
}

// act returns the activations of layer i.
func (w *workspace) act(i int) *acts {
	if !w.kept {
		i = 0
	}
	return &w.acts[i]
}
