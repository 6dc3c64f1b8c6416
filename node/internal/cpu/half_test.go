package cpu

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/node/internal/tensor"
)

// allSets returns all kernels that this processor runs, the portable ones
// first.
func allSets() []*kernels {
	sets := []*kernels{&portable}
	all := native()
	for i := range all {
		sets = append(sets, &all[i])
	}
	return sets
}

// halfBackend multiplies in bfloat16 with a set of kernels.
func halfBackend(k *kernels, threads int) *Backend {
	b := New(Options{Threads: threads, Precision: PrecisionBF16})
	b.k = k
	return b
}

// TestNarrow compares rounding with the nearest of the neighbours, found in
// float64, and the kernels with each other.
func TestNarrow(t *testing.T) {
	inputs := []uint32{0, 1 << 31, 1, 0x007fffff, 0x807fffff, 0x00800000, 0x7f7fffff, 0x7f7f8000, 0x7f7f7fff, 0x7f800000, 0xff800000, 0x7f800001, 0x7fffffff, 0xffc00001, 0x3f808000, 0x3f818000, 0x3f807fff, 0x3f808001}
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		inputs = append(inputs, r.Uint32())
	}
	src := make([]float32, len(inputs))
	for i, v := range inputs {
		src[i] = math.Float32frombits(v)
		got := math.Float32frombits(uint32(narrowed(src[i])) << 16)
		switch {
		case src[i] != src[i]:
			if got == got {
				t.Fatalf("narrowed(%08x) = %v", v, got)
			}
		case v&0x7fffffff == 0x7f800000:
			if got != src[i] {
				t.Fatalf("narrowed(%v) = %v", src[i], got)
			}
		case v&0x7f800000 == 0:
			if got != 0 || math.Signbit(float64(got)) != (v>>31 == 1) {
				t.Fatalf("narrowed(%08x) = %v, want a zero of the same sign", v, got)
			}
		default:
			if want := nearest(v); math.Float32bits(got) != want {
				t.Fatalf("narrowed(%08x) = %08x, want %08x", v, math.Float32bits(got), want)
			}
		}
	}
	for _, k := range allSets() {
		for _, n := range []int{0, 1, 15, 16, 17, 33, len(src)} {
			got, want := make([]uint16, n+1), make([]uint16, n+1)
			got[n], want[n] = 7, 7
			k.narrow(got[:n], src[:n])
			narrowGo(want[:n], src[:n])
			if !slices.Equal(got, want) {
				t.Errorf("%s: rounding of %d values differs", k.name, n)
			}
		}
	}
}

// nearest returns the bfloat16 value nearest to a finite float32, as bits of
// that.
func nearest(v uint32) uint32 {
	low, high := v&^0xffff, v&^0xffff+0x10000
	value := func(bits uint32) float64 {
		if bits&0x7fffffff == 0x7f800000 { // as if there were a next one
			return math.Copysign(0x1p128, float64(math.Float32frombits(bits)))
		}
		return float64(math.Float32frombits(bits))
	}
	x := value(v)
	switch a, b := math.Abs(x-value(low)), math.Abs(value(high)-x); {
	case a < b, a == b && low>>16&1 == 0:
		return low
	default:
		return high
	}
}

// TestAddProduct compares sums with exact ones, rounded once.
func TestAddProduct(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	number := func(exponents, from int) float64 {
		return math.Ldexp(float64(128+r.IntN(128)), r.IntN(exponents)+from-7) * float64(1-2*r.IntN(2))
	}
	flushed := 0
	for i := range 200_000 {
		from, s := -70, float32(0)
		switch i % 4 {
		case 0: // ordinary
			s, from = float32(number(30, -15)*(1+r.Float64()/128)), -8
		case 1: // near the least numbers
			s = float32(number(4, -126) * (1 + r.Float64()/128))
		case 2: // at 2^-126 and its neighbours
			s = math.Float32frombits(uint32(0x00800000+r.IntN(2))) * float32(1-2*r.IntN(2))
			from = -80
		default:
			s, from = float32(number(4, 120)), 55
		}
		x, y := number(16, from), number(16, from)
		exact := new(big.Float).SetPrec(2000).Mul(big.NewFloat(x), big.NewFloat(y))
		exact.Add(exact, big.NewFloat(float64(s)))
		sum, _ := new(big.Float).SetPrec(24).SetMode(big.ToNearestEven).Set(exact).Float64()
		switch {
		case sum != 0 && math.Abs(sum) < 0x1p-126:
			sum, flushed = math.Copysign(0, sum), flushed+1
		case math.Abs(sum) > math.MaxFloat32:
			sum = math.Inf(int(sum / math.Abs(sum)))
		}
		if got := addProduct(s, x, y); math.Float32bits(got) != math.Float32bits(float32(sum)) {
			t.Fatalf("%g + %g * %g = %g, want %g", s, x, y, got, sum)
		}
	}
	if flushed < 1000 {
		t.Errorf("only %d sums were denormal", flushed)
	}
}

