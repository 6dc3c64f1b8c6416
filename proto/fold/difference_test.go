package fold

import (
	"errors"
	"testing"
)

// TestDifference: the state after a fold follows from the one before and the
// difference, whatever happened; where it was an outer step the difference is
// short.
func TestDifference(t *testing.T) {
	l := newLayout(t, Tensor{"a", 3, 5}, Tensor{"b", 4100, 2}, Tensor{"c", 1, 1})
	delta := func(bits int, seed uint64, sigma int64) Input {
		return Input{mustDecode(t, l, mustEncode(t, l, bits, randomValues(l, seed, sigma))), 1000, One}
	}
	folded := func(prev *State, inputs ...Input) *State {
		next, _, err := Fold(prev, inputs, outerStep)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	ends := NewState(l)
	for i := range ends.Theta {
		ends.Theta[i], ends.Momentum[i] = maxValue, -maxValue
	}
	start := randomState(l, 1)
	merged, err := Merge(folded(start, delta(2, 1, 60000)), start, randomState(l, 9), One/3)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name       string
		prev, next *State
		short      bool
	}{
		{"a fold", start, folded(start, delta(2, 1, 60000), delta(2, 2, 60000)), true},
		{"a fold of large deltas", start, folded(start, delta(8, 1, 1<<29)), false},
		{"nothing", start, start, false},
		{"a merge", start, merged, false},
		{"from the ends of the range", ends, folded(ends, delta(8, 3, 1<<30)), false},
		{"another state", start, randomState(l, 2), false},
		{"to the ends", start, ends, false},
	} {
		b := Difference(tt.prev, tt.next, outerStep)
		got, err := ApplyDifference(tt.prev, b, outerStep)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got.CID() != tt.next.CID() {
			t.Errorf("%s: another state", tt.name)
		}
		if n := int64(len(b)); n > MaxDifferenceBytes(l) || tt.short && n > StateBytes(l)*3/10 {
			t.Errorf("%s: %d bytes, a state has %d", tt.name, n, StateBytes(l))
		}
	}
}

// TestDifferenceIsForeign: bytes of somebody else give a state or an error.
func TestDifferenceIsForeign(t *testing.T) {
	l := smallLayout(t)
	prev := randomState(l, 1)
	next, _, err := Fold(prev, []Input{{mustDecode(t, l, mustEncode(t, l, 2, randomValues(l, 1, 60000))), 10, One}}, outerStep)
	if err != nil {
		t.Fatal(err)
	}
	good := Difference(prev, next, outerStep)
	for n := range len(good) {
		if n > differenceHeaderBytes+100 && n < len(good)-100 {
			continue
		}
		if _, err := ApplyDifference(prev, good[:n], outerStep); !errors.Is(err, ErrDifference) {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
	}
	if _, err := ApplyDifference(prev, append(good[:len(good):len(good)], 0), outerStep); !errors.Is(err, ErrDifference) {
		t.Errorf("a byte more: %v", err)
	}
	wide := append([]byte(nil), good...)
	wide[differenceHeaderBytes] = maxLow + 1
	if _, err := ApplyDifference(prev, wide, outerStep); !errors.Is(err, ErrDifference) {
		t.Errorf("a width that is none: %v", err)
	}
	other := newLayout(t, Tensor{"x", 1, 1})
	if _, err := ApplyDifference(NewState(other), good, outerStep); !errors.Is(err, ErrDifference) {
		t.Errorf("another layout: %v", err)
	}
}

// TestDifferenceBytes: of a round of 32 seats that move their parameters by
// about 2e-3, as AdamW does in 30 steps of 2e-4 or less, the difference has at most
// 2.2 bytes for each.
func TestDifferenceBytes(t *testing.T) {
	l := newLayout(t, Tensor{"a", 16, 4096})
	state := NewState(l)
	var b []byte
	for round := range uint64(4) {
		var inputs []Input
		for k := range uint64(32) {
			inputs = append(inputs, Input{mustDecode(t, l, mustEncode(t, l, 2, randomValues(l, 100*round+k, 134_000))), 1000, One})
		}
		next, _, err := Fold(state, inputs, outerStep)
		if err != nil {
			t.Fatal(err)
		}
		b = Difference(state, next, outerStep)
		state = next
	}
	per := float64(len(b)) / float64(l.params)
	t.Logf("%.3f bytes for each parameter", per)
	if per > 2.2 {
		t.Errorf("%.3f bytes for each parameter, want at most 2.2", per)
	}
}

func FuzzApplyDifference(f *testing.F) {
	l, err := NewLayout([]Tensor{{"a", 2, 3}, {"b", 1, 4}})
	if err != nil {
		f.Fatal(err)
	}
	prev := NewState(l)
	f.Add(Difference(prev, prev, outerStep))
	f.Add(Difference(prev, &State{l, []int32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, make([]int32, 10)}, outerStep))
	f.Fuzz(func(t *testing.T, b []byte) {
		next, err := ApplyDifference(prev, b, outerStep)
		if err != nil {
			return
		}
		for _, v := range append(next.Theta, next.Momentum...) {
			if v < -maxValue {
				t.Error("the state has -2^31")
			}
		}
	})
}
