package round

import (
	"fmt"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// running is a network of n seats that has trained for two rounds.
func running(t testing.TB, seed uint64, n int, opts simOpts, extra int) *sim {
	t.Helper()
	return runningOf(t, seed, n, testManifest(func(m *run.Manifest) { m.MinPeers = uint32(n) }), opts, extra)
}

func runningOf(t testing.TB, seed uint64, n int, manifest *run.Manifest, opts simOpts, extra int) *sim {
	t.Helper()
	s := newSim(t, seed, n+extra, manifest, opts)
	for _, n := range s.nodes[:n] {
		n.start()
	}
	trained := func() bool { return s.minRound() >= 2 && s.nodes[0].chain.Head().Record.TrainedRounds >= 2 }
	if !s.runUntil(time.Minute, trained) {
		t.Fatalf("stuck:\n%s", s.describe())
	}
	return s
}

// TestCrashOfOne: with 4 seats and more, whoever is gone, rounds go on and are
// certified; and who comes back is let in again.
func TestCrashOfOne(t *testing.T) {
	for _, n := range []int{3, 4, 5, 7, 16} {
		for _, gone := range []int{0, n - 1} {
			t.Run(fmt.Sprintf("n=%d without %d", n, gone), func(t *testing.T) {
				s := running(t, uint64(n), n, simOpts{}, 0)
				s.nodes[gone].stop()
				from := s.minRound()
				s.progress(3*time.Minute, 6, true)
				other := s.nodes[(gone+1)%n]
				for _, l := range other.chain.links[from+1:] {
					if l.Certificate == nil {
						t.Errorf("round %d is not certified", l.Record.Round)
					}
				}
				if seat := seatOf(other.chain.Head().Record.NextSeats, s.nodes[gone].id); seat >= 0 {
					t.Errorf("who is gone has seat %d", seat)
				}
				s.nodes[gone].start()
				s.progress(2*time.Minute, 4, true)
				if seat := seatOf(other.chain.Head().Record.NextSeats, s.nodes[gone].id); seat < 0 {
					t.Errorf("who came back has no seat\n%s", s.describe())
				}
			})
		}
	}
}

// TestQuorumGone: without a quorum rounds go on provisionally, and the others
// lose their seats.
func TestQuorumGone(t *testing.T) {
	s := running(t, 1, 7, simOpts{}, 0)
	for _, n := range s.nodes[:3] {
		n.stop()
	}
	from := s.minRound()
	s.progress(5*time.Minute, 4, true)
	l := s.nodes[4].chain.links[from+2]
	if l.Certificate != nil {
		t.Errorf("round %d is certified by 4 of 7", l.Record.Round)
	}
	if n := len(s.nodes[4].chain.Head().Record.NextSeats); n != 4 {
		t.Errorf("%d seats are left, want 4", n)
	}
	s.converge(5 * time.Minute)
	s.progress(2*time.Minute, 3, true)
	if n := len(s.nodes[4].chain.Head().Record.NextSeats); n != 7 {
		t.Errorf("%d seats after all came back, want 7\n%s", n, s.describe())
	}
}

// TestPartition: a network that is cut goes on on the side with a quorum, and
// after it healed everybody is on that side's branch.
func TestPartition(t *testing.T) {
	for _, tt := range []struct{ n, cut int }{{4, 1}, {7, 2}, {7, 1}, {10, 3}, {16, 5}, {3, 1}} {
		t.Run(fmt.Sprintf("%d of %d", tt.cut, tt.n), func(t *testing.T) {
			if testing.Short() && tt.n > 7 {
				t.Skip("the large ones take most of the time")
			}
			s := running(t, 5, tt.n, simOpts{trainTime: func(i int) time.Duration {
				// The minority is faster: once alone, it makes more rounds.
				if i < tt.cut {
					return 500 * time.Millisecond
				}
				return 8 * time.Second
			}}, 0)
			s.blocked = func(a, b *simNode) bool { return (a.i < tt.cut) != (b.i < tt.cut) }
			from := s.minRound()
			s.runFor(2 * time.Minute)
			minority, majority := s.nodes[0].chain, s.nodes[tt.n-1].chain
			if minority.Head().Record.Round <= majority.Head().Record.Round {
				t.Errorf("the minority is at round %d, the others at %d", minority.Head().Record.Round, majority.Head().Record.Round)
			}
			kept := majority.links[:from+4]
			s.converge(5 * time.Minute)
			for _, l := range kept {
				for _, n := range s.nodes {
					if _, ok := n.chain.Link(l.ID); !ok {
						t.Fatalf("node %d dropped round %d of the majority", n.i, l.Record.Round)
					}
				}
			}
			s.progress(2*time.Minute, 3, true)
			if n := len(majority.Head().Record.NextSeats); n != tt.n {
				t.Errorf("%d seats after healing, want %d\n%s", n, tt.n, s.describe())
			}
		})
	}
}

// TestEvenSplit: two halves without a quorum part, and come together again.
func TestEvenSplit(t *testing.T) {
	for _, n := range []int{2, 4, 10} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			// An answer has not room for all the records of a half.
			s := running(t, 7, n, simOpts{offers: 3}, 0)
			s.blocked = func(a, b *simNode) bool { return a.i%2 != b.i%2 }
			s.runFor(8 * time.Minute)
			if s.nodes[0].chain.Head().ID.Equals(s.nodes[1].chain.Head().ID) {
				t.Error("both halves have one head")
			}
			s.converge(5 * time.Minute)
			s.progress(2*time.Minute, 3, true)
			if got := len(s.nodes[0].chain.Head().Record.NextSeats); got != n {
				t.Errorf("%d seats after healing, want %d", got, n)
			}
		})
	}
}

