//go:build cuda && cgo

package cuda

import (
	"math"
	"slices"
	"testing"
	"unsafe"

	"github.com/moot-net/moot/node/internal/cuda/cuext"
	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/node/internal/tensor"
)

// shapes: one value, odd ones, several blocks of threads, rows that a whole
// block has.
var shapes = [][2]int{{1, 1}, {3, 7}, {5, 8}, {9, 33}, {70, 304}, {3, 2056}, {2, 1031}}

func TestRows(t *testing.T) {
	eachType(t, func(l *lab) {
		for _, s := range shapes {
			m, n, row := l.matrix(s[0], s[1]), l.matrix(s[0], s[1]), l.matrix(1, s[1])
			l.d.add(m.v, n.v)
			l.b.Add(m.Mat, n.Mat)
			m.check("add", 0)
			m.send()
			l.d.addRow(m.v, row.v)
			l.b.AddRow(m.Mat, row.Mat)
			m.check("addRow", 0)
			m.send()
			l.d.scale(m.v, 0.3)
			l.b.Scale(m.Mat, 0.3)
			m.check("scale", 0)
			l.d.sumRows(row.v, n.v)
			l.b.SumRows(row.Mat, n.Mat)
			row.check("sumRows", 1e-5)
			l.d.copy(m.v, n.v)
			l.b.Copy(m.Mat, n.Mat)
			m.check("copy", 0)
			n.check("source of copy", 0)
			l.d.zero(m.v)
			l.b.Zero(m.Mat)
			m.check("zero", 0)
		}
		// More rows than one part of a sum has.
		m, row := l.matrix(700, 37), l.matrix(1, 37)
		l.d.sumRows(row.v, m.v)
		l.b.SumRows(row.Mat, m.Mat)
		row.check("sumRows", 1e-4)
	})
}

// TestConversion: to the nearest bfloat16, ties to even, NaN stays NaN.
func TestConversion(t *testing.T) {
	eachCapability(t, func(t *testing.T, d *device) {
		for _, odd := range []bool{false, true} {
			l := newLab(t, d, "mixed", odd)
			src, dst := l.typed(1, 64, false), l.typed(1, 64, true)
			values := []uint32{0x3f800000, 0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0x7f7fffff, 0x7f800000, 0xff800000, 0x80000000, 0x00008001, 0x7fffffff, 0x7f800001}
			src.set(func(i int) float32 { return math.Float32frombits(values[i%len(values)] ^ uint32(i/len(values))<<31) })
			d.copy(dst.v, src.v)
			for i, v := range dst.values()[dst.first:][:64] {
				want := bf16Float(floatBF16(src.Host()[i]))
				if math.Float32bits(v) != math.Float32bits(want) && !(v != v && want != want) {
					t.Errorf("%x became %x, want %x", math.Float32bits(src.Host()[i]), math.Float32bits(v), math.Float32bits(want))
				}
			}
			back := l.typed(1, 64, false)
			d.copy(back.v, dst.v)
			got := back.values()[back.first:][:64]
			for i, v := range dst.values()[dst.first:][:64] {
				if math.Float32bits(got[i]) != math.Float32bits(v) {
					t.Errorf("%v came back as %v", v, got[i])
				}
			}
		}
		d.release()
	})
}

func TestIndexed(t *testing.T) {
	eachType(t, func(l *lab) {
		for _, s := range [][3]int{{6, 5, 4}, {9, 16, 40}, {3, 264, 70}, {1, 1, 3}} {
			idx := make([]int32, s[2])
			for i := range idx {
				idx[i] = int32(l.r.IntN(s[0]))
			}
			table, out := l.matrix(s[0], s[1]), l.matrix(s[2], s[1])
			l.d.gather(out.v, table.v, idx)
			l.b.Gather(out.Mat, table.Mat, idx)
			out.check("gather", 0)
			out = l.matrix(s[2], s[1])
			l.d.scatterAdd(table.v, out.v, idx)
			l.b.ScatterAdd(table.Mat, out.Mat, idx)
			table.check("scatterAdd", 3e-6)
			n := min(s[0], s[2])
			perm := make([]int32, n)
			for i, at := range l.r.Perm(s[0])[:n] {
				perm[i] = int32(at)
			}
			table.send()
			l.d.scatter(table.v, out.v.rowRange(0, n), perm)
			l.b.Scatter(table.Mat, out.RowRange(0, n), perm)
			table.check("scatter", 0)
		}
	})
}

