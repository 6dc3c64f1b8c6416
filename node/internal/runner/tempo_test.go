package runner

import (
	"errors"
	"testing"

	"github.com/moot-net/moot/node/internal/replay"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// Two real nodes whose deltas go far apart take fewer steps, as their records
// say, and a replay sees to it that they say so.
func TestTempo(t *testing.T) {
	t.Parallel()
	a := newNode(t, 60)
	b := newNode(t, 61, a.addr())
	man := launch(t, a, func(m *run.Manifest) {
		m.MinPeers, m.MaxRounds, m.MaxTokens, m.FollowArrivals = 2, 6, 1<<40, true
		m.PeriodMillis = 12_000 // the machine may be busy; rounds end when all is there
		m.Inner.MinSteps, m.Inner.StartSteps, m.Inner.MaxSteps, m.Inner.LearningRateNano = 2, 8, 8, 1e8
	})
	ra, _ := a.takePart(t, man)
	rb, _ := b.takePart(t, man)
	sameEnd(t, ra, rb)
	rounds, err := ra.Rounds(1, 100)
	if err != nil {
		t.Fatal(err)
	}
	kappas, least := 0, uint32(8)
	for i, d := range rounds {
		if d.Tempo == nil || i > 0 && (d.Tempo.Steps != rounds[i-1].Tempo.NextSteps || d.Tempo.Deadline != rounds[i-1].Tempo.NextDeadline) {
			t.Fatalf("round %d: tempo %+v", d.Round, d.Tempo)
		}
		if d.Tempo.Kappa != nil {
			kappas++
			if k := *d.Tempo.Kappa; k < 0.001 || k > 10 {
				t.Errorf("round %d: kappa %v", d.Round, k)
			}
		}
		least = min(least, d.Tempo.Steps)
		for _, c := range d.Contributions {
			if c.Steps > uint64(d.Tempo.Steps) {
				t.Errorf("round %d: %d steps, at most %d", d.Round, c.Steps, d.Tempo.Steps)
			}
		}
		if period := float64(man.PeriodMillis) / 1e3; d.Tempo.Deadline < period/2 || d.Tempo.Deadline > 1.2*period {
			t.Errorf("round %d: deadline %v", d.Round, d.Tempo.Deadline)
		}
	}
	if kappas == 0 || least == 8 {
		t.Errorf("%d kappas, at least %d steps, want fewer than 8", kappas, least)
	}
	o := replay.Options{Manifest: man, Chain: chain{l: rb.ledger}, Store: b.store}
	if got, err := replay.Run(t.Context(), o); err != nil || got.Head != rb.ledger.Head().ID {
		t.Errorf("replayed %+v, %v", got, err)
	}
	last := rb.ledger.Head().Record.Round
	for _, change := range []func(*msg.Tempo){
		func(m *msg.Tempo) { m.Steps++ },
		func(m *msg.Tempo) { m.DeadlineMillis++ },
		func(m *msg.Tempo) { m.KappaPPM++ },
		func(m *msg.Tempo) { m.ArrivalMillis++ },
	} {
		o.Chain = chain{rb.ledger, last, func(r *msg.Record) {
			changed := *r.Tempo
			change(&changed)
			r.Tempo = &changed
		}}
		if _, err := replay.Run(t.Context(), o); !errors.Is(err, replay.ErrMismatch) {
			t.Errorf("a record with another tempo is replayed: %v", err)
		}
	}
}
