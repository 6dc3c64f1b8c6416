package tensortest

import (
	"math"
	"testing"

	"github.com/moot-net/moot/node/internal/tensor"
)

func rows(t *testing.T, b tensor.Backend) {
	r := newRand()
	for _, s := range [][2]int{{1, 1}, {3, 7}, {5, 8}, {9, 33}, {70, 300}} {
		m, n := random(b, r, s[0], s[1], 5), random(b, r, s[0], s[1], 0)
		row := random(b, r, 1, s[1], 0)
		b.Add(m.Mat, n.Mat)
		for i := range m.want {
			m.want[i] += n.want[i]
		}
		m.check(t, "Add", 1e-6)

		b.AddRow(m.Mat, row.Mat)
		for i := range m.want {
			m.want[i] += row.want[i%s[1]]
		}
		m.check(t, "AddRow", 1e-6)

		b.SumRows(row.Mat, n.Mat)
		for i := range n.want {
			row.want[i%s[1]] += n.want[i]
		}
		row.check(t, "SumRows", 1e-5)

		b.Copy(m.Mat, n.Mat)
		copy(m.want, n.want)
		m.check(t, "Copy", 0)
		b.Zero(m.Mat)
		clear(m.want)
		m.check(t, "Zero", 0)
	}

	table := random(b, r, 6, 5, 2)
	idx := []int32{4, 0, 4, 5}
	out := random(b, r, 4, 5, 0)
	b.Gather(out.Mat, table.Mat, idx)
	for i, at := range idx {
		copy(out.want[5*i:5*i+5], table.want[5*at:])
	}
	out.check(t, "Gather", 0)
	b.ScatterAdd(table.Mat, out.Mat, idx)
	for i, at := range idx {
		for c := range 5 {
			table.want[5*int(at)+c] += out.want[5*i+c]
		}
	}
	table.check(t, "ScatterAdd", 1e-6)
	idx = []int32{3, 0, 2, 5}
	b.Scatter(table.Mat, out.Mat, idx)
	for i, at := range idx {
		copy(table.want[5*at:5*at+5], out.want[5*i:])
	}
	table.check(t, "Scatter", 1e-6)
}

func rmsNorm(t *testing.T, b tensor.Backend) {
	r := newRand()
	for _, s := range [][2]int{{1, 1}, {2, 8}, {5, 19}, {3, 64}, {130, 40}} {
		for _, o := range []tensor.RMSNorm{{Eps: 1e-3}, {Eps: 1e-3, PlusOne: true}} {
			x, w, dout := random(b, r, s[0], s[1], 3), random(b, r, 1, s[1], 0), random(b, r, s[0], s[1], 0)
			out, inv := random(b, r, s[0], s[1], 1), random(b, r, s[0], 1, 0)
			forward := func() []float64 {
				y := make([]float64, len(x.want))
				for i := range s[0] {
					xi := x.want[i*s[1] : (i+1)*s[1]]
					inv.want[i] = 1 / math.Sqrt(inner(xi, xi)/float64(s[1])+float64(o.Eps))
					for c, v := range xi {
						y[i*s[1]+c] = v * inv.want[i] * w.want[c]
						if o.PlusOne {
							y[i*s[1]+c] += v * inv.want[i]
						}
					}
				}
				return y
			}
			b.RMSNorm(out.Mat, inv.Mat, x.Mat, w.Mat, o)
			copy(out.want, forward())
			out.check(t, "RMSNorm", 3e-6)
			inv.check(t, "RMSNorm: inv", 3e-6)

			loss := func() float64 { return inner(forward(), dout.want) }
			dx, dw := random(b, r, s[0], s[1], 0), random(b, r, 1, s[1], 0)
			dx0, dw0 := clone(dx.want), clone(dw.want)
			b.RMSNormBackward(dx.Mat, tensor.Mat{}, dout.Mat, x.Mat, inv.Mat, w.Mat, o)
			if len(x.want) < 500 {
				derivative(t, "RMSNormBackward: dx", dx, dx0, x.want, loss, 2e-5)
			}
			b.RMSNormBackward(dx.Mat, dw.Mat, dout.Mat, x.Mat, inv.Mat, w.Mat, o)
			derivative(t, "RMSNormBackward: dw", dw, dw0, w.want, loss, 2e-5)

			b.RMSNorm(x.Mat, inv.Mat, x.Mat, w.Mat, o)
			copy(x.want, forward())
			x.check(t, "RMSNorm in place", 3e-6)
		}
	}
}

