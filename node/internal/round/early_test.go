package round

import (
	"testing"
	"time"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// overlapped is a network of four seats that train early, and where each of them
// was asked for something.
func overlapped(t *testing.T, change func(*run.Manifest)) *sim {
	t.Helper()
	s := newSim(t, 11, 4, testManifest(func(m *run.Manifest) {
		m.MinPeers, m.MaxRounds, m.Inner.OverlapSteps = 4, 6, 5
		if change != nil {
			change(m)
		}
	}), simOpts{})
	s.startAll()
	return s
}

// TestEarly: who has sent its delta is asked for steps of the next round, from
// that delta; and the next round knows them by it.
func TestEarly(t *testing.T) {
	s := overlapped(t, nil)
	if !s.runUntil(5*time.Minute, func() bool { return s.nodes[0].chain.Head().Record.Final }) {
		t.Fatalf("stuck:\n%s", s.describe())
	}
	for _, n := range s.nodes {
		var early []TrainEarly
		trained := 0
		for _, e := range n.asked {
			switch e := e.(type) {
			case TrainEarly:
				early = append(early, e)
			case Train:
				trained++
				if e.Trained == 0 {
					if e.Earlier != (Earlier{}) {
						t.Errorf("node %d: the first round goes on from %+v", n.i, e.Earlier)
					}
					continue
				}
				if last := early[len(early)-1]; last.Earlier != e.Earlier || last.Round != e.Round {
					t.Errorf("node %d: round %d goes on from %+v, was asked for round %d, from %+v", n.i, e.Round, e.Earlier, last.Round, last.Earlier)
				}
				head, _ := n.chain.Link(e.Head)
				before, _ := n.chain.Link(head.Record.Parent)
				c, ok := commitOf(head.Record, uint32(seatOf(head.Record.Seats, n.id)))
				if !ok || !e.Earlier.Delta.Equals(c.Delta) || !e.Earlier.Head.Equals(before.ID) || !e.Earlier.State.Equals(before.Record.State) ||
					e.Earlier.Trained != before.Record.TrainedRounds || e.Earlier.Tokens != before.Record.Tokens || e.Earlier.Steps != c.Steps || e.Earlier.Bits != c.CodecBits {
					t.Errorf("node %d: round %d goes on from %+v", n.i, e.Round, e.Earlier)
				}
			}
		}
		if trained != 6 || len(early) != 5 {
			t.Errorf("node %d: %d rounds were trained, %d early; want 6 and, as none follows the last, 5", n.i, trained, len(early))
		}
	}
}

// TestNotEarly: a run that does not say so is as it was.
func TestNotEarly(t *testing.T) {
	s := overlapped(t, func(m *run.Manifest) { m.Inner.OverlapSteps = 0 })
	s.runUntil(5*time.Minute, func() bool { return s.nodes[0].chain.Head().Record.Final })
	for _, n := range s.nodes {
		for _, e := range n.asked {
			if train, ok := e.(Train); !ok || train.Earlier != (Earlier{}) {
				t.Errorf("node %d was asked for %+v", n.i, e)
			}
		}
	}
}

// TestEarlyAgain: a process that dies while it trains early is asked again, for the
// same; who gives its seat back is told to stop, and wants it again goes on.
func TestEarlyAgain(t *testing.T) {
	s := overlapped(t, nil)
	n := s.nodes[1]
	last := func() Effect {
		if len(n.asked) == 0 {
			return nil
		}
		return n.asked[len(n.asked)-1]
	}
	isEarly := func() bool { _, ok := last().(TrainEarly); return ok }
	if !s.runUntil(time.Minute, isEarly) {
		t.Fatal("nothing is trained early")
	}
	want := last().(TrainEarly)
	n.stop()
	n.asked = nil
	n.start()
	if got, ok := last().(TrainEarly); !ok || got != want || len(n.asked) != 1 {
		t.Errorf("after the restart %+v was asked for, before it %+v", n.asked, want)
	}
	n.step(Want{Seat: false})
	if _, ok := last().(StopTraining); !ok {
		t.Errorf("a peer that leaves was asked for %+v", last())
	}
	n.step(Want{Seat: true})
	if got, ok := last().(TrainEarly); !ok || got != want {
		t.Errorf("a peer that stays after all was asked for %+v", last())
	}
	n.step(Tick{})
	if len(n.asked) != 3 {
		t.Errorf("asked for %+v", n.asked)
	}
}

// TestEarlierOf: early steps count after a round that trained; in a run that
// retraces only those of who has a delta in the record.
func TestEarlierOf(t *testing.T) {
	s := overlapped(t, func(m *run.Manifest) { m.Trust = run.Trust{Auditors: 3, AuditSamples: 8, RetracePPM: 1e6} })
	if !s.runUntil(time.Minute, func() bool { return s.nodes[0].chain.Head().Record.TrainedRounds >= 2 }) {
		t.Fatalf("stuck:\n%s", s.describe())
	}
	chain := s.nodes[0].chain
	head := chain.Head()
	_, stranger := testKey(99)
	id := s.nodes[2].id
	with := s.rules.Earlier(head, id, chain.Link)
	if !with.Delta.Defined() || !with.Head.Equals(head.Record.Parent) {
		t.Fatalf("the earlier round of a contributor is %+v", with)
	}
	if e := s.rules.Earlier(head, stranger, chain.Link); e != (Earlier{}) {
		t.Errorf("the earlier round of who has none is %+v", e)
	}
	plain := *s.rules
	plain.manifest = testManifest(func(m *run.Manifest) { m.Inner.OverlapSteps = 5 })
	e := plain.Earlier(head, stranger, chain.Link)
	if !e.Head.Equals(head.Record.Parent) || e.Delta.Defined() {
		t.Errorf("in a run that retraces nothing it is %+v", e)
	}
	empty := *head.Record
	empty.Contributions = nil
	if e := plain.Earlier(Link{ID: head.ID, Record: &empty}, id, chain.Link); e != (Earlier{}) {
		t.Errorf("after a round in which nothing counted it is %+v", e)
	}
	// What auditors are told is the same.
	audited := head
	for _, item := range s.rules.Retraces(audited, []AuditItem{{Seat: uint32(seatOf(head.Record.Seats, id)), Maker: id}}, chain.Link) {
		before, _ := chain.Link(head.Record.Parent)
		if want := s.rules.Earlier(before, id, chain.Link); item.Earlier != want || before.Record.TrainedRounds > 0 && !want.Delta.Defined() {
			t.Errorf("an auditor goes on from %+v, the maker went on from %+v", item.Earlier, want)
		}
	}
	if k := (msg.Record{TrainedRounds: 5}); s.rules.overlaps(&k) {
		t.Error("the last round is followed by one")
	}
}
