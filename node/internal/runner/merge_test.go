package runner

import (
	"math"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/replay"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// Two seats that train without each other for a while, and meet again: the work
// of the one that gives in comes back as a merge, which a replay computes again.
func TestMergedBranch(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for about half a minute")
	}
	t.Parallel()
	a := newNode(t, 50)
	b := newNode(t, 51, a.addr())
	man := launch(t, a, func(m *run.Manifest) {
		m.MinPeers, m.MaxRounds, m.PeriodMillis = 2, 1000, 1500
		m.Inner.LearningRateNano = 1e5
	})
	ra, stopA := a.takePart(t, man)
	rb, stopB := b.takePart(t, man)
	until(t, "first rounds", func() bool { return ra.Summary().TrainedRounds >= 2 && rb.Summary().TrainedRounds >= 2 })
	if err := stopA(); err != nil {
		t.Fatal(err)
	}
	fork := ra.Summary().Round
	until(t, "rounds of one seat", func() bool { return rb.Summary().Round >= fork+5 })
	if err := stopB(); err != nil {
		t.Fatal(err)
	}
	alone := rb.Summary()
	ra, _ = a.takePart(t, man)
	until(t, "rounds of the other", func() bool { return ra.Summary().Round >= fork+5 })
	other := ra.Summary()
	if ra.ledger.Head().ID.String() == alone.Head {
		t.Fatal("they did not part")
	}
	rb, _ = b.takePart(t, man)
	merged := func(r *Runner) *msg.Record {
		for n := msg.Round(fork); ; n++ {
			k, _, ok := r.ledger.At(n)
			if !ok {
				return nil
			}
			if k.Record.Merge != nil {
				return k.Record
			}
		}
	}
	until(t, "merge", func() bool { return merged(ra) != nil && merged(rb) != nil })
	e := merged(ra).Merge
	if e.Head.String() != alone.Head && e.Head.String() != other.Head && e.Tokens < 3 {
		t.Errorf("merged %+v", e)
	}
	parent, ok := ra.ledger.Link(merged(ra).Parent)
	if !ok || merged(ra).Tokens < parent.Record.Tokens+e.Tokens {
		t.Errorf("tokens are %d after %d and %d merged", merged(ra).Tokens, parent.Record.Tokens, e.Tokens)
	}
	upTo := merged(ra).Round
	// Who followed the other pulled the states of its branch, not the deltas.
	winner := a
	head, err := cid.Decode(alone.Head)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := ra.ledger.Link(head); ok {
		winner = b
	}
	res, err := replay.Run(t.Context(), replay.Options{Manifest: man, Chain: firstRounds{ra, upTo}, Store: winner.store})
	if err != nil || res.State != merged(ra).State || res.Rounds != int(upTo) {
		t.Errorf("replayed %+v, %v; want state %v", res, err, merged(ra).State)
	}
}

// firstRounds is a chain up to a round: the run goes on.
type firstRounds struct {
	r    *Runner
	last msg.Round
}

func (c firstRounds) Record(n msg.Round) (k round.Link, ok bool) {
	if n > c.last {
		return k, false
	}
	k, _, ok = c.r.ledger.At(n)
	return k, ok
}

// What makes the loss worse is not merged.
func TestTryMerge(t *testing.T) {
	t.Parallel()
	x := newNode(t, 52)
	man := launch(t, x, func(m *run.Manifest) { m.Inner.MaxSteps, m.Inner.BatchSamples = 8, 8 })
	w, j := openWorker(t, x, man, t.TempDir())
	start, err := w.states.get(t.Context(), j.state)
	if err != nil {
		t.Fatal(err)
	}
	j.until = time.Now().Add(time.Hour)
	out, err := w.train(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x.store.ReadBytes(t.Context(), out.delta, int64(out.bytes))
	if err != nil {
		t.Fatal(err)
	}
	d, err := fold.Decode(w.layout, b)
	if err != nil {
		t.Fatal(err)
	}
	values := make([]int32, w.layout.Params())
	d.Values(values)
	moved := func(times int32) cid.Cid {
		st := fold.NewState(w.layout)
		for i, v := range start.Theta {
			st.Theta[i] = v - times*values[i]
		}
		id, err := w.states.put(t.Context(), st)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	ours, good, bad := moved(1), moved(2), moved(-3)
	for _, tt := range []struct {
		name string
		j    mergeJob
		want bool
	}{
		{"two that were trained", mergeJob{State: ours, Merge: msg.Merge{Base: ours, State: good, WeightQ16: fold.One}}, true},
		{"one that went the other way", mergeJob{State: ours, Merge: msg.Merge{Base: ours, State: bad, WeightQ16: fold.One / 2}}, false},
	} {
		if got, err := w.tryMerge(t.Context(), tt.j); err != nil || got != tt.want {
			t.Errorf("%s: %v, %v; want %v", tt.name, got, err, tt.want)
		}
	}
}

func TestPasses(t *testing.T) {
	for _, tt := range []struct {
		ours, theirs, merged float64
		want                 bool
	}{
		{1, 1, 1, true},
		{1, 2, 1.004, true},
		{1, 2, 1.006, false},
		{2, 1, 1.006, false},
		{2, 1, 0.5, true},
		{1, 1, math.NaN(), false},
		{math.NaN(), 1, 1, false},
		{1, math.Inf(1), 1, true},
	} {
		if got := passes(tt.ours, tt.theirs, tt.merged); got != tt.want {
			t.Errorf("passes(%v, %v, %v) = %v", tt.ours, tt.theirs, tt.merged, got)
		}
	}
}
