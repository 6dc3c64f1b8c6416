package round

import (
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// measuring is a run of n peers with rules for its held-out loss.
func measuring(n int, stop run.Stop, back run.Rollback) *run.Manifest {
	return testManifest(func(m *run.Manifest) { m.MinPeers, m.Stop, m.Rollback = uint32(n), stop, back })
}

// tell lets all peers measure the same loss.
func tell(loss uint64) turn {
	return turn{gain: useful, loss: func(peer.ID) uint64 { return loss }}
}

// TestStopRules: after which losses, each of the state before, a run is over.
func TestStopRules(t *testing.T) {
	for _, tt := range []struct {
		name   string
		stop   run.Stop
		losses []uint64
		want   int // the record that is final; 0: none
		why    Ending
	}{
		{"no rule is reached", run.Stop{Patience: 3}, []uint64{900, 890, 880, 870, 860, 850}, 0, ""},
		{"target", run.Stop{TargetMicro: 500}, []uint64{900, 700, 501, 500}, 4, EndTarget},
		{"target at once", run.Stop{TargetMicro: 1000}, []uint64{900}, 1, EndTarget},
		{"plateau", run.Stop{Patience: 3}, []uint64{900, 800, 800, 900, 801}, 5, EndPlateau},
		{"one improvement begins anew", run.Stop{Patience: 3}, []uint64{900, 900, 900, 899, 900, 900, 900}, 7, EndPlateau},
		{"small steps are none", run.Stop{Patience: 3, MinImprovementPPM: 100_000}, []uint64{1000, 950, 910, 901}, 4, EndPlateau},
		{"small steps add up", run.Stop{Patience: 3, MinImprovementPPM: 100_000}, []uint64{1000, 950, 910, 900, 890, 880, 870}, 7, EndPlateau},
		{"what was not measured does not count", run.Stop{Patience: 2}, []uint64{900, 0, 0, 0, 901, 902}, 6, EndPlateau},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newTale(t, 4, measuring(4, tt.stop, run.Rollback{}))
			for i, loss := range tt.losses {
				r := s.follow(tell(loss)).Record
				if r.Trend.LossMicro != loss {
					t.Errorf("record %d: loss %d, want %d", i+1, r.Trend.LossMicro, loss)
				}
				why := Ending("")
				if i+1 == tt.want {
					why = tt.why
				}
				if got := Ends(s.rules.manifest, r); got != why || r.Final != (why != "") {
					t.Fatalf("record %d: final %v, ends by %q, want %q", i+1, r.Final, got, why)
				}
				if r.Final {
					break
				}
			}
		})
	}
}

// TestRollback: after so many losses above the best the run is at its best state
// again, without momentum, what was trained meanwhile is refused with the
// reason, and it goes on from there.
func TestRollback(t *testing.T) {
	const n = 4
	s := newTale(t, n, measuring(n, run.Stop{}, run.Rollback{Rounds: 3, WorsePPM: 30_000}))
	best := cid.Undef
	for i, loss := range []uint64{1000, 900, 931, 926, 928, 960} {
		r := s.follow(tell(loss)).Record
		if loss == 900 {
			best = s.before().Record.State
		}
		if r.Trend.Back {
			t.Fatalf("went back after %d losses", i+1)
		}
	}
	away := s.head().Record
	c := s.follow(tell(990))
	r := s.head().Record
	if !r.Trend.Back || !r.Trend.BestState.Equals(best) || r.Trend.BestMicro != 900 || r.Trend.Worse != 0 {
		t.Fatalf("trend %+v, want back to %v", r.Trend, best)
	}
	got, want := s.states[r.State], s.states[best]
	if !slices.Equal(got.Theta, want.Theta) || slices.ContainsFunc(got.Momentum, func(v int32) bool { return v != 0 }) {
		t.Error("the state is not the best one without momentum")
	}
	if len(r.Contributions) > 0 || len(r.Refused) != n || r.TrainedRounds != away.TrainedRounds || r.Tokens != away.Tokens {
		t.Errorf("%d contributions, %d refused, %d trained rounds, %d tokens", len(r.Contributions), len(r.Refused), r.TrainedRounds, r.Tokens)
	}
	for _, e := range r.Refused {
		if e.Reason != msg.RolledBack {
			t.Errorf("seat %d is refused for %v", e.Seat, e.Reason)
		}
	}
	if f := c.Fold(away.State); !f.Rest || !f.State.Equals(best) || len(f.Inputs) > 0 {
		t.Errorf("fold %+v", f)
	}
	if next := s.follow(tell(901)).Record; next.Trend.Back || next.Trend.Worse != 0 || len(next.Contributions) != n {
		t.Errorf("after that: trend %+v, %d contributions", next.Trend, len(next.Contributions))
	}
}