// TestHalfTilesAgree: whatever processor computes, the bits are the same, also
// where numbers are denormal, infinite or none.
func TestHalfTilesAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, kind := range []string{"ordinary", "tiny", "any"} {
		value := func() uint16 {
			switch kind {
			case "ordinary":
				return narrowed(float32(r.NormFloat64()))
			case "tiny": // products about 2^-126
				return narrowed(float32(r.NormFloat64()*math.Ldexp(1, -60-r.IntN(6)))) ^ uint16(r.IntN(2))
			}
			return uint16(r.Uint32())
		}
		for _, k := range allSets() {
			for _, tile := range k.halfTiles {
				for _, pairs := range []int{0, 1, 2, 5, 8, 23} {
					rsa, ldc := 2*pairs+2*r.IntN(3), tile.cols+r.IntN(3)
					a, b := make([]uint16, tile.rows*rsa+2), make([]uint16, 2*pairs*tile.cols)
					for _, s := range [][]uint16{a, b} {
						for i := range s {
							s[i] = value()
						}
					}
					c := make([]float32, tile.rows*ldc)
					for i := range c {
						c[i] = float32(r.NormFloat64())
					}
					for _, add := range []bool{false, true} {
						got, want := slices.Clone(c), slices.Clone(c)
						tile.fn(pairs, a, rsa, b, got, ldc, 0.3, add)
						for i := range tile.rows {
							for j := range tile.cols {
								sum := float32(0)
								for p := range pairs {
									sum = addProduct(sum, widened(a[i*rsa+2*p+1]), widened(b[2*(p*tile.cols+j)+1]))
									sum = addProduct(sum, widened(a[i*rsa+2*p]), widened(b[2*(p*tile.cols+j)]))
								}
								sum = float32(sum * 0.3)
								if add {
									sum += want[i*ldc+j]
								}
								want[i*ldc+j] = sum
							}
						}
						for i := range want {
							if math.Float32bits(got[i]) != math.Float32bits(want[i]) && (got[i] == got[i] || want[i] == want[i]) {
								t.Fatalf("%s, %s, tile %dx%d of %d pairs, add %v: value %d is %g, want %g", k.name, kind, tile.rows, tile.cols, pairs, add, i, got[i], want[i])
							}
						}
					}
				}
			}
		}
	}
}

