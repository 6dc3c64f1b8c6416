package cpu

import (
	"fmt"
	"math"

	"github.com/moot-net/moot/node/internal/tensor"
)

// geluTask computes gelu(x) = x * share(x), where share is a distribution
// function: the normal one, or the logistic one of geluA*x + geluB*x^3.
type geluTask struct {
	b          *Backend
	out, x, up tensor.Mat // out is dout in the backward pass
	kind       tensor.GELU
	backward   bool
	step       int
}

// GELU sets out = gelu(x), times up unless that is none.
func (b *Backend) GELU(out, x, up tensor.Mat, kind tensor.GELU) {
	b.runGELU(geluTask{out: out, x: x, up: up, kind: kind})
}

// GELUBackward replaces x and, unless it is none, up by the derivatives by
// them.
func (b *Backend) GELUBackward(dout, x, up tensor.Mat, kind tensor.GELU) {
	b.runGELU(geluTask{out: dout, x: x, up: up, kind: kind, backward: true})
}

func (b *Backend) runGELU(t geluTask) {
	rows, cols := t.out.Rows, t.out.Cols
	mustShape("x", t.x, rows, cols)
	if !t.up.None() {
		mustShape("up", t.up, rows, cols)
	}
	t.b, t.step = b, max(1, minRowWork/8/max(1, cols), ceilDiv(rows, 4*b.pool.threads))
	b.gelu = t
	b.pool.do(ceilDiv(rows, t.step), &b.gelu)
	b.gelu = geluTask{}
}

func (t *geluTask) piece(thread, n int) {
	s, k, cols := &t.b.scratch[thread], t.b.k, t.x.Cols
	s.shares = grow(s.shares, 2*cols)
	p, q := s.shares[:cols], s.shares[cols:]
	for i := n * t.step; i < min((n+1)*t.step, t.x.Rows); i++ {
		var up []float32
		if !t.up.None() {
			up = t.up.HostRow(i)
		}
		x, out := t.x.HostRow(i), t.out.HostRow(i)
		if t.kind == tensor.GELUTanh {
			k.logistic(p, q, x)
		} else {
			k.normal(p, q, x)
		}
		if t.backward { // the slope is p + q
			k.add(q, p)
			if up != nil {
				k.mulScale(q, q, up, 1)
				k.mulScale(p, p, x, 1)
				k.mulScale(up, p, out, 1)
			}
			k.mulScale(x, q, out, 1)
			continue
		}
		if up == nil {
			k.mulScale(out, p, x, 1)
			continue
		}
		k.mulScale(p, p, x, 1)
		k.mulScale(out, p, up, 1)
	}
}

// Constants of the logistic distribution function.
const (
	geluA = 2 * 0.7978845608028654
	geluB = geluA * 0.044715
)

// normalGo is exact to 1e-7 (Abramowitz and Stegun 7.1.26).
func normalGo(p, q, x []float32) {
	const density = 0.3989422804014327
	p, q = p[:len(x)], q[:len(x)]
	for i, v := range x {
		z, e := v*(1/math.Sqrt2), exp32(-0.5*v*v)
		if z < 0 {
			z = -z
		}
		t := 1 / (1 + 0.3275911*z)
		tail := 0.5 * e * t * (0.254829592 + t*(-0.284496736+t*(1.421413741+t*(-1.453152027+t*1.061405429))))
		if v > 0 {
			tail = 1 - tail
		}
		p[i], q[i] = tail, v*(density*e)
	}
}

func logisticGo(p, q, x []float32) {
	p, q = p[:len(x)], q[:len(x)]
	for i, v := range x {
		s := 1 / (1 + exp32(-v*(geluA+geluB*v*v)))
		p[i], q[i] = s, v*s*(1-s)*(geluA+3*geluB*v*v)
	}
}

// tanh32 is tanh to about 1e-7 of itself.
func tanh32(x float32) float32 {
	if x < 0.3 && x > -0.3 {
		y := x * x
		return x + x*y*(-1./3+y*(2./15+y*(-17./315+y*(62./2835-y*(1382./155925)))))
	}
	return 1 - 2/(1+exp32(2*x))
}

func softCap(x []float32, limit float32) {
	inv := 1 / limit
	for i, v := range x {
		x[i] = limit * tanh32(v*inv)
	}
}

// softCapSlope sets dst to the derivative of the soft cap whose results are y.
func softCapSlope(dst, y []float32, limit float32) {
	inv := 1 / limit
	for i := range dst {
		t := y[i] * inv
		dst[i] = 1 - t*t
	}
}

func mul(dst, src []float32) {
	src = src[:len(dst)]
	for i := range dst {
		dst[i] *= src[i]
	}
}

// SoftCap sets m = limit * tanh(m/limit).
func (b *Backend) SoftCap(m tensor.Mat, limit float32) {
	b.rowOp.u, b.rowOp.a = m, positive(limit)
	b.rowOp.fn = func(t *rowTask, i, j int) {
		for ; i < j; i++ {
			softCap(t.u.HostRow(i), t.a)
		}
	}
	b.overRows(m.Rows, 8*m.Cols)
}

// SoftCapBackward multiplies d by the derivative of the soft cap that gave y.
func (b *Backend) SoftCapBackward(d, y tensor.Mat, limit float32) {
	mustShape("y", y, d.Rows, d.Cols)
	b.rowOp.u, b.rowOp.v, b.rowOp.a = d, y, positive(limit)
	b.rowOp.fn = func(t *rowTask, i, j int) {
		inv := 1 / t.a
		for ; i < j; i++ {
			d, y := t.u.HostRow(i), t.v.HostRow(i)
			for c := range d {
				s := y[c] * inv
				d[c] *= 1 - s*s
			}
		}
	}
	b.overRows(d.Rows, d.Cols)
}

// Clamp limits m to -limit to limit.
func (b *Backend) Clamp(m tensor.Mat, limit float32) {
	b.rowOp.u, b.rowOp.a = m, positive(limit)
	b.rowOp.fn = func(t *rowTask, i, j int) {
		for ; i < j; i++ {
			row := t.u.HostRow(i)
			for c, v := range row {
				row[c] = min(max(v, -t.a), t.a)
			}
		}
	}
	b.overRows(m.Rows, m.Cols)
}

// ClampBackward sets d to 0 where y is at a limit.
func (b *Backend) ClampBackward(d, y tensor.Mat, limit float32) {
	mustShape("y", y, d.Rows, d.Cols)
	b.rowOp.u, b.rowOp.v, b.rowOp.a = d, y, positive(limit)
	b.rowOp.fn = func(t *rowTask, i, j int) {
		for ; i < j; i++ {
			d := t.u.HostRow(i)
			for c, v := range t.v.HostRow(i) {
				if v <= -t.a || v >= t.a {
					d[c] = 0
				}
			}
		}
	}
	b.overRows(d.Rows, d.Cols)
}

func positive(limit float32) float32 {
	if !(limit > 0) {
		panic(fmt.Sprintf("bug: a limit of %v", limit))
	}
	return limit
}

// Scale multiplies m by a.
func (b *Backend) Scale(m tensor.Mat, a float32) {
	b.rowOp.u, b.rowOp.a = m, a
	b.rowOp.fn = func(t *rowTask, i, j int) {
		for ; i < j; i++ {
			t.k.scale(t.u.HostRow(i), t.a)
		}
	}
	b.overRows(m.Rows, m.Cols)
}
