package fold

import (
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// input makes an input of random values with the given spread.
func input(t testing.TB, l *Layout, bits int, seed uint64, sigma int64, tokens uint64, factor uint32) Input {
	t.Helper()
	return Input{mustDecode(t, l, mustEncode(t, l, bits, randomValues(l, seed, sigma))), tokens, factor}
}

func same(a, b *State) bool {
	return slices.Equal(a.Theta, b.Theta) && slices.Equal(a.Momentum, b.Momentum)
}

// TestFoldOracle compares Fold with the specification, on ordinary rounds and
// on the worst that the decoder lets through.
func TestFoldOracle(t *testing.T) {
	l := smallLayout(t)
	chunks := len(l.chunks)
	extreme := func(bits int, code uint8) *Delta {
		s := nearestScale(maxValue, bits)
		return mustDecode(t, l, rawDelta(l, bits, slices.Repeat([]scale{s}, chunks), slices.Repeat([]uint8{code}, chunks)))
	}
	zero := mustDecode(t, l, mustEncode(t, l, 2, make([]int32, l.params)))
	sparse := mustDecode(t, l, rawDelta(l, 2, []scale{{}, {100, 0}, {}, {7, 0}}, []uint8{0, 3, 0, 1}))
	tests := []struct {
		name   string
		inputs []Input
	}{
		{"one", []Input{input(t, l, 2, 1, 60000, 500, One)}},
		{"two, one much larger", []Input{
			input(t, l, 2, 1, 600, 500, One), input(t, l, 2, 2, 6_000_000, 500, One),
		}},
		{"five of the same codec", []Input{
			input(t, l, 2, 1, 60000, 500, One), input(t, l, 2, 2, 70000, 900, One), input(t, l, 2, 3, 50000, 100, One),
			input(t, l, 2, 4, 90000, 9000, FactorStale), input(t, l, 2, 5, 60000, 10, FactorFresh),
		}},
		{"all codecs", []Input{
			input(t, l, 1, 1, 60000, 500, One), input(t, l, 2, 2, 70000, 900, One), input(t, l, 4, 3, 50000, 100, One),
			input(t, l, 8, 4, 90000, 9000, One), input(t, l, 1, 5, 60000, 10, One), input(t, l, 4, 6, 10, 1, One),
		}},
		{"all fresh", []Input{input(t, l, 2, 1, 60000, 500, 0), input(t, l, 4, 2, 60000, 700, 0)}},
		{"one token, stale", []Input{input(t, l, 2, 1, 60000, 1, FactorStale)}},
		{"all zero", []Input{{zero, 10, One}, {zero, 20, One}}},
		{"zeros beside one that moved", []Input{{zero, 10, One}, {zero, 20, One}, input(t, l, 2, 2, 60000, 30, One)}},
		{"chunks of zero", []Input{{sparse, 10, One}, input(t, l, 2, 2, 60000, 30, One), input(t, l, 8, 3, 60000, 30, One)}},
		{"more tokens than the sum can hold", []Input{
			input(t, l, 2, 1, 60000, MaxInputTokens, One), input(t, l, 2, 2, 60000, MaxInputTokens, One),
			input(t, l, 2, 3, 60000, MaxInputTokens-1, One), input(t, l, 2, 4, 60000, 1, One),
		}},
		{"largest values, all up", []Input{
			{extreme(8, 127), MaxInputTokens, One},
			{extreme(4, 15), MaxInputTokens, One},
			{extreme(2, 3), MaxInputTokens, One},
			{extreme(1, 1), MaxInputTokens, One},
		}},
		{"largest values, all down", []Input{
			{extreme(8, 0x81), MaxInputTokens, One},
			{extreme(4, 0), MaxInputTokens, One},
			{extreme(2, 0), MaxInputTokens, One},
			{extreme(1, 0), MaxInputTokens, One},
		}},
	}
	for _, tt := range tests {
		for _, outer := range []Outer{outerStep, {One, 0}, {MaxLearningRateQ16, MaxMomentumQ16}, {0, 0}} {
			prev := randomState(l, 7)
			want, wantApplied := naiveFold(prev, tt.inputs, outer)
			got, applied, err := foldOn(2, prev, tt.inputs, outer)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			if diff := cmp.Diff(wantApplied, applied); diff != "" {
				t.Errorf("%s: applied (-want +got):\n%s", tt.name, diff)
			}
			if !same(got, want) {
				t.Errorf("%s, outer %v: the state is not that of the specification", tt.name, outer)
			}
		}
	}
}

// TestFoldSum has as many inputs as there may be, with everything at its
// maximum, of one sign: the sum must not overflow.
func TestFoldSum(t *testing.T) {
	l := newLayout(t, Tensor{"a", 1, 9})
	for _, bits := range []int{1, 2, 4, 8} {
		for _, top := range []int64{maxCode(bits), -maxCode(bits)} {
			s := nearestScale(maxValue, bits)
			d := mustDecode(t, l, rawDelta(l, bits, []scale{s}, []uint8{codeOf(bits, top)}))
			inputs := slices.Repeat([]Input{{d, MaxInputTokens, One}}, MaxInputs)
			next, _, err := Fold(NewState(l), inputs, Outer{One, 0})
			if err != nil {
				t.Fatal(err)
			}
			if want := int32(-top * s.value()); next.Theta[0] != want || next.Theta[8] != want {
				t.Errorf("%d bits: mean of %d times %d is %d", bits, MaxInputs, want, next.Theta[0])
			}
		}
	}
}

func TestFoldSaturates(t *testing.T) {
	l := newLayout(t, Tensor{"a", 1, 2})
	s := nearestScale(maxValue, 1)
	up := mustDecode(t, l, rawDelta(l, 1, []scale{s}, []uint8{1}))
	down := mustDecode(t, l, rawDelta(l, 1, []scale{s}, []uint8{0}))
	prev := &State{Layout: l, Theta: []int32{-maxValue, maxValue}, Momentum: []int32{maxValue, -maxValue}}
	for _, d := range []*Delta{up, down} {
		next, _, err := Fold(prev, []Input{{d, 1, One}}, Outer{MaxLearningRateQ16, MaxMomentumQ16})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range append(slices.Clone(next.Theta), next.Momentum...) {
			if v < -maxValue {
				t.Errorf("value %d is below the range", v)
			}
		}
		if _, err := UnmarshalState(l, next.Marshal()); err != nil {
			t.Error(err)
		}
	}
	next, _, err := Fold(prev, []Input{{up, 1, One}}, Outer{MaxLearningRateQ16, MaxMomentumQ16})
	if err != nil {
		t.Fatal(err)
	}
	if next.Theta[0] != -maxValue || next.Momentum[0] != maxValue {
		t.Errorf("theta %d, momentum %d, want both to stay at the end of the range", next.Theta[0], next.Momentum[0])
	}
}

func TestFoldWithoutInputs(t *testing.T) {
	prev := randomState(smallLayout(t), 1)
	next, applied, err := Fold(prev, nil, outerStep)
	if err != nil || next != prev || applied != nil {
		t.Errorf("Fold(prev, nil) = %p, %v, %v, want prev itself", next, applied, err)
	}
}

func TestFoldKeepsPrev(t *testing.T) {
	l := smallLayout(t)
	prev := randomState(l, 1)
	before := prev.CID()
	if _, _, err := Fold(prev, []Input{input(t, l, 2, 1, 60000, 5, One)}, outerStep); err != nil {
		t.Fatal(err)
	}
	if prev.CID() != before {
		t.Error("Fold changed the state it was given")
	}
}

func TestFoldRefuses(t *testing.T) {
	l, other := smallLayout(t), newLayout(t, Tensor{"a", 2, 2})
	good := input(t, l, 2, 1, 60000, 5, One)
	tests := []struct {
		name   string
		inputs []Input
		outer  Outer
		want   string
	}{
		{"no delta", []Input{{nil, 5, One}}, outerStep, "input 0: the delta is not of the layout"},
		{"other layout", []Input{good, input(t, other, 2, 1, 5, 5, One)}, outerStep, "input 1: the delta is not of the layout"},
		{"no tokens", []Input{{good.Delta, 0, One}}, outerStep, "tokens are 0, must be 1 to"},
		{"too many tokens", []Input{{good.Delta, MaxInputTokens + 1, One}}, outerStep, "tokens are 1099511627777, must be"},
		{"factor above 1", []Input{{good.Delta, 1, One + 1}}, outerStep, "factor is 65537, must be at most 65536"},
		{"too many", slices.Repeat([]Input{good}, MaxInputs+1), outerStep, "inputs are 1025, must be at most 1024"},
		{"learning rate", []Input{good}, Outer{MaxLearningRateQ16 + 1, 0}, "outer learning rate is 262145/65536"},
		{"momentum", []Input{good}, Outer{1, One}, "outer momentum is 65536/65536"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := Fold(NewState(l), tt.inputs, tt.outer); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Fold() = %v, want %q", err, tt.want)
			}
		})
	}
}

