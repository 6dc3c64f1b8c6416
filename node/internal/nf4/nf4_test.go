package nf4

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestNearest compares the table with a search of all codes, on every float32
// around the limits and on random ones.
func TestNearest(t *testing.T) {
	slow := func(x float32) uint8 {
		best := 0
		for i, c := range Code {
			if abs(x-c) < abs(x-Code[best]) {
				best = i
			}
		}
		return uint8(best)
	}
	check := func(x float32) {
		if got, want := nearest(x), slow(x); got != want {
			t.Fatalf("nearest(%v) = %d, want %d", x, got, want)
		}
	}
	for _, l := range limits[:15] {
		lo, hi := l, l
		for range 100 {
			check(lo)
			check(hi)
			lo, hi = math.Nextafter32(lo, -2), math.Nextafter32(hi, 2)
		}
	}
	for i := range 65 {
		check(float32(i)/32 - 1)
	}
	check(math.Nextafter32(1, 2))
	check(math.Nextafter32(-1, -2))
	r := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		check(float32(2*r.Float64() - 1))
	}
}

func TestNearestScale(t *testing.T) {
	slow := func(x float32) uint8 {
		best := 0
		for i, c := range DynamicMap {
			if abs(x-c) < abs(x-DynamicMap[best]) {
				best = i
			}
		}
		return uint8(best)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 50_000 {
		x := float32(2*r.Float64() - 1)
		switch i % 3 {
		case 1:
			x *= float32(math.Pow(10, -7*r.Float64()))
		case 2: // between two neighbours, exactly or nearly
			j := r.IntN(255)
			x = (DynamicMap[j] + DynamicMap[j+1]) / 2
			x = math.Float32frombits(math.Float32bits(x) + uint32(r.IntN(3)) - 1)
		}
		if got, want := nearestScale(x), slow(max(-1, min(1, x))); got != want {
			t.Fatalf("nearestScale(%v) = %d, want %d", x, got, want)
		}
	}
}

// TestSum: the order of additions is another one, the sum is right, and small
// errors do not add up.
func TestSum(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{0, 1, 7, 8, 31, 32, 33, 511, 4096, 70_001, 1 << 21} {
		v := make([]float32, n)
		want := 0.0
		for i := range v {
			v[i] = r.Float32()
			want += float64(v[i])
		}
		if got := float64(sum(v)); math.Abs(got-want) > 1e-6*want {
			t.Errorf("sum of %d numbers is %v, want %v", n, got, want)
		}
	}
}

// TestStatistics checks the errors on normal numbers against those that
// bitsandbytes' own tests expect.
func TestStatistics(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	src := make([]float32, 1<<20)
	for i := range src {
		src[i] = float32(r.NormFloat64())
	}
	for _, tt := range []struct {
		block int
		want  float64
	}{{32, 0.067746}, {64, 0.072798}, {128, 0.076831}, {256, 0.080326}} {
		w := &Weight{Rows: 1024, Cols: 1024, BlockSize: tt.block, Packed: make([]byte, len(src)/2), Code: Code, Scales: make([]float32, len(src)/tt.block)}
		if err := Quantize(w.Packed, w.Scales, src, tt.block); err != nil {
			t.Fatal(err)
		}
		got := make([]float32, len(src))
		w.Dequant(got)
		sum := 0.0
		for i := range src {
			sum += math.Abs(float64(src[i] - got[i]))
		}
		if e := sum / float64(len(src)); math.Abs(e-tt.want) > 3e-4 {
			t.Errorf("blocks of %d: mean error %.6f, want %.6f", tt.block, e, tt.want)
		}
	}
}

// TestRanges: any range gives what dequantising everything gives there.
func TestRanges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rows, cols := rapid.IntRange(1, 20).Draw(rt, "rows"), rapid.IntRange(1, 100).Draw(rt, "cols")
		src := make([]float32, rows*cols)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		for i := range src {
			src[i] = float32(r.NormFloat64())
		}
		w, err := New(src, rows, cols)
		if err != nil {
			rt.Fatal(err)
		}
		all := make([]float32, len(src))
		w.Dequant(all)
		from := rapid.IntRange(0, len(src)).Draw(rt, "from")
		to := rapid.IntRange(from, len(src)).Draw(rt, "to")
		got := make([]float32, to-from+1)
		got[to-from] = 7
		w.DequantRange(got, from, to)
		if !slices.Equal(got[:to-from], all[from:to]) || got[to-from] != 7 {
			rt.Fatalf("range %d to %d differs from the whole, or more was written", from, to)
		}
	})
}