// TestLateJoiner: who comes late follows, gets a seat, and its first
// contribution has weight 0.
func TestLateJoiner(t *testing.T) {
	s := running(t, 9, 4, simOpts{}, 1)
	s.runFor(time.Minute)
	late := s.nodes[4]
	late.start()
	if !s.runUntil(time.Minute, func() bool { return late.m.View().Seat >= 0 && late.chain.Head().Record.Round > 5 }) {
		t.Fatalf("no seat:\n%s", s.describe())
	}
	s.progress(time.Minute, 3, true)
	weights := []uint64{}
	for _, l := range late.chain.links {
		seat := seatOf(l.Record.Seats, late.id)
		for _, c := range l.Record.Contributions {
			if int(c.Seat) == seat {
				weights = append(weights, c.Weight)
			}
		}
	}
	if len(weights) < 2 || weights[0] != 0 || weights[1] == 0 {
		t.Errorf("weights of the late joiner are %d, want 0 first and then more", weights)
	}
}

// TestFollower: who wants no seat follows every round, and votes for nothing.
func TestFollower(t *testing.T) {
	s := running(t, 11, 4, simOpts{}, 1)
	follower := s.nodes[4]
	follower.wants = false
	follower.start()
	s.progress(2*time.Minute, 5, true)
	if n := len(follower.stored); n > 0 {
		t.Errorf("a follower signed %d messages", n)
	}
	if seatOf(s.nodes[0].chain.Head().Record.NextSeats, follower.id) >= 0 {
		t.Error("a follower got a seat")
	}
}

// TestLeave: who wants no seat any more loses it at the end of the round, and
// can come back.
func TestLeave(t *testing.T) {
	s := running(t, 13, 4, simOpts{}, 0)
	n := s.nodes[2]
	n.step(Want{Seat: false})
	s.progress(time.Minute, 2, true)
	if n.m.View().Seat >= 0 {
		t.Fatalf("still has a seat\n%s", s.describe())
	}
	s.progress(time.Minute, 3, true)
	if n.m.View().Seat >= 0 {
		t.Fatal("was seated again by an old request")
	}
	n.step(Want{Seat: true})
	s.progress(time.Minute, 3, true)
	if n.m.View().Seat < 0 {
		t.Errorf("did not get a seat again\n%s", s.describe())
	}
}

