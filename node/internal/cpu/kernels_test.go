package cpu

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/moot-net/moot/node/internal/tensor"
)

// TestKernelsAgree compares the kernels in assembly with those in Go for all
// short lengths, and looks at what lies behind the slices.
func TestKernelsAgree(t *testing.T) {
	sets := native()
	if len(sets) == 0 {
		t.Skip("this processor has no kernels in assembly")
	}
	k := &sets[0] // the others differ in their tiles
	const guard = 77
	r := rand.New(rand.NewPCG(3, 4))
	for n := range 75 {
		slice := func() []float32 {
			s := make([]float32, n+16)
			for i := range s {
				s[i] = guard
				if i < n {
					s[i] = float32(3 * r.NormFloat64())
				}
			}
			return s[:n]
		}
		x, y, z, w := slice(), slice(), slice(), slice()
		for i := range w {
			w[i] *= w[i]
		}
		a, b := float32(0.7), float32(-1.3)
		consts := &adamConsts{0.5, 0.99, 0.9, 0.1, 0.95, 0.05, 0.01, 1.5, 1e-8}
		for _, c := range []struct {
			name string
			run  func(k *kernels, x, y, z, w []float32) float32
		}{
			{"dot", func(k *kernels, x, y, _, _ []float32) float32 { return k.dot(x, y) }},
			{"dot3", func(k *kernels, x, y, z, _ []float32) float32 { return k.dot3(x, y, z) }},
			{"maximum", func(k *kernels, x, _, _, _ []float32) float32 { return k.maximum(x) }},
			{"add", func(k *kernels, x, y, _, _ []float32) float32 { k.add(x, y); return 0 }},
			{"axpy", func(k *kernels, x, y, _, _ []float32) float32 { k.axpy(x, y, a); return 0 }},
			{"scale", func(k *kernels, x, _, _, _ []float32) float32 { k.scale(x, a); return 0 }},
			{"mulScale", func(k *kernels, x, y, z, _ []float32) float32 { k.mulScale(x, y, z, a); return 0 }},
			{"normBack", func(k *kernels, x, y, z, w []float32) float32 { k.normBack(x, y, z, w, a, b); return 0 }},
			{"expSum", func(k *kernels, x, y, _, _ []float32) float32 { return k.expSum(x, y, a) }},
			{"softmaxBack", func(k *kernels, x, y, _, _ []float32) float32 { k.softmaxBack(x, y, a, b); return 0 }},
			{"swiglu", func(k *kernels, x, y, z, _ []float32) float32 { k.swiglu(x, y, z); return 0 }},
			{"swigluBack", func(k *kernels, x, y, z, _ []float32) float32 { k.swigluBack(x, y, z); return 0 }},
			{"normal", func(k *kernels, x, y, z, _ []float32) float32 { k.normal(y, z, x); return 0 }},
			{"logistic", func(k *kernels, x, y, z, _ []float32) float32 { k.logistic(y, z, x); return 0 }},
			{"rotate", func(k *kernels, x, y, z, w []float32) float32 { k.rotate(x, y, z, w, -1); return 0 }},
			{"widen", func(k *kernels, x, _, z, _ []float32) float32 {
				half := make([]uint16, len(z))
				for i, v := range z {
					half[i] = uint16(math.Float32bits(v) >> 16)
				}
				k.widen(x, half)
				return 0
			}},
			{"adamw", func(k *kernels, x, y, z, w []float32) float32 { k.adamw(x, y, z, w, consts); return 0 }},
		} {
			have, want := copies(x, y, z, w), copies(x, y, z, w)
			gotSum := c.run(k, have[0], have[1], have[2], have[3])
			wantSum := c.run(&portable, want[0], want[1], want[2], want[3])
			if !alike(gotSum, wantSum, 1e-5) {
				t.Errorf("%s of %d: result %v, want %v", c.name, n, gotSum, wantSum)
			}
			for s := range have {
				for i := range want[s] {
					if !alike(have[s][i], want[s][i], 1e-5) {
						t.Fatalf("%s of %d: value %d of slice %d is %v, want %v", c.name, n, i, s, have[s][i], want[s][i])
					}
				}
				for i, v := range have[s][n:cap(have[s])] {
					if v != guard {
						t.Fatalf("%s of %d: wrote %v, %d behind slice %d", c.name, n, v, i, s)
					}
				}
			}
		}
	}
}

