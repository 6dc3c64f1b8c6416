//go:build !lean

package fold

import (
	"flag"
	"fmt"
	"math"
	"math/big"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestMain makes the draws of rapid the same in every run, unless told
// otherwise (-rapid.seed).
func TestMain(m *testing.M) {
	flag.Parse()
	for name, value := range map[string]string{"rapid.seed": "1", "rapid.nofailfile": "true"} {
		if f := flag.Lookup(name); f.Value.String() == f.DefValue {
			if err := f.Value.Set(value); err != nil {
				panic(err)
			}
		}
	}
	os.Exit(m.Run())
}

// drawLayout draws one to four tensors with chunks of every kind.
func drawLayout(t *rapid.T) *Layout {
	n := rapid.IntRange(1, 4).Draw(t, "tensors")
	var tensors []Tensor
	for i := range n {
		tensors = append(tensors, Tensor{
			Name: fmt.Sprintf("t%d", i),
			Rows: rapid.SampledFrom([]int{1, 2, 3, 7, 4096, 4097}).Draw(t, "rows"),
			Cols: rapid.SampledFrom([]int{1, 2}).Draw(t, "cols"),
		})
	}
	l, err := NewLayout(tensors)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func drawBits(t *rapid.T) int { return rapid.SampledFrom([]int{1, 2, 4, 8}).Draw(t, "bits") }

// drawDelta draws values of a spread from nothing to the whole range.
func drawDelta(t *rapid.T, l *Layout, bits int) *Delta {
	sigma := int64(1) << rapid.IntRange(0, 30).Draw(t, "spread")
	b, err := Encode(l, bits, randomValues(l, rapid.Uint64().Draw(t, "seed"), sigma), nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Decode(l, b)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func drawInputs(t *rapid.T, l *Layout) []Input {
	var inputs []Input
	for range rapid.IntRange(1, 9).Draw(t, "inputs") {
		inputs = append(inputs, Input{
			Delta:     drawDelta(t, l, drawBits(t)),
			Tokens:    1 + rapid.Uint64Max(1<<rapid.IntRange(1, 40).Draw(t, "token bits")-1).Draw(t, "tokens"),
			FactorQ16: rapid.SampledFrom([]uint32{FactorFull, FactorFull, FactorStale, FactorFresh}).Draw(t, "factor"),
		})
	}
	return inputs
}

// Law: the state depends on neither the order of the inputs nor the number of
// goroutines, and what happened to an input not on where it stood.
func TestLawOrder(t *testing.T) {
	l := smallLayout(t)
	prev := randomState(l, 9)
	var inputs []Input
	for k := range uint64(11) {
		factor := []uint32{FactorFull, FactorFull, FactorStale, FactorFresh}[k%4]
		inputs = append(inputs, input(t, l, 1<<(k%4), k, 1000<<k, 100+k*k*50, factor))
	}
	state, applied, err := foldOn(1, prev, inputs, outerStep)
	if err != nil {
		t.Fatal(err)
	}
	want := state.CID()
	order := make([]int, len(inputs))
	for i := range order {
		order[i] = i
	}
	r := prng(1)
	for range 1000 {
		for i := len(order) - 1; i > 0; i-- {
			j := int(r.next() % uint64(i+1))
			order[i], order[j] = order[j], order[i]
		}
		permuted := make([]Input, len(inputs))
		for to, from := range order {
			permuted[to] = inputs[from]
		}
		workers := int(1 + r.next()%32)
		state, became, err := foldOn(workers, prev, permuted, outerStep)
		if err != nil {
			t.Fatal(err)
		}
		if got := state.CID(); got != want {
			t.Fatalf("order %v on %d goroutines: state %v, want %v", order, workers, got, want)
		}
		for to, from := range order {
			if became[to] != applied[from] {
				t.Fatalf("order %v: input %d became %v, was %v", order, from, became[to], applied[from])
			}
		}
	}
}

// Law: so many copies of one delta move the state by that delta exactly.
func TestLawIdentical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLayout(t)
		d := drawDelta(t, l, drawBits(t))
		var inputs []Input
		for range rapid.IntRange(1, 6).Draw(t, "copies") {
			inputs = append(inputs, Input{d, 1 + rapid.Uint64Max(1<<40-1).Draw(t, "tokens"), FactorFull})
		}
		next, _, err := Fold(NewState(l), inputs, Outer{One, 0})
		if err != nil {
			t.Fatal(err)
		}
		values := make([]int32, l.params)
		d.Values(values)
		for j, v := range values {
			if next.Theta[j] != -v {
				t.Fatalf("value %d moved by %d, want %d", j, -next.Theta[j], v)
			}
		}
	})
}

// Law: deltas of equal norms are not clipped, and the mean is the exact
// weighted mean, rounded down.
func TestLawWeightedMean(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLayout(t)
		bits := drawBits(t)
		s := nearestScale(int64(rapid.IntRange(1, 1<<23).Draw(t, "scale")), bits)
		scales := slices.Repeat([]scale{s}, len(l.chunks))
		var inputs []Input
		var weights, signs []int64
		total := int64(0)
		for range rapid.IntRange(1, 12).Draw(t, "inputs") {
			sign := int64(1 - 2*rapid.IntRange(0, 1).Draw(t, "sign"))
			code := codeOf(bits, sign*maxCode(bits))
			d, err := Decode(l, rawDelta(l, bits, scales, slices.Repeat([]uint8{code}, len(l.chunks))))
			if err != nil {
				t.Fatal(err)
			}
			w := int64(rapid.IntRange(1000, 2000).Draw(t, "tokens")) // none above twice the median
			inputs = append(inputs, Input{d, uint64(w), FactorFull})
			weights, signs, total = append(weights, w), append(signs, sign), total+w
		}
		next, applied, err := Fold(NewState(l), inputs, Outer{One, 0})
		if err != nil {
			t.Fatal(err)
		}
		sum := int64(0)
		for i, a := range applied {
			if a != (Applied{uint64(weights[i]), One}) {
				t.Fatalf("input %d became %v, want its tokens, unclipped", i, a)
			}
			sum += weights[i] * signs[i] * maxCode(bits) * s.value()
		}
		want := int32(floorDiv(big.NewInt(sum), big.NewInt(total)))
		for j, v := range next.Theta {
			if v != -want {
				t.Fatalf("value %d moved by %d, want %d", j, -v, want)
			}
		}
	})
}

