//go:build cuda && cgo

package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/node/internal/tensor"
)

// shape is the size of a product, with k2 for the second pair.
type shape struct{ m, n, k, k2 int }

// The naive product is the oracle; sums are made in float64.
func naive(c, a, b, a2, b2 tensor.Mat, transA, transB bool, alpha float32, bias tensor.Mat, add bool) {
	at := func(m tensor.Mat, trans bool, i, j int) float64 {
		if trans {
			i, j = j, i
		}
		return float64(m.HostRow(i)[j])
	}
	depth := func(m tensor.Mat) int {
		if m.None() {
			return 0
		}
		if transA {
			return m.Rows
		}
		return m.Cols
	}
	for i := range c.Rows {
		for j := range c.Cols {
			var s float64
			for l := range depth(a) {
				s += at(a, transA, i, l) * at(b, transB, l, j)
			}
			for l := range depth(a2) {
				s += at(a2, transA, i, l) * at(b2, transB, l, j)
			}
			s *= float64(alpha)
			if !bias.None() {
				s += float64(bias.HostRow(0)[j])
			}
			if add {
				s += float64(c.HostRow(i)[j])
			}
			c.HostRow(i)[j] = float32(s)
		}
	}
}

func turned(trans bool, rows, cols int) (int, int) {
	if trans {
		return cols, rows
	}
	return rows, cols
}

// productTest is one product in both places.
type productTest struct {
	shape
	transA, transB, add, bias, exact, weights bool
	double                                    bool // quantisation, of weights
	alpha                                     float32
}

func (tt productTest) String() string {
	s := fmt.Sprintf("%dx%dx%d", tt.m, tt.n, tt.k)
	if tt.k2 > 0 {
		s += fmt.Sprintf("+%d", tt.k2)
	}
	for _, f := range []struct {
		set  bool
		name string
	}{{tt.transA, " transA"}, {tt.transB, " transB"}, {tt.add, " add"}, {tt.bias, " bias"}, {tt.exact, " exact"}, {tt.weights, " nf4"}} {
		if f.set {
			s += f.name
		}
	}
	return s
}

// run computes the product on the device and compares it with the oracle. It
// returns the device's values.
func (tt productTest) run(l *lab) []float32 {
	l.t.Helper()
	var p product
	var hold []operand
	matrix := func(rows, cols int) operand {
		o := l.matrix(rows, cols)
		hold = append(hold, o)
		return o
	}
	defer func() {
		for _, o := range hold {
			o.free()
		}
	}()
	ar, ac := turned(tt.transA, tt.m, tt.k)
	br, bc := turned(tt.transB, tt.k, tt.n)
	a, c := matrix(ar, ac), matrix(tt.m, tt.n)
	p = product{c: c.v, a: a.v, transA: tt.transA, transB: tt.transB, alpha: tt.alpha, add: tt.add, exact: tt.exact}
	var b, a2, b2, bias tensor.Mat
	if tt.weights {
		b = l.b.Alloc(br*bc).Mat(0, br, bc)
		w := randomNF4(l.t, l.r, br, bc, tt.double)
		w.Dequant(b.Host())
		m, err := l.d.uploadNF4(w)
		if err != nil {
			l.t.Fatal(err)
		}
		defer l.d.free(m.base)
		p.nf4 = m
		if l.d.plan(p).method != fma || (a.v.bf16 && !tt.exact) { // rounded for tensor cores
			for i, v := range b.Host() {
				b.Host()[i] = bf16Float(floatBF16(v))
			}
		}
	} else {
		o := matrix(br, bc)
		b, p.b = o.Mat, o.v
	}
	if tt.k2 > 0 {
		ar, ac := turned(tt.transA, tt.m, tt.k2)
		br, bc := turned(tt.transB, tt.k2, tt.n)
		o, q := matrix(ar, ac), matrix(br, bc)
		a2, b2, p.a2, p.b2 = o.Mat, q.Mat, o.v, q.v
	}
	if tt.bias {
		o := l.floats(1, tt.n)
		hold = append(hold, o)
		bias, p.bias = o.Mat, o.v
	}
	naive(c.Mat, a.Mat, b, a2, b2, tt.transA, tt.transB, tt.alpha, bias, tt.add)
	l.d.matMul(p)
	// Values are normal, so that a sum of k products is of size sqrt(k): what
	// float32 rounds away is some 1e-7 of that. A float32 matrix that is rounded
	// to bf16 for tensor cores costs 2^-9 of each product.
	tolerance := 2e-6 * math.Sqrt(float64(tt.k+tt.k2)+1)
	if l.d.plan(p).method != fma && !strings.HasPrefix(l.name, "bfloat16") {
		tolerance += math.Sqrt(float64(tt.k+tt.k2)) / 128
	}
	c.check(tt.String(), tolerance)
	return c.values()
}