// TestNesterov compares a hundred steps with PyTorch's formula in floats.
func TestNesterov(t *testing.T) {
	const lr, mu = 45875.0 / One, 39322.0 / One
	theta, momentum := []int32{1 << 20}, []int32{0}
	ft, fm := float64(1<<20), 0.0
	r := prng(3)
	for range 100 {
		g := int64(r.normal(100_000))
		outerStep.step(theta, momentum, []int64{g})
		fm = mu*fm + float64(g)
		ft -= lr * (float64(g) + mu*fm)
	}
	if d := float64(theta[0]) - ft; d > 100 || d < -100 {
		t.Errorf("theta is %d after 100 steps, want %.0f within one unit each", theta[0], ft)
	}
}

func TestDivider(t *testing.T) {
	r := prng(5)
	for range 200_000 {
		d := (1 + r.next()%(1<<(1+r.next()%23))) << fractionBits
		d = min(d, 1<<31)
		limit := min(d<<31, 1<<62) - 1
		a := int64(r.next() % limit >> (r.next() % 60))
		for _, a := range []int64{a, -a, int64(limit), -int64(limit), 0, -1} {
			want := floorDiv(big.NewInt(a), new(big.Int).SetUint64(d))
			if got := newDivider(d).floor(a); got != want {
				t.Fatalf("%d / %d = %d, want %d", a, d, got, want)
			}
		}
	}
}

func TestIsqrt(t *testing.T) {
	r := prng(5)
	for i := range 20_000 {
		a := wide{r.next() >> (r.next() % 64), r.next()}
		if i%3 == 0 {
			a.hi = 0
		}
		if i == 1 {
			a = wide{^uint64(0), ^uint64(0)}
		}
		b := new(big.Int).SetUint64(a.hi)
		b.Lsh(b, 64).Or(b, new(big.Int).SetUint64(a.lo))
		if got, want := isqrt(a), b.Sqrt(b).Uint64(); got != want {
			t.Fatalf("isqrt(%v) = %d, want %d", a, got, want)
		}
	}
}