// TestGatherHost: a kernel reads rows from pinned memory of the host.
func TestGatherHost(t *testing.T) {
	eachCapability(t, func(t *testing.T, d *device) {
		const rows, cols = 50, 24
		var pinned []byte
		d.do(func() (err error) {
			pinned, err = cuext.HostAlloc(2 * rows * cols)
			return err
		})
		if err := d.err(); err != nil {
			t.Fatal(err)
		}
		l := newLab(t, d, "mixed", false)
		table := make([]uint16, rows*cols)
		for i := range table {
			table[i] = floatBF16(float32(l.r.NormFloat64()))
		}
		copy(pinned, bytesOf(table))
		idx := []int32{7, 0, 49, 7}
		out := l.typed(len(idx), cols, false)
		d.gather(out.v, view{ptr: uintptr(unsafe.Pointer(unsafe.SliceData(pinned))), rows: rows, cols: cols, stride: cols, bf16: true}, idx)
		for i := range out.Host() {
			out.Host()[i] = bf16Float(table[int(idx[i/cols])*cols+i%cols])
		}
		out.check("gather from the host", 0)
		d.do(func() error { return cuext.HostFree(pinned) })
		d.release()
	})
}

func TestNorms(t *testing.T) {
	eachType(t, func(l *lab) {
		for _, s := range append([][2]int{{200, 24}}, shapes...) {
			for _, o := range []tensor.RMSNorm{{Eps: 1e-3}, {Eps: 1e-3, PlusOne: true}} {
				x, w, out, inv := l.matrix(s[0], s[1]), l.matrix(1, s[1]), l.matrix(s[0], s[1]), l.floats(s[0], 1)
				l.d.rmsNorm(out.v, inv.v, x.v, w.v, o)
				l.b.RMSNorm(out.Mat, inv.Mat, x.Mat, w.Mat, o)
				out.check("rmsNorm", 3e-6)
				inv.check("rmsNorm: inv", 3e-6)
				dout, dx, dw := l.matrix(s[0], s[1]), l.matrix(s[0], s[1]), l.floats(1, s[1])
				l.d.rmsNormBackward(dx.v, view{}, dout.v, x.v, inv.v, w.v, o)
				l.b.RMSNormBackward(dx.Mat, tensor.Mat{}, dout.Mat, x.Mat, inv.Mat, w.Mat, o)
				dx.check("rmsNormBackward: dx", 2e-5)
				dx.send()
				l.d.rmsNormBackward(dx.v, dw.v, dout.v, x.v, inv.v, w.v, o)
				l.b.RMSNormBackward(dx.Mat, dw.Mat, dout.Mat, x.Mat, inv.Mat, w.Mat, o)
				dx.check("rmsNormBackward: dx", 2e-5)
				dw.check("rmsNormBackward: dw", 3e-5)
				l.d.rmsNorm(x.v, inv.v, x.v, w.v, o)
				l.b.RMSNorm(x.Mat, inv.Mat, x.Mat, w.Mat, o)
				x.check("rmsNorm in place", 3e-6)
			}
			for _, biased := range []bool{false, true} {
				x, w, out, stats := l.matrix(s[0], s[1]), l.matrix(1, s[1]), l.matrix(s[0], s[1]), l.floats(s[0], 2)
				x.set(func(i int) float32 { return x.Host()[i] + 3 })
				bias := operand{}
				if biased {
					bias = l.matrix(1, s[1])
				}
				l.d.layerNorm(out.v, stats.v, x.v, w.v, bias.v, 1e-3)
				l.b.LayerNorm(out.Mat, stats.Mat, x.Mat, w.Mat, bias.Mat, 1e-3)
				out.check("layerNorm", 1e-5)
				stats.check("layerNorm: stats", 3e-6)
				stats.send()
				dout, dx, dw, dbias := l.matrix(s[0], s[1]), l.matrix(s[0], s[1]), l.floats(1, s[1]), l.floats(1, s[1])
				l.d.layerNormBackward(dx.v, view{}, view{}, dout.v, x.v, stats.v, w.v)
				l.b.LayerNormBackward(dx.Mat, tensor.Mat{}, tensor.Mat{}, dout.Mat, x.Mat, stats.Mat, w.Mat)
				dx.check("layerNormBackward: dx", 5e-5)
				dx.send()
				l.d.layerNormBackward(dx.v, dw.v, dbias.v, dout.v, x.v, stats.v, w.v)
				l.b.LayerNormBackward(dx.Mat, dw.Mat, dbias.Mat, dout.Mat, x.Mat, stats.Mat, w.Mat)
				dx.check("layerNormBackward: dx", 5e-5)
				dw.check("layerNormBackward: dw", 5e-5)
				dbias.check("layerNormBackward: dbias", 3e-5)
				l.d.layerNorm(x.v, stats.v, x.v, w.v, bias.v, 1e-3)
				l.b.LayerNorm(x.Mat, stats.Mat, x.Mat, w.Mat, bias.Mat, 1e-3)
				x.check("layerNorm in place", 1e-5)
			}
		}
	})
}