// TestRollbackTakesNothingBack: what a record leaves behind is neither taken back
// nor merged.
func TestRollbackTakesNothingBack(t *testing.T) {
	const n = 7
	m := healing(n)
	m.Rollback = run.Rollback{Rounds: 1, WorsePPM: 1}
	s := newTale(t, n, m)
	s.follow(tell(500))
	s.follow(tell(400))
	liar := s.head().Record.Seats[1].Peer
	w := tell(600)
	w.gain, w.merge = damagingOf(liar), &msg.Merge{
		Fork: testCID("f"), First: testCID("a"), Head: testCID("b"), State: testCID("s"), Base: testCID("t"), Tokens: 5, WeightQ16: 9,
	}
	before := s.head().Record.Tokens
	c := s.follow(w)
	r := s.head().Record
	taken := slices.ContainsFunc(r.Judgements, func(j msg.Judgement) bool { return j.TakenBack })
	if !r.Trend.Back || c.Back != nil || r.Merge != nil || taken || r.Tokens != before {
		t.Errorf("trend %+v, back %v, merge %v, taken back %v, %d tokens after %d", r.Trend, c.Back, r.Merge, taken, r.Tokens, before)
	}
	if standings(r.Standings).of(liar).StrikesQ8 == 0 {
		t.Error("the liar has no strike")
	}
}

// TestMedianLoss: liars cannot choose the loss, and silence makes none.
func TestMedianLoss(t *testing.T) {
	haves := func(losses ...uint64) []msg.Signed {
		var list []msg.Signed
		for _, l := range losses {
			list = append(list, msg.Signed{Message: &msg.Have{LossMicro: l}})
		}
		return list
	}
	for _, tt := range []struct {
		name string
		list []msg.Signed
		f    int
		want uint64
	}{
		{"all", haves(500, 501, 502, 503), 1, 502},
		{"liars", haves(1, 500, 501, 502, 503, 1, 500), 2, 500},
		{"high liars", haves(1<<40, 500, 501, 502, 503, 1<<40, 500), 2, 502},
		{"too few", haves(500, 501, 0, 0), 1, 0},
		{"just enough", haves(500, 501, 502, 0), 1, 501},
		{"one that is alone", haves(500), 0, 500},
		{"the two that are left", haves(500, 600), 1, 0},
		{"none", haves(0, 0, 0), 0, 0},
	} {
		if got := medianLoss(tt.list, tt.f); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// TestTrendRules: the trend is the consequence of the haves, and a run without
// rules for its loss has none.
func TestTrendRules(t *testing.T) {
	const n = 4
	s := newTale(t, n, measuring(n, run.Stop{Patience: 5}, run.Rollback{}))
	s.follow(tell(500))
	s.follow(tell(400))
	for name, change := range map[string]func(*msg.Trend){
		"loss":       func(r *msg.Trend) { r.LossMicro++ },
		"best":       func(r *msg.Trend) { r.BestMicro-- },
		"best state": func(r *msg.Trend) { r.BestState = testCID("x") },
		"round":      func(r *msg.Trend) { r.BestRound-- },
		"mark":       func(r *msg.Trend) { r.MarkMicro++ },
		"stale":      func(r *msg.Trend) { r.Stale++ },
		"worse":      func(r *msg.Trend) { r.Worse++ },
		"back":       func(r *msg.Trend) { r.Back = true },
	} {
		bad, trend := *s.head().Record, *s.head().Record.Trend
		change(&trend)
		bad.Trend = &trend
		if _, err := s.rules.Verify(s.links[len(s.links)-3], s.before(), &bad); err == nil {
			t.Errorf("another %s is accepted", name)
		}
	}
	bad := *s.head().Record
	bad.Trend = nil
	if _, err := s.rules.Verify(s.links[len(s.links)-3], s.before(), &bad); err == nil {
		t.Error("the trend can be left out")
	}
	if r := newTale(t, n, audited(n, 0)).follow(tell(500)).Record; r.Trend != nil {
		t.Errorf("a run without rules has the trend %+v", r.Trend)
	}
}

// TestRollbackSim: machines agree when to go back and when to stop, on what they
// measured themselves, with a liar and a peer that measures nothing.
func TestRollbackSim(t *testing.T) {
	const n = 5
	s := newSim(t, 31, n, measuring(n, run.Stop{TargetMicro: 300_000}, run.Rollback{Rounds: 2, WorsePPM: 50_000}), simOpts{})
	loss := func(r msg.Round) uint64 {
		switch {
		case r < 5:
			return 1_000_000 - 50_000*uint64(r)
		case r < 12:
			return 2_000_000
		}
		return 290_000
	}
	s.opts.heldOut = func(node *simNode, _ cid.Cid) uint64 {
		switch node.i {
		case 1:
			return 1
		case 2:
			return 0
		}
		return loss(node.chain.Head().Record.Round) + uint64(node.i)
	}
	s.startAll()
	done := func() bool {
		return !slices.ContainsFunc(s.nodes, func(n *simNode) bool { return !n.chain.Head().Record.Final })
	}
	if !s.runUntil(10*time.Minute, done) {
		t.Fatalf("the run goes on:\n%s", s.describe())
	}
	last := s.nodes[0].chain.Head().Record
	if Ends(s.manifest, last) != EndTarget {
		t.Errorf("ended by %q", Ends(s.manifest, last))
	}
	if err := s.agree(last.Round); err != nil {
		t.Error(err)
	}
	backs := 0
	for _, l := range s.nodes[3].chain.links[1:] {
		if goesBack(l.Record) {
			backs++
		}
	}
	if backs < 2 || backs > 4 {
		t.Errorf("went back %d times in seven rounds that were too bad", backs)
	}
}
