package round

import (
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// TestReplays: whatever was said before, in earlier rounds, of orders that others have
// replaced, of leaves that were taken back, in another run, is said again and again by
// somebody else, to everybody: nothing of it has an effect a second time, nobody is
// accused for it, and rounds go on.
func TestReplays(t *testing.T) {
	s := running(t, 64, 4, simOpts{}, 1)
	other := runningOf(t, 65, 4, pledging(4), simOpts{}, 0)
	var heard []msg.Signed
	s.overhear = func(m msg.Signed) { heard = append(heard, m) }
	other.overhear = s.overhear
	other.runFor(20 * time.Second)
	order := func(a msg.Action, done func(*msg.Course) bool) {
		t.Helper()
		s.nodes[0].step(Give{msg.Order{Action: a}})
		if !s.runUntil(3*time.Minute, func() bool {
			c := s.nodes[1].chain.Head().Record.Course
			return c != nil && done(c)
		}) {
			t.Fatalf("the order has no effect:\n%s", s.describe())
		}
	}
	order(msg.ActionPause, func(c *msg.Course) bool { return c.Paused })
	order(msg.ActionResume, func(c *msg.Course) bool { return !c.Paused })
	guest := s.nodes[4]
	guest.start()
	seated := func() bool { return seatOf(s.nodes[0].chain.Head().Record.NextSeats, guest.id) >= 0 }
	if !s.runUntil(3*time.Minute, seated) {
		t.Fatalf("no seat:\n%s", s.describe())
	}
	guest.step(Want{Seat: false})
	if !s.runUntil(3*time.Minute, func() bool { return !seated() }) {
		t.Fatalf("it does not leave:\n%s", s.describe())
	}
	guest.step(Want{Seat: true})
	if !s.runUntil(3*time.Minute, seated) {
		t.Fatalf("it does not come back:\n%s", s.describe())
	}
	s.runFor(30 * time.Second)
	seq, from := s.nodes[0].chain.Head().Record.Course.Seq, s.minRound()
	old, replayed := heard, 0
	var again func()
	again = func() {
		for range 20 {
			m := old[s.rnd.IntN(len(old))]
			for _, to := range s.nodes {
				to.step(Received{m})
				replayed++
			}
		}
		s.after(200*time.Millisecond, again)
	}
	again()
	s.progress(5*time.Minute, 12, true)
	head := s.nodes[0].chain.Head().Record
	if head.Course.Seq != seq || head.Course.Paused {
		t.Errorf("an old order has an effect: seq %d, was %d", head.Course.Seq, seq)
	}
	for _, l := range s.nodes[0].chain.links[from+1:] {
		if len(l.Record.NextSeats) != 5 {
			t.Errorf("round %d has %d seats after it, want all 5", l.Record.Round, len(l.Record.NextSeats))
		}
		if len(l.Record.Joins) > 0 || len(l.Record.Orders) > 0 {
			t.Errorf("in round %d, %d requests and %d orders take effect", l.Record.Round, len(l.Record.Joins), len(l.Record.Orders))
		}
	}
	if len(s.evidence) > 0 {
		t.Errorf("there is evidence against %v", s.evidence)
	}
	for _, n := range s.nodes {
		if n.reorgs > 0 || len(n.misbehaved) > 0 {
			t.Errorf("node %d left its chain %d times, and accuses %v", n.i, n.reorgs, n.misbehaved)
		}
	}
	t.Logf("%d messages again, of %d", replayed, len(old))
}

// TestReplaysAfterRestart: nodes that were all restarted know which requests for seats
// took effect, lately or long ago: who says a leave again, after which its peer came back, takes no
// seat away, and a request of who is gone gives it none.
func TestReplaysAfterRestart(t *testing.T) {
	s := running(t, 66, 4, simOpts{}, 2)
	var heard []msg.Signed
	s.overhear = func(m msg.Signed) {
		if _, ok := m.Message.(*msg.JoinRequest); ok {
			heard = append(heard, m)
		}
	}
	want := func(n *simNode, seat bool) {
		t.Helper()
		n.step(Want{Seat: seat})
		if !s.runUntil(5*time.Minute, func() bool {
			return (seatOf(s.nodes[0].chain.Head().Record.NextSeats, n.id) >= 0) == seat
		}) {
			t.Fatalf("node %d does not get what it wants:\n%s", n.i, s.describe())
		}
	}
	back, gone := s.nodes[4], s.nodes[5]
	for _, n := range []*simNode{back, gone} {
		n.wants = false
		n.start()
		want(n, true)
	}
	want(back, false)
	want(back, true)
	back.wants = true
	for _, since := range []msg.Round{3, rememberDeltas + 3} {
		t.Logf("round %d", s.minRound())
		if at := s.nodes[0].chain.Head().Record; at.Round < at.NextSeats[seatOf(at.NextSeats, back.id)].Since+since {
			s.progress(time.Hour, since, true)
		}
		if since == 3 {
			want(gone, false)
			gone.stop()
		}
		// The newest of each is not said: it would take the place of the others. Of who
		// went long ago nothing is known any more.
		newest := make(map[peer.ID]uint64)
		for _, m := range heard {
			newest[m.From] = max(newest[m.From], m.Message.(*msg.JoinRequest).Seq)
		}
		old := slices.DeleteFunc(slices.Clone(heard), func(m msg.Signed) bool {
			return m.Message.(*msg.JoinRequest).Seq == newest[m.From] || m.From == gone.id && since > rememberDeltas
		})
		for _, n := range s.nodes[:5] {
			n.stop()
			n.start()
		}
		from := s.minRound()
		for range 4 {
			for _, m := range old {
				for _, to := range s.nodes[:5] {
					to.step(Received{m})
				}
			}
			s.progress(5*time.Minute, 1, true)
		}
		for _, l := range s.nodes[0].chain.links[from+1:] {
			if len(l.Record.Joins) > 0 || len(l.Record.NextSeats) != 5 {
				t.Errorf("round %d: %d requests take effect, %d seats after it, want 0 and 5", l.Record.Round, len(l.Record.Joins), len(l.Record.NextSeats))
			}
		}
	}
}

// lastOnly is a chain of which only the last record is there, as after a jump.
type lastOnly struct{ Chain }

func (c lastOnly) Link(id cid.Cid) (Link, bool) {
	if h := c.Head(); h.ID.Equals(id) {
		return h, true
	}
	return Link{}, false
}

// TestRequestsAfterJump: the requests that gave the seats are known, however short ago it
// was, also where the records before the head are not there to be walked.
func TestRequestsAfterJump(t *testing.T) {
	s := running(t, 67, 4, simOpts{}, 1)
	guest := s.nodes[4]
	guest.start()
	n := s.nodes[0]
	if !s.runUntil(3*time.Minute, func() bool { return seatOf(n.chain.Head().Record.NextSeats, guest.id) >= 0 }) {
		t.Fatalf("no seat:\n%s", s.describe())
	}
	s.progress(time.Minute, 2, true)
	m, err := New(Config{
		Manifest: s.manifest, Run: s.runID, Self: n.id, Chain: lastOnly{n.chain}, At: n.chain.round,
		Sign: func(v msg.Message) (msg.Signed, error) { return msg.Seal(n.priv, v) },
	}, s.now)
	if err != nil {
		t.Fatal(err)
	}
	if m.joins.took[guest.id] == 0 {
		t.Error("it is not known that a request took effect two rounds ago")
	}
}
