package model

import (
	"fmt"

	"github.com/moot-net/moot/node/internal/tensor"
)

// Loss is what a batch's counted tokens came to.
type Loss struct {
	Sum     float64 // of -log p, nats
	Tokens  int
	Correct int // tokens that were the most likely one
}

// Evaluate returns the loss of a batch.
func (m *Model) Evaluate(b *Batch) (Loss, error) {
	if err := b.check(&m.cfg); err != nil {
		return Loss{}, err
	}
	if b.Counted() == 0 {
		return Loss{}, nil
	}
	m.prepare(b.Tokens(), b.Counted(), false, false)
	return m.loss(b, m.forward(b, nil), 0), m.b.Err()
}

// Accumulate adds the derivatives of scale times the summed loss of a batch to
// those of the attached adapters and of the parameters, if they have any.
func (m *Model) Accumulate(b *Batch, scale float32) (Loss, error) {
	if err := b.check(&m.cfg); err != nil {
		return Loss{}, err
	}
	if m.fixed != "" {
		return Loss{}, fmt.Errorf("%w: training through the adapter of %s, which has magnitudes (DoRA) or is on the output layer: merge it first", ErrUnsupported, m.fixed)
	}
	if b.Counted() == 0 {
		return Loss{}, nil
	}
	m.prepare(b.Tokens(), b.Counted(), true, true)
	loss := m.loss(b, m.forward(b, nil), scale)
	dx := m.ws.dx.RowRange(0, b.Tokens())
	m.b.Zero(dx)
	m.b.Scatter(dx, m.ws.dxs.RowRange(0, b.Counted()), b.rows)
	m.backward(b)
	return loss, m.b.Err()
}

// loss computes the output layer on the rows of x that predict a counted
// token, a few rows at a time. With a scale it leaves the derivatives by those
// rows in m.ws.dxs.
func (m *Model) loss(b *Batch, x tensor.Mat, scale float32) Loss {
	w, n := &m.ws, b.Counted()
	xs, stats, hs := w.xs.RowRange(0, n), w.stats.RowRange(0, n), w.hs.RowRange(0, n)
	m.b.Gather(xs, x, b.rows)
	m.normalise(hs, stats, xs, &m.norm)
	dhs := w.dhs.RowRange(0, n)
	step := m.cfg.logitsRows(n, m.b.Sizes())
	for i := 0; i < n; i += step {
		j := min(i+step, n)
		logits := w.logits.RowRange(0, j-i)
		m.output(logits, hs.RowRange(i, j))
		capped := tensor.Mat{}
		if m.cfg.LogitCap != 0 && scale != 0 {
			capped = w.capped.RowRange(0, j-i)
			m.b.Copy(capped, logits)
		}
		m.b.CrossEntropy(logits, b.targets[i:j], scale, w.nll[i:j], w.top[i:j])
		if scale == 0 {
			continue
		}
		if !capped.None() {
			m.b.SoftCapBackward(logits, capped, float32(m.cfg.LogitCap))
		}
		m.head.backward(m.b, dhs.RowRange(i, j), logits, hs.RowRange(i, j), tensor.Mat{}, tensor.Mat{}, false)
	}
	if scale != 0 {
		dxs := w.dxs.RowRange(0, n)
		m.b.Zero(dxs)
		m.normaliseBackward(dxs, dhs, xs, stats, &m.norm)
	}
	loss := Loss{Tokens: n}
	for i, v := range w.nll[:n] {
		loss.Sum += float64(v)
		if w.top[i] == b.targets[i] {
			loss.Correct++
		}
	}
	return loss
}

// output sets logits (rows,V) to what the output layer makes of h (rows,C).
func (m *Model) output(logits, h tensor.Mat) {
	m.head.forward(m.b, logits, h, m.head.low(m.ws.headLow(m, h.Rows)), false)
	if limit := m.cfg.LogitCap; limit != 0 {
		m.b.SoftCap(logits, float32(limit))
	}
}

// TokenLosses returns -log p of each counted token, in the order of the batch.
func (m *Model) TokenLosses(b *Batch) ([]float32, error) {
	if _, err := m.Evaluate(b); err != nil {
		return nil, err
	}
	return append([]float32(nil), m.ws.nll[:b.Counted()]...), nil
}

// Logits returns the logits of all tokens of a batch, (T,V) row-major.
func (m *Model) Logits(b *Batch) ([]float32, error) {
	if err := b.check(&m.cfg); err != nil {
		return nil, err
	}
	n := b.Tokens()
	if n == 0 {
		return nil, nil
	}
	m.prepare(n, n, false, false)
	x := m.forward(b, nil)
	hs := m.ws.hs.RowRange(0, n)
	m.normalise(hs, m.ws.stats.RowRange(0, n), x, &m.norm)
	out := make([]float32, n*m.cfg.Vocab)
	step := m.cfg.logitsRows(n, m.b.Sizes())
	for i := 0; i < n; i += step {
		j := min(i+step, n)
		logits := m.ws.logits.RowRange(0, j-i)
		m.output(logits, hs.RowRange(i, j))
		m.b.Download(out[i*m.cfg.Vocab:j*m.cfg.Vocab], logits)
	}
	return out, m.b.Err()
}