// TestPinned: the bytes for a weight large enough for sums of sums of sums, on
// every processor.
func TestPinned(t *testing.T) {
	src := make([]float32, 1<<21+67)
	r := rand.New(rand.NewPCG(7, 8))
	for i := range src {
		src[i] = float32(int32(r.Uint32())>>r.IntN(8)) / (1 << 30)
	}
	w, err := New(src, 1, len(src))
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	h.Write(w.Packed)
	h.Write(w.Nested.Q)
	if err := binary.Write(h, binary.LittleEndian, append(w.Nested.Scales, w.Nested.Offset)); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%x", h.Sum(nil)), "e4e5b3158611645606767e50a162e6878a246d417a75aa3c689637f1ea6b255d"; got != want {
		t.Errorf("the bytes have hash %s, want %s", got, want)
	}
}

func TestExtremes(t *testing.T) {
	tiny := math.Float32frombits(1)
	w, err := New([]float32{tiny, -tiny, 0}, 1, 3)
	if err != nil || w.Packed[0] != highest<<4|lowest || w.Packed[1]>>4 != zero {
		t.Errorf("subnormal numbers are packed as %x (%v)", w.Packed, err)
	}
	top := float32(math.MaxFloat32)
	if w, err = New([]float32{top, -top}, 1, 2); err != nil || w.Packed[0] != highest<<4|lowest {
		t.Errorf("the largest numbers are packed as %x (%v)", w.Packed, err)
	}
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if _, err := New([]float32{1, float32(bad)}, 1, 2); !errors.Is(err, ErrNotFinite) {
			t.Errorf("a weight of %v gave %v", bad, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for name, edit := range map[string]func(w *Weight){
		"rows":         func(w *Weight) { w.Rows = 3 },
		"no columns":   func(w *Weight) { w.Cols = 0 },
		"huge":         func(w *Weight) { w.Rows, w.Cols = math.MaxInt, math.MaxInt },
		"packed":       func(w *Weight) { w.Packed = w.Packed[1:] },
		"block size":   func(w *Weight) { w.BlockSize = 63 },
		"code":         func(w *Weight) { w.Code[3] = float32(math.NaN()) },
		"scales":       func(w *Weight) { w.Nested.Q = w.Nested.Q[1:] },
		"nested":       func(w *Weight) { w.Nested.Scales = nil },
		"nested block": func(w *Weight) { w.Nested.BlockSize = 0 },
		"offset":       func(w *Weight) { w.Nested.Offset = float32(math.Inf(1)) },
		"plain scales": func(w *Weight) { w.Nested, w.Scales = nil, []float32{1} },
		"plain NaN":    func(w *Weight) { w.Nested, w.Scales = nil, []float32{1, float32(math.NaN())} },
	} {
		w, err := New(make([]float32, 128), 2, 64)
		if err != nil || w.Validate() != nil {
			t.Fatalf("%v, %v", err, w.Validate())
		}
		if edit(w); w.Validate() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestAllocations(t *testing.T) {
	src := make([]float32, 4096)
	for i := range src {
		src[i] = float32(i%97) - 48
	}
	w, err := New(src, 64, 64)
	if err != nil {
		t.Fatal(err)
	}
	scales := make([]float32, 64)
	if n := testing.AllocsPerRun(10, func() {
		w.DequantRange(src, 100, 1000)
		if Quantize(w.Packed, scales, src, BlockSize) != nil {
			t.Fatal("not quantised")
		}
		QuantizeScales(w.Nested.Q, w.Nested.Scales, scales)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkNF4(b *testing.B) {
	src := make([]float32, 1<<20)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range src {
		src[i] = float32(r.NormFloat64())
	}
	w, err := New(src, 1024, 1024)
	if err != nil {
		b.Fatal(err)
	}
	scales := make([]float32, len(src)/BlockSize)
	b.Run("quantise", func(b *testing.B) {
		b.SetBytes(int64(4 * len(src)))
		for b.Loop() {
			if err := Quantize(w.Packed, scales, src, BlockSize); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, n := range []int{64, 1024, len(src)} {
		b.Run(fmt.Sprintf("dequantise/%d", n), func(b *testing.B) {
			b.SetBytes(int64(4 * len(src)))
			for b.Loop() {
				for at := 0; at < len(src); at += n {
					w.DequantRange(src, at, at+n)
				}
			}
		})
	}
}
