package tensortest

import (
	"math"
	"testing"

	"github.com/moot-net/moot/node/internal/tensor"
)

func naiveGELU(x float64, kind tensor.GELU) float64 {
	if kind == tensor.GELUTanh {
		return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
	}
	return x / 2 * math.Erfc(-x/math.Sqrt2)
}

func gelu(t *testing.T, b tensor.Backend) {
	r := newRand()
	for _, kind := range []tensor.GELU{tensor.GELUExact, tensor.GELUTanh} {
		for _, gated := range []bool{false, true} {
			for _, s := range [][2]int{{1, 1}, {2, 9}, {3, 24}, {40, 31}} {
				x, up := random(b, r, s[0], s[1], 2), random(b, r, s[0], s[1], 0)
				out, dout := random(b, r, s[0], s[1], 1), random(b, r, s[0], s[1], 3)
				wide := clone(x.want)
				for i := range wide {
					wide[i] *= 2.5 // also where it is flat
				}
				x.set(wide)
				upMat := up.Mat
				if !gated {
					upMat = tensor.Mat{}
					for i := range up.want {
						up.want[i] = 1
					}
				}
				forward := func() []float64 {
					y := make([]float64, len(x.want))
					for i, v := range x.want {
						y[i] = naiveGELU(v, kind) * up.want[i]
					}
					return y
				}
				b.GELU(out.Mat, x.Mat, upMat, kind)
				copy(out.want, forward())
				out.check(t, "GELU", 3e-6)
				for _, into := range []mat{x, up} { // in place
					again, old := clone(into.want), make([]float32, len(into.want))
					b.Download(old, into.Mat)
					b.GELU(into.Mat, x.Mat, upMat, kind)
					copy(into.want, out.want)
					into.check(t, "GELU in place", 3e-6)
					b.Upload(into.Mat, old)
					copy(into.want, again)
				}
				loss := func() float64 { return inner(forward(), dout.want) }
				xs, ups := clone(x.want), clone(up.want)
				b.GELUBackward(dout.Mat, x.Mat, upMat, kind)
				derivative(t, "GELUBackward: x", mat{Mat: x.Mat, b: b, want: make([]float64, len(xs))}, nil, x.want, loss, 5e-6)
				x.want = xs
				if gated {
					derivative(t, "GELUBackward: up", mat{Mat: up.Mat, b: b, want: make([]float64, len(ups))}, nil, up.want, loss, 5e-6)
				}
			}
		}
		// Far out, and over the whole range in small steps.
		x, out := random(b, r, 1, 4001, 0), random(b, r, 1, 4001, 0)
		values := make([]float64, 4001)
		for i := range values {
			values[i] = float64(i-2000) / 200
		}
		copy(values, []float64{-1e15, -200, -88, 88, 200, 1e15})
		x.set(values)
		b.GELU(out.Mat, x.Mat, tensor.Mat{}, kind)
		for i, v := range x.want {
			out.want[i] = naiveGELU(v, kind)
			if v < -80 {
				out.want[i] = 0
			}
		}
		if kind == tensor.GELUExact {
			out.want[0] = 0 // 1e15 times what is left of the distribution
			b.Zero(out.ColRange(0, 1))
		}
		out.check(t, "GELU of a range", 3e-6)
	}
}

func limits(t *testing.T, b tensor.Backend) {
	r := newRand()
	for _, s := range [][2]int{{1, 1}, {3, 17}, {70, 300}} {
		const limit = 1.25
		x, d := random(b, r, s[0], s[1], 3), random(b, r, s[0], s[1], 1)
		y := random(b, r, s[0], s[1], 2)
		wide := clone(x.want)
		for i := range wide {
			wide[i] *= 3
			if i%3 == 0 {
				wide[i] /= 100
			}
		}
		x.set(wide)
		y.set(wide)
		b.SoftCap(y.Mat, limit)
		for i, v := range x.want {
			y.want[i] = limit * math.Tanh(v/limit)
		}
		y.check(t, "SoftCap", 5e-7)
		dout := clone(d.want)
		b.SoftCapBackward(d.Mat, y.Mat, limit)
		for i, v := range x.want {
			slope := 1 / math.Cosh(v/limit)
			d.want[i] = dout[i] * slope * slope
		}
		d.check(t, "SoftCapBackward", 2e-6)

		d.set(dout)
		b.Clamp(x.Mat, limit)
		for i, v := range x.want {
			x.want[i] = max(-limit, min(limit, v))
		}
		x.check(t, "Clamp", 0)
		b.ClampBackward(d.Mat, x.Mat, limit)
		for i, v := range wide {
			if math.Abs(v) > limit {
				d.want[i] = 0
			}
		}
		d.check(t, "ClampBackward", 0)

		b.Scale(x.Mat, 0.375)
		for i := range x.want {
			x.want[i] *= 0.375
		}
		x.check(t, "Scale", 1e-7)
	}
}
