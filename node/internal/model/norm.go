package model

import "github.com/moot-net/moot/node/internal/tensor"

// normalise sets out (T,C) to the norm of x; stats (T,statsCols) keeps what the
// backward pass needs. out may be x.
func (m *Model) normalise(out, stats, x tensor.Mat, n *norm) {
	if m.cfg.layered() {
		m.b.LayerNorm(out, stats, x, n.w, n.bias, float32(m.cfg.NormEps))
		return
	}
	m.b.RMSNorm(out, stats, x, n.w, m.cfg.rms())
}

// normaliseBackward adds the derivatives by x and by the parameters.
func (m *Model) normaliseBackward(dx, dout, x, stats tensor.Mat, n *norm) {
	if m.cfg.layered() {
		m.b.LayerNormBackward(dx, n.dw, n.dBias, dout, x, stats, n.w)
		return
	}
	m.b.RMSNormBackward(dx, n.dw, dout, x, stats, n.w, m.cfg.rms())
}

// heads returns x (T, heads*HD) with a row for each head.
func (m *Model) heads(x tensor.Mat) tensor.Mat {
	hd := m.cfg.HeadDim
	return x.Reshape(x.Rows*x.Cols/hd, hd)
}

// normaliseHeads sets out to the norms of the heads of x; stats is (T,heads).
func (m *Model) normaliseHeads(out, stats, x tensor.Mat, n *norm) {
	m.b.RMSNorm(m.heads(out), stats.Reshape(stats.Rows*stats.Cols, 1), m.heads(x), n.w, m.cfg.rms())
}

// normaliseHeadsBackward sets dx.
func (m *Model) normaliseHeadsBackward(dx, dout, x, stats tensor.Mat, n *norm) {
	m.b.Zero(dx)
	m.b.RMSNormBackward(m.heads(dx), n.dw, m.heads(dout), m.heads(x), stats.Reshape(stats.Rows*stats.Cols, 1), n.w, m.cfg.rms())
}