func randomNF4(t testing.TB, r *rand.Rand, rows, cols int, double bool) *nf4.Weight {
	t.Helper()
	src := make([]float32, rows*cols)
	for i := range src {
		src[i] = float32(r.NormFloat64())
	}
	w, err := nf4.New(src, rows, cols)
	if err != nil {
		t.Fatal(err)
	}
	if !double {
		w.Nested = nil
		w.Scales = make([]float32, nf4.Blocks(len(src), w.BlockSize))
		if err := nf4.Quantize(w.Packed, w.Scales, src, w.BlockSize); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// transpositions calls fn with all four.
func transpositions(fn func(a, b bool)) {
	for i := range 4 {
		fn(i&1 != 0, i&2 != 0)
	}
}

func TestProducts(t *testing.T) {
	eachType(t, func(l *lab) {
		for _, s := range []shape{
			{1, 1, 1, 0},
			{3, 5, 7, 0},
			{17, 33, 31, 0},
			{64, 64, 32, 0},
			{65, 70, 100, 0},
			{130, 20, 40, 0}, // tall
			{9, 140, 48, 0},  // wide
			{20, 24, 600, 0}, // split
			{66, 72, 33, 5},
			{40, 136, 64, 16},
		} {
			transpositions(func(a, b bool) {
				for i := range 2 {
					productTest{shape: s, transA: a, transB: b, alpha: 1 - float32(i)*0.75, add: i == 1, bias: i == 0 && !a}.run(l)
				}
			})
		}
		productTest{shape: shape{40, 40, 0, 0}, transB: true, alpha: 1}.run(l)
		productTest{shape: shape{40, 40, 0, 0}, transB: true, alpha: 1, add: true}.run(l)
	})
}

// With one multiprocessor a few tiles are enough for the large kernels.
func TestLargeTiles(t *testing.T) {
	t.Setenv("MOOT_EMU_SMS", "1")
	eachType(t, func(l *lab) {
		transpositions(func(a, b bool) {
			productTest{shape: shape{129, 136, 72, 8}, transA: a, transB: b, alpha: 0.5, add: true}.run(l)
		})
	})
}

// Equal values give equal bits, whatever the types that hold them.
func TestExactProducts(t *testing.T) {
	eachCapability(t, func(t *testing.T, d *device) {
		var want []float32
		for _, kind := range types {
			l := newLab(t, d, kind, false)
			half := l.halves
			l.halves = func() bool { return false }
			c := l.matrix(70, 66)
			l.r = rand.New(rand.NewPCG(5, 6))
			l.halves = half
			round := func(o operand) operand {
				i := 0
				return o.set(func(int) float32 { i++; return float32(i*37%101-50) / 8 })
			}
			a, b := round(l.matrix(70, 200)), round(l.matrix(66, 200))
			d.matMul(product{c: c.v, a: a.v, b: b.v, transB: true, exact: true})
			got := make([]float32, 70*66)
			d.toHost2D(bytesOf(got), c.v)
			if want == nil {
				want = got
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s matrices give other bits than float32 ones", kind)
			}
		}
		d.release()
	})
}

func TestNF4Products(t *testing.T) {
	for _, double := range []bool{false, true} {
		eachType(t, func(l *lab) {
			for _, s := range []shape{{1, 64, 64, 0}, {16, 40, 160, 8}, {5, 33, 544, 0}, {40, 72, 96, 16}, {3, 20, 21, 0}} {
				for _, trans := range []bool{true, false} {
					productTest{shape: s, transB: trans, alpha: 1, weights: true, double: double, bias: trans}.run(l)
				}
			}
			productTest{shape: shape{12, 64, 64, 0}, transB: true, alpha: 2, weights: true, add: true, exact: l.name[0] == 'f'}.run(l)
		})
	}
}

// The values of package nf4, to the bit.
func TestDequant(t *testing.T) {
	eachCapability(t, func(t *testing.T, d *device) {
		r := rand.New(rand.NewPCG(1, 2))
		for _, double := range []bool{false, true} {
			for _, s := range [][2]int{{1, 1}, {3, 7}, {5, 64}, {33, 100}, {16, 1032}, {257, 65}, {64, 512}} {
				w := randomNF4(t, r, s[0], s[1], double)
				want := make([]float32, w.Len())
				w.Dequant(want)
				m, err := d.uploadNF4(w)
				if err != nil {
					t.Fatal(err)
				}
				for _, extra := range []int{0, 3, 8} {
					for _, half := range []bool{false, true} {
						v := view{rows: s[0], cols: s[1], stride: blocks(s[1], 8)*8 + extra, bf16: half}
						if v.ptr, err = d.alloc(v.rows * v.stride * 4); err != nil {
							t.Fatal(err)
						}
						d.dequant(v, m)
						got := make([]float32, v.rows*v.stride)
						if half {
							for i, x := range read[uint16](t, d, v.ptr, len(got)) {
								got[i] = bf16Float(x)
							}
						} else {
							copy(got, read[float32](t, d, v.ptr, len(got)))
						}
						for i, x := range want {
							if half {
								x = bf16Float(floatBF16(x))
							}
							if got := got[i/v.cols*v.stride+i%v.cols]; math.Float32bits(got) != math.Float32bits(x) {
								t.Fatalf("value %d of %v, double %v, 16 bits %v, is %v, want %v", i, s, double, half, got, x)
							}
						}
						d.free(v.ptr)
					}
				}
				d.free(m.base)
			}
		}
		d.release()
	})
}

// The order in which threads and blocks run does not show in the results.
func TestProductsAreDeterministic(t *testing.T) {
	var want [][]float32
	for _, seed := range []string{"0", "1", "2", "3"} {
		t.Setenv("MOOT_EMU_SEED", seed)
		var got [][]float32
		eachCapability(t, func(t *testing.T, d *device) {
			l := newLab(t, d, "bfloat16", false)
			for _, s := range []shape{{20, 24, 600, 0}, {70, 70, 100, 9}, {140, 16, 1100, 0}} {
				got = append(got, productTest{shape: s, transA: true, alpha: 1}.run(l))
			}
			d.release()
		})
		if want == nil {
			want = got
		}
		for i := range got {
			if !slices.Equal(got[i], want[i]) {
				t.Fatalf("product %d differs with seed %s", i, seed)
			}
		}
	}
}

// fp16 on sm_75 has a range of 2^30: values of any size work, because they are
// scaled.
func TestHalfRange(t *testing.T) {
	t.Setenv("MOOT_EMU_CC", "7.5")
	d := openDevice(t)
	if d.capability >= 80 {
		t.Skip("a device with bf16")
	}
	l := newLab(t, d, "bfloat16", false)
	l.halves = func() bool { return true }
	for _, size := range [][2]float32{{1e30, 1e-30}, {3e-20, 1e-9}, {7e4, 9e5}, {0, 1}, {1e-38, 1e20}} {
		a, b := l.matrix(33, 40), l.matrix(20, 40)
		a.set(func(i int) float32 { return size[0] * float32(i*29%101-50) })
		b.set(func(i int) float32 { return size[1] * float32(i*31%97-48) })
		c := l.floats(33, 20)
		var largest float64
		naive(c.Mat, a.Mat, b.Mat, tensor.Mat{}, tensor.Mat{}, false, true, 1, tensor.Mat{}, false)
		for _, v := range c.Host() {
			largest = max(largest, math.Abs(float64(v)))
		}
		d.matMul(product{c: c.v, a: a.v, b: b.v, transB: true})
		c.check(fmt.Sprintf("sizes %g and %g", size[0], size[1]), 1e-5*largest)
	}
	// A NaN or an infinity is not lost.
	a, b, c := l.matrix(33, 40), l.matrix(20, 40), l.floats(33, 20)
	a.set(func(i int) float32 {
		if i == 5 {
			return float32(math.Inf(1))
		}
		return 1
	})
	d.matMul(product{c: c.v, a: a.v, b: b.v, transB: true})
	if v := read[float32](t, d, c.v.ptr, 1)[0]; !math.IsInf(float64(v), 0) && !math.IsNaN(float64(v)) {
		t.Errorf("an infinity became %v", v)
	}
	d.release()
}

// TestPlans: each shape gets the kernel that was made for it.
func TestPlans(t *testing.T) {
	t.Setenv("MOOT_EMU_SMS", "40")
	d := openDevice(t)
	v := func(rows, cols int) view { return view{ptr: 1 << 20, rows: rows, cols: cols, stride: cols, bf16: true} }
	for _, tt := range []struct {
		p      product
		kernel string
		split  bool
	}{
		{product{c: v(2048, 4096), a: v(2048, 4096), b: v(4096, 4096), transB: true}, "large", false},
		{product{c: v(2048, 16), a: v(2048, 4096), b: v(16, 4096), transB: true}, "tall", true},     // x A^T
		{product{c: v(4096, 16), a: v(2048, 4096), b: v(2048, 16), transA: true}, "tall", true},     // dB
		{product{c: v(16, 4096), a: v(2048, 16), b: v(2048, 4096), transA: true}, "wide", true},     // dA
		{product{c: v(128, 4096), a: v(128, 4096), b: v(4096, 4096), transB: true}, "small", false}, // few tokens
	} {
		g := d.plan(tt.p)
		if !strings.Contains(g.kernel, tt.kernel) || (g.splits > 1) != tt.split {
			t.Errorf("(%d,%d) by K %d: kernel %s, %d parts; want %s, split %v", g.rows, g.cols, g.k, g.kernel, g.splits, tt.kernel, tt.split)
		}
		if g.splits > 1 && (g.splits-1)*g.per*g.tiling.k >= g.k {
			t.Errorf("(%d,%d) by K %d: the last of %d parts is empty", g.rows, g.cols, g.k, g.splits)
		}
	}
}

// A sum is split so that one part begins within the second pair.
func TestSplitInTheSecondPair(t *testing.T) {
	t.Setenv("MOOT_EMU_SMS", "40")
	t.Setenv("MOOT_EMU_SEED", "5")
	eachCapability(t, func(t *testing.T, d *device) {
		for _, kind := range []string{"float32", "bfloat16"} {
			l := newLab(t, d, kind, false)
			productTest{shape: shape{20, 24, 300, 900}, transB: true, alpha: 0.5, bias: true}.run(l)
			productTest{shape: shape{20, 24, 520, 600}, transA: true, alpha: 1, add: true}.run(l)
		}
		d.release()
	})
}

// A matrix that tensor cores cannot read as it is, is copied.
func TestPack(t *testing.T) {
	eachType(t, func(l *lab) {
		v := l.matrix(9, 21)
		p, err := l.d.alloc(9 * 24 * 2)
		if err != nil {
			l.t.Fatal(err)
		}
		got := l.d.fillPanel(p, panel{ld: 24, bytes: 9 * 24 * 2}, v.v)
		for i, x := range read[uint16](l.t, l.d, got.ptr, 9*24) {
			var want uint16 // zero, behind the columns
			if i%24 < 21 {
				want = floatBF16(v.Host()[i/24*21+i%24])
			}
			if x != want {
				l.t.Fatalf("value (%d,%d) is %#x, want %#x", i/24, i%24, x, want)
			}
		}
		l.d.free(p)
		v.free()
	})
}

// The scale of fp16 brings the largest magnitude of two matrices to 2^14.
func TestScale(t *testing.T) {
	eachCapability(t, func(t *testing.T, d *device) {
		l := newLab(t, d, "bfloat16", true)
		at := l.scratch((scaleParts + 1) * 4)
		for _, place := range []int{0, 1, 63*700 - 1, 63 * 700, 63*700 + 5} {
			v, w := l.matrix(63, 700), l.matrix(5, 3)
			v.set(func(i int) float32 { return map[bool]float32{true: -3e-3, false: 1e-4}[i == place] })
			w.set(func(i int) float32 { return map[bool]float32{true: -3e-3, false: 1e-4}[i+63*700 == place] })
			d.findScale(at, v.v, w.v)
			if got := read[float32](t, d, at, 1)[0]; 3e-3*got < 1<<14 || 3e-3*got >= 1<<15 {
				t.Errorf("with the largest value at %d the scale is %g", place, got)
			}
		}
		d.release()
	})
}