// TestTileOrder: a tile's sums are those of fused multiply-adds in the order of
// k, then multiplied by alpha and added, so that all processors give the same
// bits. The portable kernels are the exception.
func TestTileOrder(t *testing.T) {
	const k = 19
	r := rand.New(rand.NewPCG(12, 13))
	for _, kn := range allSets()[1:] {
		for _, tile := range kn.tiles {
			rsa, csa, ldb, ldc := 1, tile.rows+1, tile.cols+2, tile.cols+3
			if tile.rows == 4 { // also rows of a that are contiguous
				rsa, csa = k+1, 1
			}
			slice := func(n int) []float32 {
				s := make([]float32, n)
				for i := range s {
					s[i] = float32(r.NormFloat64())
				}
				return s
			}
			a, b, c := slice((k+1)*(tile.rows+1)), slice(k*ldb), slice(tile.rows*ldc)
			for _, add := range []bool{false, true} {
				got, want := slices.Clone(c), slices.Clone(c)
				tile.fn(k, a, rsa, csa, b, ldb, got, ldc, 0.7, add)
				for i := range tile.rows {
					for j := range tile.cols {
						sum := float32(0)
						for p := range k {
							sum = fused(a[i*rsa+p*csa], b[p*ldb+j], sum)
						}
						sum = float32(sum * 0.7)
						if add {
							sum = float32(sum + want[i*ldc+j])
						}
						want[i*ldc+j] = sum
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s: tile %dx%d, add %v: other sums, or others touched", kn.name, tile.rows, tile.cols, add)
				}
			}
		}
	}
}

// fused returns x*y + s, rounded once.
func fused(x, y, s float32) float32 {
	v := new(big.Float).SetPrec(300).Mul(big.NewFloat(float64(x)), big.NewFloat(float64(y)))
	f, _ := v.Add(v, big.NewFloat(float64(s))).Float32()
	return f
}

func copies(list ...[]float32) [][]float32 {
	var out [][]float32
	for _, s := range list {
		c := append([]float32(nil), s[:cap(s)]...)
		out = append(out, c[:len(s):cap(s)])
	}
	return out
}

func alike(a, b float32, tolerance float64) bool {
	if a == b {
		return true
	}
	if a != a || b != b {
		return a != a && b != b
	}
	return math.Abs(float64(a)-float64(b)) <= tolerance*(1+math.Abs(float64(b)))
}

// TestNaN: a NaN must not be lost, or a diverged run would go on unnoticed.
func TestNaN(t *testing.T) {
	sets := []*kernels{&portable}
	if all := native(); len(all) > 0 {
		sets = append(sets, &all[0])
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, k := range sets {
		for n := 1; n < 40; n++ {
			for at := range n {
				x := make([]float32, n)
				x[at] = nan
				if m := k.maximum(x); m == m {
					t.Fatalf("%s: maximum of %d values with NaN at %d is %v", k.name, n, at, m)
				}
				if s := k.expSum(make([]float32, n), x, 0); s == s {
					t.Fatalf("%s: expSum of %d values with NaN at %d is %v", k.name, n, at, s)
				}
				out, ones := make([]float32, n), make([]float32, n)
				for i := range ones {
					ones[i] = 1
				}
				if k.swiglu(out, x, ones); out[at] == out[at] {
					t.Fatalf("%s: swiglu lost a NaN at %d of %d", k.name, at, n)
				}
				for _, share := range []func(p, q, x []float32){k.normal, k.logistic} {
					if share(out, ones, x); out[at] == out[at] || ones[at] == ones[at] {
						t.Fatalf("%s: a distribution function lost a NaN at %d of %d", k.name, at, n)
					}
				}
				x[at] = -inf
				if m := k.maximum(x[at : at+1]); m != -inf {
					t.Fatalf("%s: maximum of -Inf is %v", k.name, m)
				}
			}
		}
	}
}

func TestExp(t *testing.T) {
	for x := -87.0; x < 88; x += 0.00917 {
		want := math.Exp(float64(float32(x)))
		if got := exp32(float32(x)); math.Abs(float64(got)-want) > 2.5e-7*want {
			t.Fatalf("exp32(%v) = %v, want %v", x, got, want)
		}
	}
	for _, x := range []float32{-1e30, -100, float32(math.Inf(-1))} {
		if got := exp32(x); got < 0 || got > 2e-38 {
			t.Errorf("exp32(%v) = %v", x, got)
		}
	}
	if got := exp32(1e30); got < 1e38 || math.IsInf(float64(got), 0) {
		t.Errorf("exp32(1e30) = %v", got)
	}
}

// TestAllocations: once scratch memory has its size, nothing is allocated.
func TestAllocations(t *testing.T) {
	for _, threads := range []int{1, 2} {
		b := New(Options{Threads: threads})
		r := func(rows, cols int) tensor.Mat { return b.Alloc(rows*cols).Mat(0, rows, cols) }
		x, y, c, dx, inv := r(300, 96), r(96, 96), r(300, 96), r(300, 96), r(300, 1)
		w, rank, low := r(1, 96), r(8, 96), r(300, 8)
		stats, half := r(300, 2), b.Pack(make(tensor.BF16, 96*96)).Mat(0, 96, 96)
		p := tensor.Attention{
			Q: x, K: dx, V: x, Out: c, LSE: r(300, 4), Heads: 4, KVHeads: 4, Scale: 1, SoftCap: 50,
			Slopes: make([]float32, 4), Spans: []tensor.Span{{QLen: 300, KLen: 300}},
		}
		step := func() {
			b.MatMul(c, x, y, tensor.MatMul{TransB: true})
			b.MatMul(low, x, rank, tensor.MatMul{TransB: true})
			b.MatMul(rank, low, x, tensor.MatMul{TransA: true})
			b.MatMul(c, x, half, tensor.MatMul{TransB: true})
			b.MatMul(c, x, half, tensor.MatMul{})
			for _, o := range []tensor.RMSNorm{{Eps: 1e-5}, {Eps: 1e-5, PlusOne: true}} {
				b.RMSNorm(c, inv, x, w, o)
				b.RMSNormBackward(dx, tensor.Mat{}, c, x, inv, w, o)
			}
			b.LayerNorm(c, stats, x, w, w, 1e-5)
			b.LayerNormBackward(dx, tensor.Mat{}, tensor.Mat{}, c, x, stats, w)
			b.SwiGLU(c, x, dx)
			b.GELU(c, x, dx, tensor.GELUTanh)
			b.GELUBackward(c, x, tensor.Mat{}, tensor.GELUExact)
			b.SoftCap(c, 30)
			b.Clamp(c, 6)
			b.Attention(p)
			b.Add(c, x)
			b.SumSquares(w)
		}
		step()
		// A goroutine that exits while another starts one may cost the runtime
		// a new one now and then.
		if n := testing.AllocsPerRun(20, step); n > float64(threads-1) {
			t.Errorf("%d threads: %v allocations in a step", threads, n)
		}
	}
}