func layerNorm(t *testing.T, b tensor.Backend) {
	r := newRand()
	for _, s := range [][2]int{{1, 2}, {2, 8}, {5, 19}, {3, 64}, {130, 40}} {
		for _, biased := range []bool{true, false} {
			const eps, shift = 1e-3, 3
			n := float64(s[1])
			x, w, dout := random(b, r, s[0], s[1], 3), random(b, r, 1, s[1], 0), random(b, r, s[0], s[1], 0)
			for i := range x.want {
				x.want[i] += shift
			}
			x.set(x.want)
			bias := mat{want: make([]float64, s[1])}
			if biased {
				bias = random(b, r, 1, s[1], 2)
			}
			out, stats := random(b, r, s[0], s[1], 1), random(b, r, s[0], 2, 0)
			forward := func() []float64 {
				y := make([]float64, len(x.want))
				for i := range s[0] {
					mean, variance := 0.0, 0.0
					for _, v := range x.want[i*s[1] : (i+1)*s[1]] {
						mean += v / n
					}
					for _, v := range x.want[i*s[1] : (i+1)*s[1]] {
						variance += (v - mean) * (v - mean) / n
					}
					stats.want[2*i], stats.want[2*i+1] = mean, 1/math.Sqrt(variance+eps)
					for c, v := range x.want[i*s[1] : (i+1)*s[1]] {
						y[i*s[1]+c] = (v-mean)/math.Sqrt(variance+eps)*w.want[c] + bias.want[c]
					}
				}
				return y
			}
			b.LayerNorm(out.Mat, stats.Mat, x.Mat, w.Mat, bias.Mat, eps)
			copy(out.want, forward())
			out.check(t, "LayerNorm", 5e-6)
			stats.check(t, "LayerNorm: statistics", 3e-6)

			loss := func() float64 { return inner(forward(), dout.want) }
			dx, dw, dbias := random(b, r, s[0], s[1], 0), random(b, r, 1, s[1], 0), random(b, r, 1, s[1], 0)
			dx0, dw0, dbias0 := clone(dx.want), clone(dw.want), clone(dbias.want)
			b.LayerNormBackward(dx.Mat, tensor.Mat{}, tensor.Mat{}, dout.Mat, x.Mat, stats.Mat, w.Mat)
			if len(x.want) < 500 {
				derivative(t, "LayerNormBackward: dx", dx, dx0, x.want, loss, 3e-5)
			}
			b.LayerNormBackward(dx.Mat, dw.Mat, dbias.Mat, dout.Mat, x.Mat, stats.Mat, w.Mat)
			derivative(t, "LayerNormBackward: dw", dw, dw0, w.want, loss, 2e-5)
			derivative(t, "LayerNormBackward: dbias", dbias, dbias0, bias.want, loss, 2e-5)

			b.LayerNorm(x.Mat, stats.Mat, x.Mat, w.Mat, bias.Mat, eps)
			copy(x.want, forward())
			x.check(t, "LayerNorm in place", 5e-6)
		}
	}
}

