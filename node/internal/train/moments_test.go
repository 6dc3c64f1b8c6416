package train

import (
	"math"
	"slices"
	"testing"
)

// TestMoments: what one trainer remembers, another one goes on with bit by bit.
func TestMoments(t *testing.T) {
	batches := [][]Sample{ragged(9, 5), ragged(14), ragged(3, 3, 8)}
	for name, o := range everyOptimizer {
		t.Run(name, func(t *testing.T) {
			a, b := roomy(t, o), roomy(t, o)
			for i := range 3 {
				step(t, a, batches[i])
			}
			for i := range 2 { // something else to be replaced
				step(t, b, batches[2-i])
			}
			m, err := a.Moments()
			if err != nil || len(m) != a.MomentVectors() {
				t.Fatalf("%d vectors, %v; want %d", len(m), err, a.MomentVectors())
			}
			for k, v := range m {
				if !slices.ContainsFunc(v, func(x float32) bool { return x != 0 }) {
					t.Errorf("vector %d is zero after three steps", k)
				}
			}
			if err := b.SetAdapter(values(a)); err != nil {
				t.Fatal(err)
			}
			if err := b.SetMoments(a.Steps(), m); err != nil {
				t.Fatal(err)
			}
			again, err := b.Moments()
			if err != nil || !slices.EqualFunc(m, again, slices.Equal) {
				t.Errorf("what was set is not what is there: %v", err)
			}
			for i := range 3 {
				step(t, a, batches[i])
				step(t, b, batches[i])
			}
			if !slices.Equal(values(a), values(b)) {
				t.Error("the values differ after three more steps")
			}
		})
	}
}

func TestMomentsOfAnother(t *testing.T) {
	a := roomy(t, Options{})
	n := a.Params()
	with := func(k int, x float32) [][]float32 {
		m := [][]float32{make([]float32, n), make([]float32, n)}
		m[k][3] = x
		return m
	}
	for name, m := range map[string][][]float32{
		"one vector": {make([]float32, n)}, "too short": {make([]float32, n), make([]float32, n-1)},
		"no number": with(0, float32(math.NaN())), "infinite": with(1, float32(math.Inf(1))), "a negative square": with(1, -1),
	} {
		if err := a.SetMoments(1, m); err == nil {
			t.Errorf("%s: SetMoments() = nil", name)
		}
	}
	if err := a.SetMoments(-1, with(0, 1)); err == nil {
		t.Error("after -1 steps: SetMoments() = nil")
	}
}
