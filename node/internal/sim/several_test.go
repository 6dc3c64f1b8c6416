package sim

import (
	"math"
	"slices"
	"testing"
)

// TestSeveral: of several seeds the mean keeps what scatters, and each all else.
func TestSeveral(t *testing.T) {
	losses := map[uint64]float64{1: 1, 2: 3, 3: 2}
	s := Scenario{Name: "fake", run: func(t *trial) error {
		t.meanAtMost("loss", losses[t.Seed], 2)
		t.meanAtLeast("kept", losses[t.Seed], 2.5)
		t.atMost("forks", losses[t.Seed]-1, 1)
		if t.Seed == 2 {
			t.figure("rare", 5)
		}
		return nil
	}}
	var seen []uint64
	r, err := s.RunSeeds(t.Context(), Options{}, []uint64{1, 2, 3}, func(r Result) error { seen = append(seen, r.Seed); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(seen, []uint64{1, 2, 3}) || r.SeedText() != "1-2-3" {
		t.Errorf("seeds %v, %s", seen, r.SeedText())
	}
	if r.Figures["loss"] != 2 || r.Deviation["loss"] != 1 || !slices.Equal(r.Each["loss"], []Figure{1, 3, 2}) {
		t.Errorf("loss %v, deviation %v, each %v", r.Figures["loss"], r.Deviation["loss"], r.Each["loss"])
	}
	if !slices.Equal(r.Missed, []string{"forks", "kept"}) || r.Pass {
		t.Errorf("missed %v, want forks and kept", r.Missed)
	}
	if e := r.Each["rare"]; len(e) != 3 || !math.IsNaN(float64(e[0])) || e[1] != 5 {
		t.Errorf("a figure of one seed is %v", e)
	}
}
