package app

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/proto/run"
)

// TestPaceRound: a round has the steps that fit into the time for training, the
// last of which is not broken off, and no more than the run takes.
func TestPaceRound(t *testing.T) {
	for _, tt := range []struct {
		step  float64
		start uint32
		steps uint64
		took  float64
	}{
		{0.1, 0, 40, 4},     // all, and the round is over early
		{0.11, 0, 37, 4.07}, // 36 take 3.96 s, and another is begun
		{0.1, 10, 10, 1},
		{3, 0, 4, 12}, // the least, though they take longer
	} {
		m := &run.Manifest{PeriodMillis: 5000}
		m.Inner.MinSteps, m.Inner.MaxSteps, m.Inner.StartSteps, m.Inner.BatchSamples = 4, 40, tt.start, 8
		var p api.PlanPace
		if paceRound(m, tt.step, &p); p.Steps != tt.steps || math.Abs(p.TrainSeconds-tt.took) > 1e-9 {
			t.Errorf("steps of %v s: %+v", tt.step, p)
		}
	}
}

// TestPaceSwarm: a round lasts as long as training, the way of the deltas, what is
// measured of the round before and agreeing take. Nobody waits for what is measured
// beyond the period, and one seat alone waits for nobody.
func TestPaceSwarm(t *testing.T) {
	const delta = 1_000_000 // bytes: 0.08 s at 100 Mbit/s
	for _, tt := range []struct {
		name               string
		seats              int
		auditors, maxSteps uint32
		step               float64
		rounds             uint64
		round              float64
		heldOut, dropped   int // rows
	}{
		{"alone", 1, 3, 40, 0.1, 7, 4 + 0.05 + 0.03, 100, 0},
		{"two", 2, 3, 40, 0.1, 4, 4 + 0.05 + 0.08 + 2*16*0.1/24 + 0.3, 100, 0},
		{"five", 5, 3, 40, 0.1, 2, 4 + 0.05 + 0.32 + 4*16*0.1/24 + 0.3, 100, 0},
		{"few held-out rows", 5, 3, 40, 0.1, 2, 4 + 4*5*0.1/24 + 0.05*5/12 + 0.32 + 0.3, 7, 2},
		{"no held-out rows", 5, 3, 40, 0.1, 2, 4 + 0.32 + 0.3, 2, 2},
		{"five without audits", 5, 0, 40, 0.1, 2, 4 + 0.05 + 0.32 + 0.3, 100, 0},
		{"until the period", 5, 3, 12, 0.4, 5, 5 + 0.3, 100, 0},
		{"too slow", 5, 3, 40, 3, 13, 12 + 0.32 + 0.3, 100, 0},
	} {
		m := &run.Manifest{PeriodMillis: 5000, MaxRounds: 100, MaxTokens: 10_000, EvalSamples: 12}
		m.Inner.MinSteps, m.Inner.MaxSteps, m.Inner.BatchSamples = 4, tt.maxSteps, 8
		m.Trust.Auditors, m.Trust.AuditSamples = tt.auditors, 16
		d := api.PlanData{Eval: api.FileCheck{Rows: tt.heldOut, Dropped: tt.dropped}, Train: api.FileCheck{Rows: 10, Tokens: &api.TokenStats{Counted: 50}}}
		var p api.PlanPace
		paceRound(m, tt.step, &p)
		s := api.PlanSwarm{Seats: tt.seats}
		paceSwarm(m, &d, delta, &p, &s)
		if s.ExpectedRounds != tt.rounds || math.Abs(s.ExpectedRoundSeconds-tt.round) > 1e-9 || s.ExpectedSeconds != float64(s.ExpectedRounds)*s.ExpectedRoundSeconds {
			t.Errorf("%s: %d rounds of %v s, want %d of %v s", tt.name, s.ExpectedRounds, s.ExpectedRoundSeconds, tt.rounds, tt.round)
		}
	}
}

// Who cannot take the fewest steps in time is told.
func TestPlanWarnsOfSlowSteps(t *testing.T) {
	p := api.Plan{Swarms: []api.PlanSwarm{{Peers: 4}}}
	p.Data.Eval.Rows = 1
	for _, tt := range []struct {
		period uint64 // milliseconds
		least  uint32 // steps
		step   float64
		want   string
	}{
		{5000, 4, 1, ""},
		{5000, 4, 2, "4 steps, the fewest that count, take 8 s, and a round has 5 s"},
		{10_000, 1, 6, "2 steps take 12 s, and a round has 10 s"},
	} {
		m := &run.Manifest{PeriodMillis: tt.period, MinPeers: 4}
		m.Inner.MinSteps, m.Inner.MaxSteps = tt.least, 40
		paceRound(m, tt.step, &p.Pace)
		list := new(node).planWarnings(m, &p)
		late := slices.IndexFunc(list, func(w string) bool { return strings.Contains(w, "come too late") })
		if late < 0 && tt.want != "" || late >= 0 && (tt.want == "" || !strings.Contains(list[late], tt.want)) {
			t.Errorf("steps of %v s: %q", tt.step, list)
		}
	}
}

// A timing is taken again for a while.
func TestPaceGetsOld(t *testing.T) {
	now := time.Now()
	for age, want := range map[time.Duration]bool{0: true, paceLife - 1: true, paceLife: false} {
		if got := (pace{1, now.Add(-age)}).fresh(now); got != want {
			t.Errorf("a timing of %v ago is fresh: %v", age, got)
		}
	}
}

// A memo forgets what was not asked for.
func TestMemo(t *testing.T) {
	m := memo[int]{most: 3}
	for i := range 5 {
		m.put(strconv.Itoa(i), i)
		m.get("0")
	}
	for key, want := range map[string]bool{"0": true, "1": false, "2": false, "3": true, "4": true} {
		if v, ok := m.get(key); ok != want || ok && strconv.Itoa(v) != key {
			t.Errorf("%s is %d, %v", key, v, ok)
		}
	}
}
