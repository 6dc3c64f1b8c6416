//go:build cuda && cgo

package cuda

import (
	"math/rand/v2"
	"testing"

	"github.com/moot-net/moot/node/internal/cuda/cublas"
)

// noise is a matrix of normal values: a product of zeros takes less power, and
// is faster for it.
func (d *device) noise(b *testing.B, rows, cols int, half bool) view {
	b.Helper()
	v := d.zeros(b, rows, cols, half)
	r := rand.New(rand.NewPCG(1, 2))
	row := make([]float32, cols)
	short := make([]uint16, cols)
	for i := range row {
		row[i] = float32(r.NormFloat64())
		short[i] = floatBF16(row[i])
	}
	for i := range rows {
		if half {
			d.toDevice(v.at(i, 0), bytesOf(short))
		} else {
			d.toDevice(v.at(i, 0), bytesOf(row))
		}
	}
	return v
}

// BenchmarkProduct has the products of a step of a model of 8 billion parameters
// with 2048 tokens, by our own kernels and by cuBLAS.
func BenchmarkProduct(b *testing.B) {
	const tokens, width, inner, rank = 2048, 4096, 14336, 16
	for _, who := range []string{"own", "cublas"} {
		b.Run(who, func(b *testing.B) {
			b.Setenv(gemmEnv, who)
			d := benchDevice(b)
			if who == "cublas" {
				if _, err := cublas.Open(); err != nil {
					b.Skip(err)
				}
				if err := d.openBLAS(); err != nil {
					b.Skip(err)
				}
				b.Cleanup(d.dropBLAS)
			}
			for _, bm := range []struct {
				name                 string
				rows, cols, k, k2    int
				transA, transB, half bool // half: c is bf16
			}{
				{"forward 4096", tokens, width, width, 0, false, true, true},
				{"forward up", tokens, inner, width, 0, false, true, true},
				{"forward down", tokens, width, inner, 0, false, true, true},
				{"forward up, LoRA fused", tokens, inner, width, rank, false, true, true},
				{"backward up", tokens, width, inner, 0, false, false, true},
				{"LoRA x A^T", tokens, rank, width, 0, false, true, true},
				{"LoRA dB", inner, rank, tokens, 0, true, false, false},
				{"LoRA dA", rank, width, tokens, 0, true, false, false},
				{"one token", 1, width, width, 0, false, true, true},
			} {
				b.Run(bm.name, func(b *testing.B) {
					matrix := func(trans bool, rows, cols int) view {
						rows, cols = turned(trans, rows, cols)
						return d.noise(b, rows, cols, true)
					}
					p := product{
						a: matrix(bm.transA, bm.rows, bm.k), b: matrix(bm.transB, bm.k, bm.cols), c: d.zeros(b, bm.rows, bm.cols, bm.half),
						transA: bm.transA, transB: bm.transB,
					}
					views := []view{p.a, p.b, p.c}
					if bm.k2 > 0 {
						p.a2, p.b2 = matrix(bm.transA, bm.rows, bm.k2), matrix(bm.transB, bm.k2, bm.cols)
						views = append(views, p.a2, p.b2)
					}
					bytes := 0
					for _, v := range views {
						bytes += v.rows * v.cols * v.elem()
					}
					d.measure(b, float64(bytes), 2*float64(bm.rows)*float64(bm.cols)*float64(bm.k+bm.k2), func() { d.matMul(p) })
					for _, v := range views {
						d.free(v.ptr)
					}
				})
			}
		})
	}
}

// BenchmarkFloat32Product is what GPUs without tensor cores do.
func BenchmarkFloat32Product(b *testing.B) {
	d := benchDevice(b)
	const tokens, width = 2048, 4096
	p := product{a: d.noise(b, tokens, width, false), b: d.noise(b, width, width, false), c: d.zeros(b, tokens, width, false), transB: true}
	d.measure(b, 0, 2*tokens*width*width, func() { d.matMul(p) })
}

// BenchmarkNF4 has the dequantisation of a large weight, and products with it of
// one and of many tokens.
func BenchmarkNF4(b *testing.B) {
	d := benchDevice(b)
	const width, inner = 4096, 14336
	r := rand.New(rand.NewPCG(1, 2))
	w := randomNF4(b, r, inner, width, true)
	m, err := d.uploadNF4(w)
	if err != nil {
		b.Fatal(err)
	}
	dst := d.zeros(b, inner, width, true)
	b.Run("dequant", func(b *testing.B) {
		d.measure(b, float64(w.Bytes()+2*w.Len()), 0, func() { d.dequant(dst, m) })
	})
	for _, tokens := range []int{1, 16, 2048, 4096} {
		b.Run(map[int]string{1: "1 token", 16: "16 tokens", 2048: "2048 tokens", 4096: "4096 tokens"}[tokens], func(b *testing.B) {
			p := product{a: d.noise(b, tokens, width, true), c: d.zeros(b, tokens, inner, true), nf4: m, transB: true}
			d.measure(b, float64(w.Bytes()), 2*float64(tokens)*width*inner, func() { d.matMul(p) })
			d.free(p.a.ptr)
			d.free(p.c.ptr)
		})
	}
}
