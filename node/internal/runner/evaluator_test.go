package runner

import (
	"math"
	"testing"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// TestDrawnLoss: one peer of three measures each round, the one that is drawn;
// all know what it found, also one without a seat, and that of the last round
// each measures itself.
func TestDrawnLoss(t *testing.T) {
	t.Parallel()
	a := newNode(t, 51)
	b, c := newNode(t, 52, a.addr()), newNode(t, 53, a.addr())
	man := launch(t, a, func(m *run.Manifest) {
		m.MinPeers, m.MaxRounds, m.EvalPeers = 3, 5, 1
		m.PeriodMillis = 40_000 // the machine may be busy; rounds end when all is there
	})
	runners := []*Runner{}
	for _, x := range []*testNode{a, b, c} {
		r, _ := x.takePart(t, man)
		runners = append(runners, r)
	}
	sameEnd(t, runners...)
	head := runners[0].ledger.Head()
	until(t, "evaluation of the end", func() bool {
		for _, r := range runners {
			if k, ok := r.ledger.Entry(head.Record.Round); !ok || math.IsNaN(k.EvalLoss) {
				return false
			}
		}
		return true
	})
	drawn := 0
	for n := msg.Round(1); n < head.Record.Round; n++ {
		k, _, _ := runners[0].ledger.At(n)
		want := runners[0].recorded(n)
		if want == nil {
			if len(k.Record.Contributions) > 0 {
				t.Errorf("the loss after round %d is not recorded", n)
			}
			continue
		}
		measured := 0
		for i, r := range runners {
			_, e, _ := r.ledger.At(n)
			if !math.IsNaN(e.EvalLoss) {
				measured++
				if math.Abs(e.EvalLoss-*want) > 1e-6 {
					t.Errorf("round %d: %v is recorded, node %d measured %v", n, *want, i, e.EvalLoss)
				}
			}
			list, err := r.Rounds(uint64(n), 1)
			if err != nil {
				t.Fatal(err)
			}
			if d := list[0]; d.EvalLoss == nil || *d.EvalLoss != *want || d.MedianLoss == nil || (d.OwnLoss == nil) != math.IsNaN(e.EvalLoss) {
				t.Errorf("round %d: node %d tells %v, %v, %v", n, i, d.EvalLoss, d.MedianLoss, d.OwnLoss)
			}
		}
		if measured != 1 {
			t.Errorf("round %d: %d nodes measured", n, measured)
		}
		drawn++
	}
	if drawn < 5 { // the state that they began with, and after all rounds but the last
		t.Errorf("%d losses are recorded", drawn)
	}
	for i, x := range []*testNode{a, b, c} {
		if s := runners[i].Online(); len(s) == 0 || s[len(s)-1].Online < 1 {
			t.Errorf("node %d says who was online: %v", i, s)
		}
		if got := x.events.count(api.EventEval); got < drawn {
			t.Errorf("node %d told %d losses, %d are recorded", i, got, drawn)
		}
	}
}

// TestHastyMeasure: once a record has no loss that it should have, a peer measures
// before it trains, for some rounds, and training goes on after that.
func TestHastyMeasure(t *testing.T) {
	with := []msg.Contribution{{}}
	for _, tt := range []struct {
		record, parent msg.Record
		want           bool
	}{
		{msg.Record{Trend: &msg.Trend{}}, msg.Record{Contributions: with}, true},
		{msg.Record{Trend: &msg.Trend{LossMicro: 7}}, msg.Record{Contributions: with}, false},
		{msg.Record{Trend: &msg.Trend{}}, msg.Record{}, false}, // nothing new to measure
		{msg.Record{}, msg.Record{Contributions: with}, false}, // a run that records none
	} {
		if got := unmeasured(&tt.record, &tt.parent); got != tt.want {
			t.Errorf("%+v after %+v: unmeasured is %v", tt.record, tt.parent, got)
		}
	}

	stopped := 0
	d := &device{wake: make(chan struct{}, 1), cancel: func() { stopped++ }}
	d.await(evalJob{round: 3}, false)
	if d.eval.first || stopped != 0 {
		t.Errorf("in time, and yet %+v, and training was stopped %d times", d.eval, stopped)
	}
	for i := range hastyRounds + 2 {
		d.await(evalJob{round: msg.Round(4 + i)}, i == 0)
		if want := i < hastyRounds; d.eval.first != want || d.eval.round != msg.Round(4+i) {
			t.Errorf("%d rounds after the one that was missed: %+v", i, d.eval)
		}
	}
	if stopped != hastyRounds {
		t.Errorf("training gave way %d times", stopped)
	}
}