func rope(t *testing.T, b tensor.Backend) {
	r := newRand()
	for _, s := range [][4]int{{1, 1, 2, 2}, {3, 2, 6, 6}, {4, 3, 16, 16}, {2, 2, 34, 34}, {90, 4, 64, 64}, {3, 2, 16, 4}, {4, 3, 20, 8}, {2, 2, 7, 6}} {
		n, heads, hd, rd := s[0], s[1], s[2], s[3]
		x := random(b, r, n, heads*hd, 4)
		cos, sin := random(b, r, 10, rd/2, 0), random(b, r, 10, rd/2, 0)
		angles := clone(cos.want)
		c, sn := make([]float64, len(angles)), make([]float64, len(angles))
		for i, a := range angles {
			sn[i], c[i] = math.Sincos(a)
		}
		cos.set(c)
		sin.set(sn)
		pos := make([]int32, n)
		for i := range pos {
			pos[i] = int32((7*i + 3) % 10)
		}
		turn := func(sign float64) {
			for i := range n {
				for h := range heads {
					for j := range rd / 2 {
						p, q := i*x.Cols+h*hd+j, i*x.Cols+h*hd+j+rd/2
						co, si := cos.want[int(pos[i])*rd/2+j], sign*sin.want[int(pos[i])*rd/2+j]
						x.want[p], x.want[q] = x.want[p]*co-x.want[q]*si, x.want[q]*co+x.want[p]*si
					}
				}
			}
		}
		b.Rope(x.Mat, cos.Mat, sin.Mat, hd, pos, false)
		turn(1)
		x.check(t, "Rope", 1e-6)
		// Turning back is the derivative, because a rotation's transpose is
		// its inverse: twice back from here is once back from the start.
		b.Rope(x.Mat, cos.Mat, sin.Mat, hd, pos, true)
		turn(-1)
		x.check(t, "Rope back", 2e-6)
		b.Rope(x.Mat, cos.Mat, sin.Mat, hd, pos, true)
		turn(-1)
		x.check(t, "Rope back twice", 3e-6)
	}
}

func silu(x float64) float64 { return x / (1 + math.Exp(-x)) }

func swiGLU(t *testing.T, b tensor.Backend) {
	r := newRand()
	for _, s := range [][2]int{{1, 1}, {2, 9}, {3, 24}, {4, 31}} {
		gate, up := random(b, r, s[0], s[1], 2), random(b, r, s[0], s[1], 0)
		out, dout := random(b, r, s[0], s[1], 1), random(b, r, s[0], s[1], 3)
		wide := clone(gate.want)
		for i := range wide {
			wide[i] *= 20 // also where the sigmoid is flat
		}
		gate.set(wide)
		forward := func() []float64 {
			y := make([]float64, len(up.want))
			for i := range y {
				y[i] = silu(gate.want[i]) * up.want[i]
			}
			return y
		}
		b.SwiGLU(out.Mat, gate.Mat, up.Mat)
		copy(out.want, forward())
		out.check(t, "SwiGLU", 2e-6)
		loss := func() float64 { return inner(forward(), dout.want) }
		g, u := clone(gate.want), clone(up.want)
		b.SwiGLUBackward(dout.Mat, gate.Mat, up.Mat)
		dgate := mat{Mat: gate.Mat, b: b, want: make([]float64, len(g))}
		derivative(t, "SwiGLUBackward: gate", dgate, nil, gate.want, loss, 1e-5)
		gate.want = g
		dup := mat{Mat: up.Mat, b: b, want: make([]float64, len(u))}
		derivative(t, "SwiGLUBackward: up", dup, nil, up.want, loss, 1e-5)
	}
	// Far out: no infinities, no NaN.
	gate, up := random(b, r, 1, 8, 0), random(b, r, 1, 8, 0)
	gate.set([]float64{-1e30, -200, -100, -88, 88, 100, 200, 1e30})
	up.set([]float64{1, 1, 1, 1, 1, 1, 1, 1})
	out := random(b, r, 1, 8, 0)
	b.SwiGLU(out.Mat, gate.Mat, up.Mat)
	copy(out.want, []float64{0, 0, 0, 0, 88, 100, 200, 1e30})
	got := make([]float32, 8)
	b.Download(got, out.Mat)
	for i, v := range got {
		if w := out.want[i]; math.Abs(float64(v)-w) > 1e-6*(1+w) && float64(v) > w {
			t.Errorf("SwiGLU far out: %v, want %v", got, out.want)
			break
		}
	}
}

