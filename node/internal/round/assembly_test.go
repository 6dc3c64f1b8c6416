package round

import (
	"testing"
	"time"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// gathering is a run that waits for more peers than there are, of which n have a
// seat.
func gathering(t *testing.T, n int) *sim {
	t.Helper()
	s := newSim(t, 3, n, testManifest(func(m *run.Manifest) { m.MinPeers = 40 }), simOpts{})
	s.startAll()
	if !s.runUntil(5*time.Minute, func() bool { return len(s.nodes[0].chain.Head().Record.NextSeats) == n && s.agree(s.minRound()) == nil }) {
		t.Fatalf("not all have a seat\n%s", s.describe())
	}
	return s
}

// TestLateInAssembly: who begins each round of assembly late, as after a restart or
// on a machine that is too slow for what it is told, keeps its seat.
func TestLateInAssembly(t *testing.T) {
	for _, n := range []int{2, 3, 7, 16} {
		s := gathering(t, n)
		late, from := s.nodes[n-1], s.minRound()
		for r := from; r < from+5; r++ {
			s.runFor(7 * time.Second) // of ten
			late.stop()
			late.start()
			if !s.runUntil(time.Minute, func() bool { return s.minRound() > r }) {
				t.Fatalf("%d seats: no round\n%s", n, s.describe())
			}
			l := s.nodes[0].chain.links[r+1]
			if i := seatOf(l.Record.NextSeats, late.id); i < 0 || l.Record.NextSeats[i].Missed > 0 {
				t.Errorf("%d seats, round %d: who was late has seat %d, or missed the round", n, r+1, i)
			}
			if l.Certificate == nil {
				t.Errorf("%d seats, round %d is not certified", n, r+1)
			}
		}
	}
}

// TestSlowInAssembly: the first proposer waits for haves that are longer on their way
// than usual.
func TestSlowInAssembly(t *testing.T) {
	s := gathering(t, 7)
	slow := s.nodes[6]
	slow.lie = func(to int, m msg.Signed) []msg.Signed {
		if _, have := m.Message.(*msg.Have); !have {
			return []msg.Signed{m}
		}
		s.after(s.nodes[0].m.timing.Attempt/3, func() {
			if n := s.nodes[to]; n.up {
				n.step(Received{m})
			}
		})
		return nil
	}
	from := s.minRound()
	for r := from; r < from+4; r++ {
		if !s.runUntil(time.Minute, func() bool { return s.minRound() > r }) {
			t.Fatalf("no round\n%s", s.describe())
		}
		l := s.nodes[0].chain.links[r+1].Record
		if i := seatOf(l.NextSeats, slow.id); i < 0 || l.NextSeats[i].Missed > 0 {
			t.Errorf("round %d: who is slow has seat %d, or missed the round", r+1, i)
		}
	}
}

// TestAbsentInAssembly: the first proposer waits for a have that does not come as long
// as for one that is slow, and no longer, if nothing else wakes it.
func TestAbsentInAssembly(t *testing.T) {
	s := gathering(t, 7)
	head := s.nodes[0].chain.Head()
	seat := Proposers(head.ID, head.Record.NextSeats)[0]
	first := s.nodes[s.indexOf(head.Record.NextSeats[seat])]
	s.nodes[(first.i+1)%7].stop()
	current := func() bool {
		h := first.m.cur
		return h != nil && h.parent.ID.Equals(head.ID) && !h.quorumAt.IsZero()
	}
	if !s.runUntil(time.Minute, current) {
		t.Fatalf("no quorum of haves\n%s", s.describe())
	}
	s.runFor(first.m.timing.Grace) // for all haves that there will be
	h := first.m.cur
	now, want := first.clock(), h.quorumAt.Add(first.m.graceOf(h))
	if h.haveCount() != 6 || !now.Before(want) {
		t.Fatalf("%d haves, %v before the end of the wait", h.haveCount(), want.Sub(now))
	}
	for first.m.own.at(h.slot()).proposals[0] == nil && !now.After(want) {
		first.m.repeats = nil
		now = first.m.Deadline()
		first.m.Step(now, Tick{})
	}
	if !now.Equal(want) {
		t.Errorf("proposed %v after a quorum of haves, want %v", now.Sub(h.quorumAt), want.Sub(h.quorumAt))
	}
}

// TestHastyInAssembly: of three seats one that says at once that the time is up does
// not make rounds of assembly as fast as it likes.
func TestHastyInAssembly(t *testing.T) {
	s := gathering(t, 3)
	hasty, from, began := s.nodes[2], s.minRound(), s.now
	hasty.m.timing.Deadline = time.Millisecond
	s.runFor(time.Minute)
	if n := s.minRound() - from; n > msg.Round(s.now.Sub(began)/s.nodes[0].m.timing.Attempt*2) {
		t.Errorf("%d rounds in %v", n, s.now.Sub(began))
	}
}
