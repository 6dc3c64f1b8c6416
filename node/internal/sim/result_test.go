package sim

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fake runs a scenario that measures what it is told.
func fake(t *testing.T, measure func(*trial)) Result {
	t.Helper()
	s := Scenario{Name: "fake", run: func(t *trial) error { measure(t); return nil }}
	r, err := s.Run(t.Context(), Options{Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		name    string
		measure func(*trial)
		pass    bool
	}{
		{"within", func(t *trial) { t.atMost("a", 1, 1); t.atLeast("b", 2, 2) }, true},
		{"above", func(t *trial) { t.atMost("a", 1.01, 1) }, false},
		{"below", func(t *trial) { t.atLeast("a", 0.99, 1) }, false},
		{"no number", func(t *trial) { t.atMost("a", math.NaN(), 1) }, false},
		{"infinite", func(t *trial) { t.atMost("a", math.Inf(1), 1) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := fake(t, tt.measure)
			if r.Pass != tt.pass || r.Pass != (len(r.Missed) == 0) {
				t.Errorf("pass is %v, missed %v", r.Pass, r.Missed)
			}
		})
	}
}

func TestResult(t *testing.T) {
	r := fake(t, func(t *trial) {
		t.atMost("a", math.NaN(), 1)
		t.because("of %d", 5)
		t.charts = []Chart{{Name: "x", Title: "a & b", Lines: []Line{{"<one>", []Point{{1, 2}, {3, 4}}}}}}
	})
	dir := filepath.Join(t.TempDir(), "new")
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "fake-seed7.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"scenario", "seed", "pass", "figures", "limits", "wall_s", "charts"} {
		if _, ok := got[key]; !ok {
			t.Errorf("%s is missing in %s", key, b)
		}
	}
	if got["cause"] != "of 5" || got["figures"].(map[string]any)["a"] != nil {
		t.Errorf("got %s", b)
	}
	svg, err := os.ReadFile(filepath.Join(dir, "fake-seed7-x.svg"))
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(strings.NewReader(string(svg)))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// TestNames: what the report lists can be asked for.
func TestNames(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range All() {
		if seen[s.Name] || s.About == "" || s.run == nil {
			t.Errorf("scenario %q is listed twice, or says nothing", s.Name)
		}
		seen[s.Name] = true
	}
	for _, name := range []string{
		"clock-skew", "loss-reorder", "launcher-gone", "churn30", "half-vanish", "partition-60-40", "partition-50-50", "quality-8",
		"byzantine-25-sign-flip-1", "byzantine-33-alie", "sybil-1000", "free-rider", "bytes-k8", "bytes-k256", "scale-1000", "scale-10000", "demo-quality-8", "follow", "follow-cells",
	} {
		if _, err := Find(name); err != nil {
			t.Error(err)
		}
	}
}