func crossEntropy(t *testing.T, b tensor.Backend) {
	r := newRand()
	for _, s := range [][2]int{{1, 2}, {3, 7}, {2, 16}, {5, 321}, {40, 1000}} {
		x := random(b, r, s[0], s[1], 3)
		labels, nll, top := make([]int32, s[0]), make([]float32, s[0]), make([]int32, s[0])
		wide := clone(x.want)
		for i := range wide {
			wide[i] *= 5
		}
		x.set(wide)
		want := make([]float64, len(x.want))
		const scale = 0.3
		for i := range labels {
			labels[i] = int32((i * 5) % s[1])
			row := x.want[i*s[1] : (i+1)*s[1]]
			sum, most := 0.0, 0
			for j, v := range row {
				sum += math.Exp(v)
				if v > row[most] {
					most = j
				}
			}
			for j, v := range row {
				want[i*s[1]+j] = scale * math.Exp(v) / sum
			}
			want[i*s[1]+int(labels[i])] -= scale
			top[i] = int32(most)
		}
		wantNLL := make([]float64, s[0])
		for i, l := range labels {
			wantNLL[i] = -math.Log(want[i*s[1]+int(l)]/scale + 1)
		}
		wantTop := append([]int32(nil), top...)
		b.CrossEntropy(x.Mat, labels, scale, nll, top)
		for i := range nll {
			if math.Abs(float64(nll[i])-wantNLL[i]) > 1e-5*(1+wantNLL[i]) || top[i] != wantTop[i] {
				t.Errorf("CrossEntropy of %v, row %d: %v and %d, want %v and %d", s, i, nll[i], top[i], wantNLL[i], wantTop[i])
			}
		}
		copy(x.want, want)
		x.check(t, "CrossEntropy: derivative", 2e-6)
	}
	// Large values, equal values.
	x := random(b, r, 1, 4, 0)
	x.set([]float64{1e4, 1e4, -1e4, 0})
	nll, top := make([]float32, 1), []int32{9}
	b.CrossEntropy(x.Mat, []int32{1}, 0, nll, top)
	if math.Abs(float64(nll[0])-math.Ln2) > 1e-6 || top[0] != 0 {
		t.Errorf("CrossEntropy of equal large values: %v, %d", nll, top)
	}
}

func sumSquares(t *testing.T, b tensor.Backend) {
	r := newRand()
	for _, n := range []int{1, 7, 300, 20_001} {
		x := random(b, r, 1, n, 0)
		want := inner(x.want, x.want)
		if got := b.SumSquares(x.Mat); math.Abs(got-want) > 1e-6*want {
			t.Errorf("SumSquares of %d values is %v, want %v", n, got, want)
		}
	}
}

func adamW(t *testing.T, b tensor.Backend) {
	r := newRand()
	for _, n := range []int{1, 8, 21, 9000} {
		p, m, v := random(b, r, 1, n, 0), random(b, r, 1, n, 0), random(b, r, 1, n, 0)
		zeros := make([]float64, n)
		m.set(zeros)
		v.set(zeros)
		o := tensor.AdamW{LearningRate: 0.01, Beta1: 0.9, Beta2: 0.95, Epsilon: 1e-8, WeightDecay: 0.1, GradScale: 0.5}
		for step := 1; step <= 4; step++ {
			g := random(b, r, 1, n, 0)
			o.Step = step
			b.AdamW(p.Mat, g.Mat, m.Mat, v.Mat, o)
			for i := range n {
				gi := g.want[i] * o.GradScale
				m.want[i] = o.Beta1*m.want[i] + (1-o.Beta1)*gi
				v.want[i] = o.Beta2*v.want[i] + (1-o.Beta2)*gi*gi
				mh, vh := m.want[i]/(1-math.Pow(o.Beta1, float64(step))), v.want[i]/(1-math.Pow(o.Beta2, float64(step)))
				p.want[i] = p.want[i]*(1-o.LearningRate*o.WeightDecay) - o.LearningRate*mh/(math.Sqrt(vh)+o.Epsilon)
			}
			p.check(t, "AdamW: p", 2e-6)
			m.check(t, "AdamW: m", 1e-6)
			v.check(t, "AdamW: v", 1e-6)
			g.check(t, "AdamW: g", 0)
		}
	}
}