// TestFinal: after the last round nothing is signed but heartbeats, and who
// comes then still gets all records.
func TestFinal(t *testing.T) {
	s := newSim(t, 15, 4, testManifest(func(m *run.Manifest) { m.MinPeers, m.MaxRounds = 3, 3 }), simOpts{})
	for _, n := range s.nodes[:3] {
		n.start()
	}
	if !s.runUntil(2*time.Minute, func() bool {
		return s.nodes[0].chain.Head().Record.Final && s.nodes[1].chain.Head().Record.Final && s.nodes[2].chain.Head().Record.Final
	}) {
		t.Fatalf("not final:\n%s", s.describe())
	}
	stored := len(s.nodes[0].stored)
	s.nodes[3].start()
	s.runFor(time.Minute)
	if len(s.nodes[0].stored) != stored {
		t.Error("something was signed after the last round")
	}
	for _, n := range s.nodes {
		if h := n.chain.Head().Record; !h.Final || h.TrainedRounds != 3 || n.m.View().Phase != msg.PhaseDone {
			t.Errorf("node %d is at round %d in phase %v", n.i, h.Round, n.m.View().Phase)
		}
	}
	if n := len(s.nodes[0].m.View().Members); n != 3 {
		t.Errorf("%d members are known after the last round, want 3", n)
	}
}

// TestNoAssemblyTraining: while there are too few seats no commit is made.
func TestAssembly(t *testing.T) {
	s := newSim(t, 17, 4, testManifest(func(m *run.Manifest) { m.MinPeers = 3 }), simOpts{})
	s.nodes[0].start()
	s.nodes[1].start()
	s.runFor(time.Minute)
	h := s.nodes[0].chain.Head().Record
	if h.TrainedRounds != 0 || len(h.NextSeats) != 2 || h.Round < 3 {
		t.Errorf("round %d has %d seats and trained %d rounds", h.Round, len(h.NextSeats), h.TrainedRounds)
	}
	if p := s.nodes[0].m.View().Phase; p != msg.PhaseAssembly {
		t.Errorf("phase is %v", p)
	}
	// Two that come at once are let in at once, and need not wait for the
	// deadline.
	s.nodes[2].start()
	s.nodes[3].start()
	if !s.runUntil(4*time.Second, func() bool { return len(s.nodes[0].chain.Head().Record.NextSeats) == 4 }) {
		t.Errorf("not let in:\n%s", s.describe())
	}
}

// TestRestartAnywhere: whichever effect a crash comes before, what was signed
// is signed again as it was, and the network goes on. That no honest peer signs
// two messages for one head is held by the simulation.
func TestRestartAnywhere(t *testing.T) {
	for _, n := range []int{1, 2, 4} {
		for at := range seeds(24) {
			s := running(t, uint64(at), n, simOpts{}, 0)
			victim := s.nodes[at%n]
			victim.crashAt = at / n
			if !s.runUntil(time.Minute, func() bool { return !victim.up }) {
				t.Fatalf("no crash before effect %d", at)
			}
			s.after(time.Duration(s.rnd.IntN(8000))*time.Millisecond, func() { victim.start() })
			s.runFor(10 * time.Second)
			s.progress(2*time.Minute, 3, true)
		}
	}
}