func TestRope(t *testing.T) {
	eachType(t, func(l *lab) {
		for _, s := range [][4]int{{1, 1, 2, 2}, {3, 2, 6, 6}, {4, 3, 16, 16}, {2, 2, 34, 34}, {20, 4, 64, 64}, {3, 2, 16, 4}, {4, 3, 20, 8}, {2, 2, 7, 6}, {5, 2, 24, 16}, {3, 1, 256, 128}} {
			n, heads, hd, rd := s[0], s[1], s[2], s[3]
			x, cos, sin := l.matrix(n, heads*hd), l.floats(10, rd/2), l.floats(10, rd/2)
			pos := make([]int32, n)
			for i := range pos {
				pos[i] = int32((7*i + 3) % 10)
			}
			for _, back := range []bool{false, true} {
				l.d.rope(x.v, cos.v, sin.v, hd, pos, back)
				l.b.Rope(x.Mat, cos.Mat, sin.Mat, hd, pos, back)
				x.check("rope", 1e-6)
				x.send()
			}
		}
	})
}

func TestActivations(t *testing.T) {
	eachType(t, func(l *lab) {
		for _, s := range shapes {
			wideValues := func(o operand) operand {
				return o.set(func(i int) float32 { return o.Host()[i] * []float32{0.1, 1, 3, 20}[i%4] })
			}
			out, gate, up := l.matrix(s[0], s[1]), wideValues(l.matrix(s[0], s[1])), l.matrix(s[0], s[1])
			l.d.swiGLU(out.v, gate.v, up.v)
			l.b.SwiGLU(out.Mat, gate.Mat, up.Mat)
			out.check("swiGLU", 2e-6)
			dout := l.matrix(s[0], s[1])
			l.d.swiGLUBackward(dout.v, gate.v, up.v)
			l.b.SwiGLUBackward(dout.Mat, gate.Mat, up.Mat)
			gate.check("swiGLUBackward: gate", 1e-5)
			up.check("swiGLUBackward: up", 1e-5)
			gate.send()
			up.send()
			l.d.swiGLU(up.v, gate.v, up.v)
			l.b.SwiGLU(up.Mat, gate.Mat, up.Mat)
			up.check("swiGLU in place", 1e-5)

			for _, kind := range []tensor.GELU{tensor.GELUExact, tensor.GELUTanh} {
				for _, gated := range []bool{false, true} {
					x, up := wideValues(l.matrix(s[0], s[1])), operand{}
					if gated {
						up = l.matrix(s[0], s[1])
					}
					l.d.gelu(out.v, x.v, up.v, kind)
					l.b.GELU(out.Mat, x.Mat, up.Mat, kind)
					out.check("gelu", 3e-6)
					l.d.geluBackward(dout.v, x.v, up.v, kind)
					l.b.GELUBackward(dout.Mat, x.Mat, up.Mat, kind)
					x.check("geluBackward: x", 1e-5)
					if gated {
						up.check("geluBackward: up", 1e-5)
					}
				}
			}

			for _, limit := range []float32{1.1, 1.3} { // rounded, one is larger and one smaller
				rounded := bf16Float(floatBF16(limit))
				x, d := wideValues(l.matrix(s[0], s[1])), l.matrix(s[0], s[1])
				x.set(func(i int) float32 {
					if v := x.Host()[i]; v != rounded && v != -rounded {
						return v
					}
					return 0 // whether it was limited cannot be told
				})
				l.d.clamp(x.v, limit)
				l.b.Clamp(x.Mat, limit)
				x.check("clamp", 0)
				l.d.clampBackward(d.v, x.v, limit)
				l.b.ClampBackward(d.Mat, x.Mat, limit)
				d.check("clampBackward", 0)
			}
			const limit = 1.1
			x, d := wideValues(l.matrix(s[0], s[1])), l.matrix(s[0], s[1])
			l.d.softCap(x.v, limit)
			l.b.SoftCap(x.Mat, limit)
			x.check("softCap", 1e-6)
			x.send()
			l.d.softCapBackward(d.v, x.v, limit)
			l.b.SoftCapBackward(d.Mat, x.Mat, limit)
			d.check("softCapBackward", 2e-6)
		}
		// Far out: nothing becomes infinite or NaN.
		far := []float32{-1e30, -1e15, -200, -88, 88, 200, 1e15, 1e30}
		x, up, dout := l.matrix(1, 8), l.matrix(1, 8), l.matrix(1, 8)
		for _, f := range []func(){
			func() { l.d.swiGLU(dout.v, x.v, up.v) },
			func() { l.d.swiGLUBackward(dout.v, x.v, up.v) },
			func() { l.d.gelu(dout.v, x.v, up.v, tensor.GELUTanh) },
			func() { l.d.geluBackward(dout.v, x.v, up.v, tensor.GELUTanh) },
			func() { l.d.gelu(dout.v, x.v, up.v, tensor.GELUExact) },
			func() { l.d.geluBackward(dout.v, x.v, up.v, tensor.GELUExact) },
			func() { l.d.softCap(x.v, 3) },
		} {
			x.set(func(i int) float32 { return far[i] })
			up.set(func(int) float32 { return 1 })
			dout.set(func(int) float32 { return 1 })
			f()
			for _, o := range []operand{x, up, dout} {
				for _, v := range o.values() {
					if v != v || math.IsInf(float64(v), 0) {
						l.t.Errorf("of %v came %v", far, o.values()[o.first:][:8])
					}
				}
			}
		}
	})
}

