package fold

import (
	"math"
	"slices"
	"testing"
)

func TestMerge(t *testing.T) {
	l, err := NewLayout([]Tensor{{Name: "a", Rows: 1, Cols: 6}})
	if err != nil {
		t.Fatal(err)
	}
	state := func(theta, momentum []int32) *State {
		s := NewState(l)
		copy(s.Theta, theta)
		copy(s.Momentum, momentum)
		return s
	}
	prev := state([]int32{0, 100, -100, math.MaxInt32, 7, 0}, []int32{10})
	next := state([]int32{5, 105, -95, math.MaxInt32, 7, 0}, []int32{20})
	other := state([]int32{100, 0, -100, -math.MaxInt32, 8, -1}, []int32{-10})
	for _, tt := range []struct {
		weight   uint32
		theta    []int32
		momentum int32
	}{
		{0, []int32{5, 105, -95, math.MaxInt32, 7, 0}, 20},
		// Halves round up.
		{One / 2, []int32{55, 55, -95, 0, 8, 0}, 10},
		{One / 4, []int32{30, 80, -95, 1073741824, 7, 0}, 15},
		{One, []int32{105, 5, -95, -math.MaxInt32, 8, -1}, 0},
	} {
		got, err := Merge(next, prev, other, tt.weight)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Theta, tt.theta) || got.Momentum[0] != tt.momentum {
			t.Errorf("weight %d: theta %v, momentum %d; want %v, %d", tt.weight, got.Theta, got.Momentum[0], tt.theta, tt.momentum)
		}
	}
	if _, err := Merge(next, prev, other, One+1); err == nil {
		t.Error("a weight above 1 is accepted")
	}
	m, err := NewLayout([]Tensor{{Name: "b", Rows: 1, Cols: 6}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Merge(next, prev, NewState(m), One); err == nil {
		t.Error("another layout is accepted")
	}
	if same, err := Merge(prev, prev, prev, One/3); err != nil || same.CID() != prev.CID() {
		t.Errorf("a state merged with itself is another one (%v)", err)
	}
}
