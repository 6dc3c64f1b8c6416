package sim

import (
	"strings"
	"testing"
)

// quick runs the short form of a scenario.
func quick(t *testing.T, name string, seed uint64) Result {
	t.Helper()
	s, err := Find(name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Run(t.Context(), Options{Seed: seed, Quick: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r.Text())
	return r
}

// TestScenarios runs the short forms of scenarios that cost little.
func TestScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("some seconds for each")
	}
	for _, name := range []string{"launcher-gone", "half-vanish"} {
		t.Run(name, func(t *testing.T) {
			if r := quick(t, name, 1); !r.Pass {
				t.Errorf("missed %s: %s", strings.Join(r.Missed, ", "), r.Cause)
			}
		})
	}
}

// TestSeeds: the same seed gives the same transcript, another one another.
func TestSeeds(t *testing.T) {
	transcript := func(seed uint64) string {
		w := small(t, seed, 7, wide(), nil)
		return w.transcriptHash()
	}
	a, b, c := transcript(1), transcript(1), transcript(2)
	if a != b {
		t.Errorf("transcripts of one seed are %s and %s", a, b)
	}
	if a == c {
		t.Error("two seeds have one transcript")
	}
}