func TestCrossEntropy(t *testing.T) {
	eachType(t, func(l *lab) {
		for _, s := range [][2]int{{1, 2}, {3, 7}, {2, 16}, {5, 321}, {6, 1000}, {2, 9000}} {
			for _, scale := range []float32{0, 0.3} {
				x := l.matrix(s[0], s[1])
				x.set(func(i int) float32 { return x.Host()[i] * 5 })
				if s[1] > 6 { // ties
					x.set(func(i int) float32 { return []float32{30, x.Host()[i]}[min(1, i%s[1]%5)] })
				}
				labels, nll, top := make([]int32, s[0]), make([]float32, s[0]), make([]int32, s[0])
				for i := range labels {
					labels[i] = int32((i*5 + 1) % s[1])
				}
				at := l.scratch(8 * s[0])
				l.d.crossEntropy(x.v, labels, scale, at, at+uintptr(4*s[0]))
				before := append([]float32(nil), x.Host()...)
				l.b.CrossEntropy(x.Mat, labels, scale, nll, top)
				if scale == 0 {
					copy(x.Host(), before)
				}
				x.check("crossEntropy", 2e-6)
				for i, v := range read[float32](l.t, l.d, at, s[0]) {
					if math.Abs(float64(v-nll[i])) > 1e-5*(1+math.Abs(float64(nll[i]))) {
						l.t.Errorf("crossEntropy of %v, row %d: nll %v, want %v", s, i, v, nll[i])
					}
				}
				if got := read[int32](l.t, l.d, at+uintptr(4*s[0]), s[0]); !slices.Equal(got, top) {
					l.t.Errorf("crossEntropy of %v: top %v, want %v", s, got, top)
				}
				l.d.free(at)
			}
		}
	})
}

func TestSumSquares(t *testing.T) {
	eachType(t, func(l *lab) {
		for _, s := range [][2]int{{1, 1}, {1, 7}, {3, 300}, {1, 20_001}, {2, 16_400}, {70, 8}} {
			m := l.matrix(s[0], s[1])
			want := 0.0
			for _, v := range m.Host() {
				want += float64(v) * float64(v)
			}
			at := l.scratch(8)
			l.d.sumSquares(at, m.v)
			if got := read[float64](l.t, l.d, at, 1)[0]; math.Abs(got-want) > 1e-13*want {
				l.t.Errorf("sumSquares of %v is %v, want %v", s, got, want)
			}
			l.d.free(at)
			m.check("sumSquares", 0)
		}
	})
}

