package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/node/internal/tensor"
)

// BenchmarkMatMul measures matrix products of the shapes that training makes:
// squares, X W^T, dY W and dY^T X of a layer, and those with a rank.
func BenchmarkMatMul(b *testing.B) {
	for _, c := range []struct {
		name    string
		m, n, k int
		ta, tb  bool
	}{
		{"square512", 512, 512, 512, false, false},
		{"square1024", 1024, 1024, 1024, false, false},
		{"square1024NT", 1024, 1024, 1024, false, true},
		{"square1024TN", 1024, 1024, 1024, true, false},
		{"XWt-1024x288x288", 1024, 288, 288, false, true},
		{"XWt-1024x768x288", 1024, 768, 288, false, true},
		{"dYW-1024x288x768", 1024, 288, 768, false, false},
		{"dYtX-768x288x1024", 768, 288, 1024, true, false},
		{"XAt-1024x16x288", 1024, 16, 288, false, true},
		{"HBt-1024x288x16", 1024, 288, 16, false, true},
		{"dYtH-288x16x1024", 288, 16, 1024, true, false},
		{"UtX-16x288x1024", 16, 288, 1024, true, false},
		{"XAt-1024x8x128", 1024, 8, 128, false, true},
		{"XWt-1024x128x128", 1024, 128, 128, false, true},
		{"scores-96x256x48", 96, 256, 48, false, true},
		{"row-1x768x288", 1, 768, 288, false, true},
	} {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/threads=%d", c.name, threads), func(b *testing.B) {
				benchmarkMatMul(b, New(Options{Threads: threads}), c.m, c.n, c.k, c.ta, c.tb)
			})
		}
	}
	sets := native()
	for i := range sets {
		b.Run(sets[i].name+"-square512/threads=1", func(b *testing.B) {
			benchmarkMatMul(b, with(&sets[i], 1), 512, 512, 512, false, false)
		})
	}
	b.Run("portable-square512/threads=1", func(b *testing.B) {
		benchmarkMatMul(b, New(Options{Portable: true}), 512, 512, 512, false, false)
	})
}

// BenchmarkPacked measures products with weights in less memory.
func BenchmarkPacked(b *testing.B) {
	const m, n, k = 256, 768, 768
	r := rand.New(rand.NewPCG(1, 1))
	values, half := make([]float32, n*k), make(tensor.BF16, n*k)
	for i := range values {
		values[i] = float32(r.NormFloat64())
		half[i] = uint16(math.Float32bits(values[i]) >> 16)
	}
	four, err := nf4.New(values, n, k)
	if err != nil {
		b.Fatal(err)
	}
	for _, p := range []Precision{PrecisionF32, PrecisionBF16} {
		be := New(Options{Precision: p})
		f32 := be.Alloc(n * k)
		copy(f32.Host, values)
		x, c := be.Alloc(m*k).Mat(0, m, k), be.Alloc(m*n).Mat(0, m, n)
		for i := range x.Host() {
			x.Host()[i] = float32(r.NormFloat64())
		}
		for _, w := range []struct {
			name string
			buf  *tensor.Buffer
		}{{"F32", f32}, {"BF16", be.Pack(half)}, {"NF4", be.Pack(four)}} {
			for name, o := range map[string]tensor.MatMul{"XWt": {TransB: true}, "dYW": {}} {
				b.Run(p.String()+"/"+name+"/"+w.name, func(b *testing.B) {
					measureProduct(b, 2*m*n*k, func() { be.MatMul(c, x, w.buf.Mat(0, n, k), o) })
				})
			}
		}
	}
}

// BenchmarkHalf measures products with weights of bfloat16, of the shapes of
// models, by all kernels.
func BenchmarkHalf(b *testing.B) {
	for _, k := range allSets() {
		for _, s := range [][3]int{{1024, 288, 288}, {1024, 768, 768}, {1024, 2048, 768}, {1024, 768, 2048}, {256, 32000, 768}, {256, 768, 32000}} {
			if k.name == "portable" && s[1] > 288 {
				continue
			}
			for name, o := range map[string]tensor.MatMul{"XWt": {TransB: true}, "dYW": {}} {
				b.Run(fmt.Sprintf("%s/%s-%dx%dx%d", k.name, name, s[0], s[1], s[2]), func(b *testing.B) {
					be := halfBackend(k, 1)
					x, c := be.Alloc(s[0]*s[2]).Mat(0, s[0], s[2]), be.Alloc(s[0]*s[1]).Mat(0, s[0], s[1])
					v := make(tensor.BF16, s[1]*s[2])
					for i := range v {
						v[i] = 0x3f80 + uint16(i*7%128)
					}
					for i := range x.Host() {
						x.Host()[i] = float32(i%117) - 58
					}
					w := be.Pack(v).Mat(0, s[2], s[1])
					if o.TransB {
						w = w.Reshape(s[1], s[2])
					}
					measureProduct(b, 2*s[0]*s[1]*s[2], func() { be.MatMul(c, x, w, o) })
				})
			}
		}
	}
}

func benchmarkMatMul(b *testing.B, be *Backend, m, n, k int, ta, tb bool) {
	r := rand.New(rand.NewPCG(1, 1))
	mat := func(rows, cols int, trans bool) tensor.Mat {
		if trans {
			rows, cols = cols, rows
		}
		x := be.Alloc(rows*cols).Mat(0, rows, cols)
		for i := range x.Host() {
			x.Host()[i] = float32(r.NormFloat64())
		}
		return x
	}
	x, y, c := mat(m, k, ta), mat(k, n, tb), mat(m, n, false)
	measureProduct(b, 2*m*n*k, func() { be.MatMul(c, x, y, tensor.MatMul{TransA: ta, TransB: tb}) })
}

func measureProduct(b *testing.B, flop int, fn func()) {
	b.ReportAllocs()
	fn()
	work, start := 0.0, processorTime()
	for b.Loop() {
		fn()
		work += float64(flop) / 1e9
	}
	b.ReportMetric(work/b.Elapsed().Seconds(), "GFLOP/s")
	if used := processorTime() - start; used > 0 {
		b.ReportMetric(work/used.Seconds(), "GFLOP/cpu-s")
	}
}

// BenchmarkActivation measures activations, per value of an MLP.
func BenchmarkActivation(b *testing.B) {
	be := New(Options{})
	mat := func() tensor.Mat { return be.Alloc(512*1024).Mat(0, 512, 1024) }
	x, y, out := mat(), mat(), mat()
	fill := func() {
		for i := range x.Host() {
			x.Host()[i] = float32(i%800)/100 - 4
		}
	}
	for _, c := range []struct {
		name string
		run  func()
	}{
		{"SwiGLU", func() { be.SwiGLU(out, x, y) }},
		{"GELUExact", func() { be.GELU(out, x, tensor.Mat{}, tensor.GELUExact) }},
		{"GELUTanh", func() { be.GELU(out, x, tensor.Mat{}, tensor.GELUTanh) }},
		{"GELUExactBackward", func() { be.GELUBackward(out, x, tensor.Mat{}, tensor.GELUExact) }},
		{"GELUTanhBackward", func() { be.GELUBackward(out, x, tensor.Mat{}, tensor.GELUTanh) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			fill()
			b.ReportAllocs()
			for b.Loop() {
				c.run()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(512*1024), "ns/value")
		})
	}
}
