package runner

import (
	"flag"
	"path/filepath"
	"testing"
	"time"

	"github.com/moot-net/moot/proto/run"
)

var (
	lateRounds = flag.Int("late-rounds", 150, "rounds of a run that is joined late, in TestLateFigures")
	lateSeats  = flag.Int("late-seats", 4, "its seats")
	lateWhole  = flag.Bool("late-whole", false, "join it with all its records first")
)

// TestLateFigures measures what it costs to join a run of many rounds: time and bytes
// until its head and state are here, so that a seat can be asked for and a delta made.
// README.md has the figures.
func TestLateFigures(t *testing.T) {
	if *lateRounds == 150 {
		t.Parallel()
	}
	a := newNode(t, 70)
	var others []int
	for i := range *lateSeats - 1 {
		others = append(others, 100+i)
	}
	began := time.Now()
	man, c := pastRun(t, a, *lateRounds, func(m *run.Manifest) {
		m.MaxRounds, m.Seats, m.PeriodMillis = 1_000_000, uint32(*lateSeats), 600_000
		m.Trust = run.Trust{Auditors: 3, AuditSamples: 8, Probation: 5}
	}, others...)
	made := time.Since(began)
	a.has(t, man, c)
	ra, _ := a.takePart(t, man)
	until(t, "first peer", func() bool { return ra.view.Load() != nil })

	late := newNode(t, 71, a.addr())
	late.hub.fillPause, late.hub.fillWait = time.Hour, time.Hour
	rl, err := late.hub.Open(filepath.Join(late.dir, "run"), man)
	if err != nil {
		t.Fatal(err)
	}
	rl.whole.Store(*lateWhole)
	late.goOn(t, rl)
	until(t, "preparation", func() bool { return rl.view.Load() != nil })
	began = time.Now()
	head := c.Head()
	here := func() bool {
		return rl.ledger.Head().Record.Round >= head.Record.Round && rl.states.cached(head.Record.State) != nil
	}
	until(t, "head", here)
	took, bytes := time.Since(began), rl.brought.Load()
	short := *lateRounds < proofWorth
	if _, _, gap := rl.ledger.Gap(); gap == (*lateWhole || short) {
		t.Errorf("records are missing: %v", gap)
	}
	t.Logf("%d rounds, %d seats (made in %.0f s), all records first: %v: %.2f s, %.2f MB",
		*lateRounds, *lateSeats, made.Seconds(), *lateWhole, took.Seconds(), float64(bytes)/1e6)
}