func TestAdamW(t *testing.T) {
	eachCapability(t, func(t *testing.T, d *device) {
		for _, n := range []int{1, 8, 21, 3000} {
			l := newLab(t, d, "float32", true)
			p, m, v := l.floats(1, n), l.floats(1, n).set(func(int) float32 { return 0 }), l.floats(1, n).set(func(int) float32 { return 0 })
			o := tensor.AdamW{LearningRate: 0.01, Beta1: 0.9, Beta2: 0.95, Epsilon: 1e-8, WeightDecay: 0.1, GradScale: 0.5}
			for o.Step = 1; o.Step <= 4; o.Step++ {
				g := l.floats(1, n)
				d.adamW(p.v, g.v, m.v, v.v, o)
				l.b.AdamW(p.Mat, g.Mat, m.Mat, v.Mat, o)
				p.check("adamW: p", 2e-6)
				m.check("adamW: m", 1e-6)
				v.check("adamW: v", 1e-6)
				g.check("adamW: g", 0)
			}
		}
		d.release()
	})
}

// TestSGD: to the bit what package train computes with operations of a backend.
func TestSGD(t *testing.T) {
	eachCapability(t, func(t *testing.T, d *device) {
		for _, momentum := range []float64{0, 0.9} {
			for _, decay := range []float64{0, 0.1} {
				l := newLab(t, d, "float32", true)
				const n, rate, gradScale = 300, 0.05, 0.7
				p, g, mean := l.floats(1, n), l.floats(1, n), operand{}
				if momentum != 0 {
					mean = l.floats(1, n)
				}
				for range 3 {
					d.sgd(p.v, g.v, mean.v, rate, gradScale, decay, momentum)
					for i := range p.Host() {
						x := float32(g.Host()[i] * float32(gradScale))
						if decay != 0 {
							x += float32(p.Host()[i] * float32(decay))
						}
						if momentum != 0 {
							mean.Host()[i] = float32(mean.Host()[i]*float32(momentum)) + x
							x = mean.Host()[i]
						}
						p.Host()[i] += float32(x * float32(-rate))
					}
					p.check("sgd: p", 0)
					if momentum != 0 {
						mean.check("sgd: mean", 0)
					}
				}
			}
		}
		d.release()
	})
}

// unsignedMap is the map of second moments: zero, one, and ten to the power of
// i-6 times the middles of 2^(i+1) equal parts of 0.1 to 1, for i from 0 to 6.
func unsignedMap() []float32 {
	list := []float32{0, 1}
	for i := range 7 {
		n := 2 << i
		for j := range n {
			middle := 0.1 + 0.9*(float64(j)+0.5)/float64(n)
			list = append(list, float32(math.Pow10(i-6)*middle))
		}
	}
	slices.Sort(list)
	return list
}

func nearestCode(m []float32, x float32) byte {
	best := 0
	for i, v := range m {
		if math.Abs(float64(v-x)) < math.Abs(float64(m[best]-x)) {
			best = i
		}
	}
	return byte(best)
}