// TestHalfProduct compares products with packed weights with sums in float64 of
// the rounded values, and those of all kernels and numbers of threads with each
// other.
func TestHalfProduct(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, s := range [][3]int{{3, 5, 1}, {4, 16, 9}, {13, 33, 700}, {100, 47, 321}, {26, 1100, 64}, {150, 96, 96}, {9, 40, 2048}} {
		m, n, k := s[0], s[1], s[2]
		for i := range 8 {
			o := tensor.MatMul{TransA: i&1 != 0, TransB: i&2 != 0, Add: i&4 != 0, Alpha: 0.3}
			t.Run(fmt.Sprintf("%dx%dx%d-%d", m, n, k, i), func(t *testing.T) {
				w := make(tensor.BF16, n*k+3)
				for i := range w {
					w[i] = narrowed(float32(r.NormFloat64()))
				}
				x, c0 := make([]float32, m*k), make([]float32, m*n)
				for _, v := range [][]float32{x, c0} {
					for i := range v {
						v[i] = float32(r.NormFloat64())
					}
				}
				compute := func(be *Backend) []float32 {
					a, b, c := be.Alloc(m*k).Mat(0, m, k), be.Pack(w).Mat(3, k, n), be.Alloc(m*n).Mat(0, m, n)
					if o.TransA {
						a = a.Reshape(k, m)
					}
					if o.TransB {
						b = b.Reshape(n, k)
					}
					copy(a.Host(), x)
					copy(c.Host(), c0)
					be.MatMul(c, a, b, o)
					return c.Host()
				}
				want := compute(halfBackend(&portable, 1))
				for i := range m {
					for j := range n {
						sum, size := 0., 0.
						for p := range k {
							xa, wb := i*k+p, 3+p*n+j
							if o.TransA {
								xa = p*m + i
							}
							if o.TransB {
								wb = 3 + j*k + p
							}
							v := widened(narrowed(x[xa])) * widened(w[wb])
							sum, size = sum+v, size+math.Abs(v)
						}
						sum *= 0.3
						if o.Add {
							sum += float64(c0[i*n+j])
						}
						if math.Abs(sum-float64(want[i*n+j])) > 1e-6*(1+size) {
							t.Fatalf("element (%d,%d) is %v, want %v", i, j, want[i*n+j], sum)
						}
					}
				}
				for _, k := range allSets() {
					for _, threads := range []int{1, 3} {
						be := halfBackend(k, threads)
						if !slices.Equal(compute(be), want) {
							t.Errorf("%s, %d threads: other bits than portable", k.name, threads)
						}
						be.maxRounded = 1 // a few rows at a time
						if !slices.Equal(compute(be), want) {
							t.Errorf("%s, %d threads: other bits with less memory", k.name, threads)
						}
					}
				}
			})
		}
	}
}

// TestHalfNF4: weights of four bits are those that bfloat16 keeps of them.
func TestHalfNF4(t *testing.T) {
	const n, k = 70, 192
	r := rand.New(rand.NewPCG(9, 10))
	values := make([]float32, n*k)
	for i := range values {
		values[i] = float32(r.NormFloat64())
	}
	four, err := nf4.New(values, n, k)
	if err != nil {
		t.Fatal(err)
	}
	four.DequantRange(values, 0, n*k)
	half := make(tensor.BF16, n*k)
	narrowGo(half, values)
	for _, be := range []*Backend{New(Options{Portable: true, Precision: PrecisionBF16}), New(Options{Threads: 2, Precision: PrecisionBF16})} {
		for _, m := range []int{1, 2, 3, 50} {
			for _, o := range []tensor.MatMul{{TransB: true}, {}} {
				product := func(p tensor.Packed) []float32 {
					w, inner, outer := be.Pack(p).Mat(0, n, k), k, n
					if !o.TransB {
						inner, outer = n, k
					}
					x, c := be.Alloc(m*inner).Mat(0, m, inner), be.Alloc(m*outer).Mat(0, m, outer)
					for i := range x.Host() {
						x.Host()[i] = float32(i%17) - 8.01
					}
					be.MatMul(c, x, w, o)
					return c.Host()
				}
				if !slices.Equal(product(four), product(half)) {
					t.Errorf("%s, %d rows, %+v: differ", be.Kernels(), m, o)
				}
			}
		}
	}
}

// TestPrecision: the exact mode is the default, and auto is as fast as may be.
func TestPrecision(t *testing.T) {
	for _, tt := range []struct {
		o    Options
		want Precision
	}{
		{Options{}, PrecisionF32},
		{Options{Precision: PrecisionBF16, Portable: true}, PrecisionBF16},
		{Options{Precision: PrecisionAuto, Portable: true}, PrecisionF32},
	} {
		if got := New(tt.o).Precision(); got != tt.want {
			t.Errorf("%+v: %v, want %v", tt.o, got, tt.want)
		}
	}
	auto := New(Options{Precision: PrecisionAuto})
	if fast := auto.Kernels() == "avx512bf16"; fast != (auto.Precision() == PrecisionBF16) {
		t.Errorf("auto is %v with the kernels %s", auto.Precision(), auto.Kernels())
	}
	for _, p := range []Precision{PrecisionF32, PrecisionAuto, PrecisionBF16} {
		if got, err := ParsePrecision(p.String()); err != nil || got != p {
			t.Errorf("ParsePrecision(%q) = %v, %v", p, got, err)
		}
	}
	if _, err := ParsePrecision("fp16"); err == nil {
		t.Error("fp16 is no precision")
	}
}