// TestWolf: a seat that plays all others absent, and certifies alone as many
// rounds as it likes, takes nobody with it.
func TestWolf(t *testing.T) {
	s := running(t, 19, 7, simOpts{}, 0)
	wolf := s.nodes[3]
	s.liars[3] = true
	from := s.minRound()
	fork := wolf.chain.links[from]
	lair := &memChain{links: append([]Link(nil), wolf.chain.links[:from+1]...), at: make(map[cid.Cid]int)}
	for i, l := range lair.links {
		lair.at[l.ID] = i
	}
	parent := fork
	for range 40 {
		l := wolf.howl(parent)
		if err := lair.adopt([]Link{l}); err != nil {
			t.Fatal(err)
		}
		parent = l
	}
	if n := parent.Certified; n < fork.Certified+30 {
		t.Fatalf("the wolf has %d certified records", n)
	}
	wolf.answer = func(locator []cid.Cid) []Item { return lair.offer(t, locator, 64) }
	wolf.lie = func(_ int, m msg.Signed) []msg.Signed {
		st, ok := m.Message.(*msg.Status)
		if !ok {
			return []msg.Signed{m}
		}
		boast := *st
		boast.Head, boast.Round, boast.Certified = parent.ID, parent.Record.Round+1, parent.Certified
		boast.Tokens = parent.Record.Tokens
		return []msg.Signed{wolf.seal(&boast)}
	}
	s.progress(3*time.Minute, 8, true)
	for _, n := range s.nodes {
		if n == wolf {
			continue
		}
		if _, ok := n.chain.Link(lair.links[from+1].ID); ok {
			t.Errorf("node %d follows the wolf", n.i)
		}
	}
	// The same for who comes late, whomever it asks first.
	s.nodes[5].stop()
	s.nodes[5].chain = newMemChain(t, s.manifest)
	s.nodes[5].stored = nil
	s.liars[5] = true // it signs anew for heads that it signed for
	s.nodes[5].start()
	s.liars[5] = false
	s.progress(3*time.Minute, 3, true)
}

// howl is a record that follows parent, on the wolf's own word; with a
// certificate if it is the only seat.
func (n *simNode) howl(parent Link) Link {
	r := parent.Record
	have := n.seal(&msg.Have{Run: n.sim.runID, Round: r.Round + 1, Head: parent.ID, Peer: n.id})
	c := n.sim.rules.Consequence(Basis{
		Parent: parent, Haves: []msg.Signed{have},
		Find: func(cid.Cid) (msg.Signed, bool) { return msg.Signed{}, false },
	})
	out := c.Record
	out.Proposer, out.Attempt, out.ParentCertificate = n.id, msg.MaxAttempt, parent.Certificate
	id, err := out.CID()
	if err != nil {
		n.sim.t.Fatal(err)
	}
	l := Link{ID: id, Record: out, Certified: parent.Certified}
	if len(out.Seats) == 1 {
		v := n.seal(&msg.Vote{Run: n.sim.runID, Round: out.Round, Head: parent.ID, Record: id, Peer: n.id})
		l.Certificate = &msg.Certificate{Record: id, Votes: [][]byte{v.Envelope}}
		l.Certified++
	}
	return l
}

// TestBackInTheMiddle: who comes back in the middle of a round, and without whose
// have there is no quorum, gives it when the time is up for the others, and not a
// whole period after it came.
func TestBackInTheMiddle(t *testing.T) {
	for seed := range uint64(4) {
		s := running(t, seed, 7, simOpts{}, 0)
		period := s.nodes[0].m.timing.Deadline
		away, others := s.nodes[2], s.nodes[3]
		s.nodes[5].stop()
		s.nodes[6].stop()
		from := others.chain.Head().Record.Round
		if !s.runUntil(4*period, func() bool { return others.chain.Head().Record.Round > from }) {
			t.Fatalf("stuck:\n%s", s.describe())
		}
		away.stop()
		s.runFor(period * 8 / 10)
		away.start()
		at := others.chain.Head().Record.Round + 1
		if !s.runUntil(4*period, func() bool { return others.chain.Head().Record.Round >= at }) {
			t.Fatalf("stuck:\n%s", s.describe())
		}
		l := others.chain.links[at]
		if n := len(l.Record.Haves); l.Certificate == nil || n != 5 {
			t.Errorf("seed %d: round %d, of %d seats, rests on %d haves, certified %v", seed, at, len(l.Record.Seats), n, l.Certificate != nil)
		}
	}
}
