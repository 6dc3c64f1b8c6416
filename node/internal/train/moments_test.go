package train

import (
	"math"
	"slices"
	"testing"
)

// TestMoments: what one trainer remembers, another one goes on with bit by bit,
// but for moments in eight bits, which are rounded once more: the map has no -1.
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
			if err != nil {
				t.Fatal(err)
			}
			near := 0.0
			if o.Optimizer == AdamW8bit {
				near = 0.05
			}
			for k := range m {
				if d := apart(m[k], again[k]); d > near {
					t.Errorf("what was set of vector %d is %g from what is there", k, d)
				}
			}
			start := values(a)
			for i := range 3 {
				step(t, a, batches[i])
				step(t, b, batches[i])
			}
			x, y := values(a), values(b)
			for i := range start {
				x[i], y[i] = x[i]-start[i], y[i]-start[i]
			}
			if d := apart(x, y); d > near {
				t.Errorf("what three more steps moved is %g from the other", d)
			}
		})
	}
}

// apart is the distance of two vectors beside the length of the first.
func apart(a, b []float32) float64 {
	var d, n float64
	for i := range a {
		d += float64(a[i]-b[i]) * float64(a[i]-b[i])
		n += float64(a[i]) * float64(a[i])
	}
	if d == 0 {
		return 0
	}
	return math.Sqrt(d / n)
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