// Law: whatever fewer than half of the peers send, the mean is not longer than
// the longest delta of the others, as a whole and in each tensor, and in each
// chunk no value is farther out than 8 times the farthest of the others.
func TestLawClip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLayout(t)
		var inputs []Input
		var longest uint64
		tensors := make([]uint64, len(l.tensors))
		reach := make([]int64, len(l.chunks))
		honest := rapid.IntRange(1, 6).Draw(t, "honest")
		for range honest {
			d := drawDelta(t, l, drawBits(t))
			inputs = append(inputs, Input{d, 1000, FactorFull})
			longest = max(longest, d.Norm())
			for i, n := range d.TensorNorms() {
				tensors[i] = max(tensors[i], n)
			}
			for i, s := range d.scales {
				reach[i] = max(reach[i], s*maxCode(d.bits))
			}
		}
		for range rapid.IntRange(0, honest-1).Draw(t, "liars") {
			bits := drawBits(t)
			var scales []scale
			var codes []uint8
			for range l.chunks {
				scales = append(scales, nearestScale(maxValue, bits))
				codes = append(codes, codeOf(bits, maxCode(bits)))
			}
			d, err := Decode(l, rawDelta(l, bits, scales, codes))
			if err != nil {
				t.Fatal(err)
			}
			inputs = append(inputs, Input{d, MaxInputTokens, FactorFull})
		}
		next, _, err := Fold(NewState(l), inputs, Outer{One, 0})
		if err != nil {
			t.Fatal(err)
		}
		norm := func(values []int32) float64 {
			sum := 0.0
			for _, v := range values {
				sum += float64(v) * float64(v)
			}
			return math.Sqrt(sum)
		}
		// Norms are rounded down, the mean is, and scales are by 2^-8.
		slack := func(n int) float64 { return 2 + 3*math.Sqrt(float64(n)) }
		if got := norm(next.Theta); got > float64(longest)+slack(l.params) {
			t.Fatalf("the mean has norm %.0f, the longest honest delta %d", got, longest)
		}
		for i, tensor := range l.tensors {
			n := tensor.Rows * tensor.Cols
			if got := norm(next.Theta[l.offsets[i]:][:n]); got > float64(tensors[i])+slack(n) {
				t.Fatalf("tensor %d of the mean has norm %.0f, of the longest honest delta %d", i, got, tensors[i])
			}
		}
		for i, c := range l.chunks {
			for _, v := range next.Theta[c.start:][:c.n] {
				if v := int64(v); v > 8*reach[i]+1 || v < -8*reach[i]-1 {
					t.Fatalf("chunk %d has %d, honest deltas reach to %d", i, v, reach[i])
				}
			}
		}
	})
}