// TestAdam8: to the bit what package train computes on the host.
func TestAdam8(t *testing.T) {
	signed, unsigned := nf4.DynamicMap[:], unsignedMap()
	eachCapability(t, func(t *testing.T, d *device) {
		for _, n := range []int{1, 255, 256, 1100} {
			l := newLab(t, d, "float32", true)
			p := l.floats(1, n)
			blocks := blocks(n, 256)
			mCode, vCode, mScale, vScale := make([]byte, n), make([]byte, n), make([]float32, blocks), make([]float32, blocks)
			for i := range mCode {
				mCode[i] = 127
			}
			codes, scales := l.scratch(2*n), l.scratch(8*blocks)
			l.d.copyIn(t, codes, mCode)
			maps := l.scratch(4 * 512)
			l.d.copyIn(t, maps, bytesOf(slices.Concat(signed, unsigned)))
			other, none := l.floats(1, n), l.scratch(4*n+8*blocks+4*512)
			o := tensor.AdamW{LearningRate: 0.01, Beta1: 0.5, Beta2: 0.95, Epsilon: 1e-8, WeightDecay: 0.1, GradScale: 1}
			for o.Step = 1; o.Step <= 4; o.Step++ {
				g := l.floats(1, n)
				g.set(func(i int) float32 {
					switch {
					case i%7 == 0 || i >= 512 && i < 768: // zeros, and a block of them
						return 0
					case o.Step == 1 && i == 1: // the largest first moment is 1
						return 2
					case o.Step == 1 && i == 2: // between 0 and the next value
						return signed[128]
					}
					return max(-2, min(2, g.Host()[i])) * float32(math.Pow10(-i%6))
				})
				// Leaves other maps in the shared memory.
				scale := none + uintptr(4*n)
				d.adam8(other.v, g.v, moments8{none, scale}, moments8{none + uintptr(n), scale + uintptr(4*blocks)}, scale+uintptr(8*blocks), o)
				d.adam8(p.v, g.v, moments8{codes, scales}, moments8{codes + uintptr(n), scales + uintptr(4*blocks)}, maps, o)
				root := math.Sqrt(1 - math.Pow(o.Beta2, float64(o.Step)))
				decay, step := float32(1-o.LearningRate*o.WeightDecay), float32(o.LearningRate*root/(1-math.Pow(o.Beta1, float64(o.Step))))
				for b := range blocks {
					from, to := b*256, min(n, b*256+256)
					ms, vs := make([]float32, 256), make([]float32, 256)
					mMost, vMost := float32(0), float32(0)
					for i := from; i < to; i++ {
						x := float32(g.Host()[i] * float32(o.GradScale))
						m := float32(float32(o.Beta1)*float32(signed[mCode[i]]*mScale[b])) + float32(float32(1-o.Beta1)*x)
						v := float32(float32(o.Beta2)*float32(unsigned[vCode[i]]*vScale[b])) + float32(float32(1-o.Beta2)*float32(x*x))
						ms[i-from], vs[i-from] = m, v
						mMost, vMost = max(mMost, m, -m), max(vMost, v)
						p.Host()[i] = float32(p.Host()[i]*decay) - float32(step*m)/(float32(math.Sqrt(float64(v)))+float32(o.Epsilon*root))
					}
					mScale[b], vScale[b] = mMost, vMost
					for i := from; i < to; i++ {
						mCode[i], vCode[i] = 127, 0
						if m := ms[i-from]; mMost != 0 {
							mCode[i] = nearestCode(signed, m/mMost)
							if m < 0 && signed[mCode[i]] >= 0 {
								mCode[i]--
							}
						}
						if vMost != 0 {
							vCode[i] = nearestCode(unsigned, vs[i-from]/vMost)
						}
					}
				}
				p.check("adam8: p", 0)
				got := read[byte](t, d, codes, 2*n)
				for i, c := range got {
					if want := slices.Concat(mCode, vCode)[i]; c != want {
						t.Fatalf("adam8: step %d, code %d of %d is %d, want %d", o.Step, i, n, c, want)
					}
				}
				if got := read[float32](t, d, scales, 2*blocks); !slices.Equal(got, slices.Concat(mScale, vScale)) {
					t.Fatalf("adam8: scales %v, want %v and %v", got, mScale, vScale)
				}
			}
		}
		d.release()
	})
}

// TestSameBits: what threads do in which order changes nothing.
func TestSameBits(t *testing.T) {
	if emulated == nil {
		t.Skip("the order of threads is chosen by the emulated driver")
	}
	eachCapability(t, func(t *testing.T, d *device) {
		var first []float32
		var sum float64
		for seed := range 3 {
			t.Setenv("MOOT_EMU_SEED", []string{"", "5", "77"}[seed])
			l := newLab(t, d, "bfloat16", false)
			x, w, inv, dx, dw := l.matrix(300, 72), l.matrix(1, 72), l.floats(300, 1), l.floats(300, 72), l.floats(1, 72)
			d.rmsNorm(dx.v, inv.v, x.v, w.v, tensor.RMSNorm{Eps: 1e-5})
			d.rmsNormBackward(dx.v, dw.v, x.v, x.v, inv.v, w.v, tensor.RMSNorm{})
			d.sumRows(w.v, x.v)
			at := l.scratch(8)
			d.sumSquares(at, x.v)
			loss := l.scratch(8 * 300)
			d.crossEntropy(x.v, make([]int32, 300), 0.1, loss, loss+1200)
			all := slices.Concat(dx.values(), dw.values(), w.values(), x.values(), read[float32](t, d, loss, 300))
			total := read[float64](t, d, at, 1)[0]
			if seed == 0 {
				first, sum = all, total
				continue
			}
			for i, v := range all {
				if math.Float32bits(v) != math.Float32bits(first[i]) {
					t.Fatalf("value %d is %v and %v", i, first[i], v)
				}
			}
			if total != sum {
				t.Errorf("sum of squares is %v and %v", sum, total)
			}
		}
		d.release()
	})
}
