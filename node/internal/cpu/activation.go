package cpu

import (
	"fmt"
	"math"

	"github.com/moot-net/moot/node/internal/tensor"
)

// GELU sets out = gelu(x), times up unless that is none.
func (b *Backend) GELU(out, x, up tensor.Mat, kind tensor.GELU) {
	mustShape("x", x, out.Rows, out.Cols)
	if !up.None() {
		mustShape("up", up, out.Rows, out.Cols)
	}
	b.rowOp.u, b.rowOp.v, b.rowOp.w = out, x, up
	b.rowOp.fn = geluRows
	if kind == tensor.GELUTanh {
		b.rowOp.fn = geluTanhRows
	}
	b.overRows(out.Rows, 8*out.Cols)
}

// GELUBackward replaces x and, unless it is none, up by the derivatives by
// them.
func (b *Backend) GELUBackward(dout, x, up tensor.Mat, kind tensor.GELU) {
	mustShape("x", x, dout.Rows, dout.Cols)
	if !up.None() {
		mustShape("up", up, dout.Rows, dout.Cols)
	}
	b.rowOp.u, b.rowOp.v, b.rowOp.w = dout, x, up
	b.rowOp.fn = geluBackRows
	if kind == tensor.GELUTanh {
		b.rowOp.fn = geluTanhBackRows
	}
	b.overRows(dout.Rows, 8*dout.Cols)
}

func geluRows(t *rowTask, i, j int) {
	for ; i < j; i++ {
		out, x := t.u.HostRow(i), t.v.HostRow(i)
		if t.w.None() {
			for c, v := range x {
				out[c] = v * normal(v)
			}
			continue
		}
		up := t.w.HostRow(i)
		for c, v := range x {
			out[c] = v * normal(v) * up[c]
		}
	}
}

func geluTanhRows(t *rowTask, i, j int) {
	for ; i < j; i++ {
		out, x := t.u.HostRow(i), t.v.HostRow(i)
		if t.w.None() {
			for c, v := range x {
				out[c] = v * logistic(v)
			}
			continue
		}
		up := t.w.HostRow(i)
		for c, v := range x {
			out[c] = v * logistic(v) * up[c]
		}
	}
}

func geluBackRows(t *rowTask, i, j int) {
	for ; i < j; i++ {
		dout, x := t.u.HostRow(i), t.v.HostRow(i)
		var up []float32
		if !t.w.None() {
			up = t.w.HostRow(i)
		}
		for c, v := range x {
			p := normal(v)
			slope := p + v*normalDensity(v)
			geluBack(dout[c], v*p, slope, x, up, c)
		}
	}
}

func geluTanhBackRows(t *rowTask, i, j int) {
	for ; i < j; i++ {
		dout, x := t.u.HostRow(i), t.v.HostRow(i)
		var up []float32
		if !t.w.None() {
			up = t.w.HostRow(i)
		}
		for c, v := range x {
			p := logistic(v)
			slope := p + v*p*(1-p)*(geluA+3*geluB*v*v)
			geluBack(dout[c], v*p, slope, x, up, c)
		}
	}
}

// geluBack sets derivative c: y is the function's value, slope its derivative.
func geluBack(d, y, slope float32, x, up []float32, c int) {
	if up == nil {
		x[c] = d * slope
		return
	}
	x[c], up[c] = d*up[c]*slope, d*y
}

// Constants of the GELU by tanh, in the form x * logistic(geluA*x + geluB*x^3).
const (
	geluA = 2 * 0.7978845608028654
	geluB = geluA * 0.044715
)

func logistic(x float32) float32 { return 1 / (1 + exp32(-x*(geluA+geluB*x*x))) }

func normalDensity(x float32) float32 { return 0.3989422804014327 * exp32(-0.5*x*x) }

// normal is the normal distribution to about 3e-7: half of one plus the error
// function, of which the quotient is a minimax approximation on |x| <= 4.
func normal(x float32) float32 {
	z := x * (1 / math.Sqrt2)
	if z < -4 {
		z = -4
	}
	if z > 4 {
		z = 4
	}
	y := z * z
	p := float32(-2.72614225801306e-10)
	p = p*y + 2.77068142495902e-08
	p = p*y - 2.10102402082508e-06
	p = p*y - 5.69250639462346e-05
	p = p*y - 7.34990630326855e-04
	p = p*y - 2.95459980854025e-03
	p = p*y - 1.60960333262415e-02
	q := float32(-1.45660718464996e-05)
	q = q*y - 2.13374055278905e-04
	q = q*y - 1.68282697438203e-03
	q = q*y - 7.37332916720468e-03
	q = q*y - 1.42647390514189e-02
	return 0.5 + 0.5*(z*p/q)
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