// Law: Fold is the specification, on drawn inputs.
func TestLawOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLayout(t)
		prev := &State{l, randomValues(l, 1, 1<<rapid.IntRange(0, 30).Draw(t, "theta")), randomValues(l, 2, 1<<rapid.IntRange(0, 30).Draw(t, "momentum"))}
		inputs := drawInputs(t, l)
		outer := Outer{uint32(rapid.IntRange(0, MaxLearningRateQ16).Draw(t, "lr")), uint32(rapid.IntRange(0, MaxMomentumQ16).Draw(t, "mu"))}
		want, wantApplied := naiveFold(prev, inputs, outer)
		got, applied, err := Fold(prev, inputs, outer)
		if err != nil {
			t.Fatal(err)
		}
		if !same(got, want) || !slices.Equal(applied, wantApplied) {
			t.Fatal("the state is not that of the specification")
		}
	})
}

// Law: with error feedback the sum of what was sent follows the sum of what was
// meant: each round can lose a twentieth of the residual, no more. The worst
// case for a codec without memory is that every round moves each parameter by
// the same, a tenth of it noise.
func TestLawErrorFeedback(t *testing.T) {
	l := smallLayout(t)
	for _, tt := range []struct {
		bits    int
		bound   float64 // error of the sum, relative; measured 0.164, 0.055, 0.0165, 0.00015
		without float64 // without feedback at least; measured 0.55, 0.27, 0.041, 0.0011
	}{
		{1, 0.20, 0.50},
		{2, 0.07, 0.25},
		{4, 0.02, 0.035},
		{8, 0.0003, 0.0008},
	} {
		got := sumError(t, l, tt.bits, make([]int32, l.params))
		if got > tt.bound {
			t.Errorf("%d bits: the sum is off by %.5f, want at most %.5f", tt.bits, got, tt.bound)
		}
		if plain := sumError(t, l, tt.bits, nil); plain < tt.without {
			t.Errorf("%d bits: without feedback the sum is off by %.5f only; the test proves nothing", tt.bits, plain)
		}
	}
}

// sumError returns the relative error of the sum of 60 rounds.
func sumError(t *testing.T, l *Layout, bits int, residual []int32) float64 {
	drift := randomValues(l, 3, 60000)
	sent, meant := make([]float64, l.params), make([]float64, l.params)
	decoded := make([]int32, l.params)
	for round := range uint64(60) {
		values := randomValues(l, 100+round, 6000)
		for j := range values {
			values[j] += drift[j]
			meant[j] += float64(values[j])
		}
		b, err := Encode(l, bits, values, residual)
		if err != nil {
			t.Fatal(err)
		}
		mustDecode(t, l, b).Values(decoded)
		for j, v := range decoded {
			sent[j] += float64(v)
		}
	}
	return distance(sent, meant)
}

// distance returns the norm of a - b relative to that of b.
func distance(a, b []float64) float64 {
	var d, n float64
	for j := range a {
		d += (a[j] - b[j]) * (a[j] - b[j])
		n += b[j] * b[j]
	}
	return math.Sqrt(d / n)
}
