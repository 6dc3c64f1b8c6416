package round

import (
	"fmt"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

// TestCrashPoints: before whichever effect of two whole rounds a crash comes, in a
// run with pledges too, nothing is signed anew that may have been sent. The
// simulation holds it.
func TestCrashPoints(t *testing.T) {
	proposed := 0
	for i := range seeds(64) {
		at := i / 2
		// Others are slow, and much is lost: so a round is not over when who crashed
		// in it is back.
		slow := func(node int) time.Duration { return time.Second + time.Duration(node/2)*6*time.Second }
		s := newSim(t, uint64(70+i), 4, pledging(4), simOpts{loss: 250, trainTime: slow})
		s.startAll()
		s.runUntil(time.Minute, func() bool { return s.minRound() >= 2 })
		victim := s.nodes[i%2]
		victim.crashAt = at
		if !s.runUntil(time.Minute, func() bool { return !victim.up }) {
			t.Fatalf("no crash before effect %d", at)
		}
		for _, m := range victim.stored {
			if _, ok := m.Message.(*msg.Proposal); ok {
				proposed++
			}
		}
		s.after(time.Duration(s.rnd.IntN(900))*time.Millisecond, func() { victim.start() })
		s.opts.loss = 0
		s.runFor(15 * time.Second)
		s.progress(2*time.Minute, 3, true)
		if len(s.evidence) > 0 {
			t.Fatalf("effect %d: evidence against %v", at, s.evidence)
		}
	}
	if proposed == 0 {
		t.Error("the crashed ones never proposed anything")
	}
}

// forgetful is the bench's node with another memory of what it signed.
func (b *bench) forgetful(own []msg.Signed, spent ...cid.Cid) {
	b.t.Helper()
	n := b.node
	m, err := New(Config{
		Manifest: b.manifest, Run: b.runID, Self: n.id, Chain: n.chain, Own: own, Spent: spent,
		Sign: func(v msg.Message) (msg.Signed, error) { return msg.Seal(n.priv, v) },
	}, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	n.m, n.stored = m, nil
	b.step(0, Tick{})
	b.step(0, Want{Seat: true})
}

// saidBefore is what a node signed for the head before its head.
func (n *simNode) saidBefore() []msg.Signed {
	var list []msg.Signed
	for _, s := range n.stored {
		if at, _, ok := headOf(s.Message); ok && at.Equals(n.chain.Head().Record.Parent) {
			list = append(list, s)
		}
	}
	return list
}

func (b *bench) signedForHead() []msg.Signed {
	var list []msg.Signed
	for _, s := range b.node.stored {
		if _, _, ok := headOf(s.Message); ok {
			list = append(list, s)
		}
	}
	return list
}

// TestSpentHead: for a head for which something may have been signed that is not
// known any more nothing is signed; the next one is as usual. Who is the only seat
// goes on.
func TestSpentHead(t *testing.T) {
	b := newBench(t, 4, 3)
	b.forgetful(nil, b.head().ID)
	b.train()
	by, r := b.toVote(seatOf(b.head().Record.NextSeats, b.node.id))
	b.receive(by, b.proposal(r, by, 0))
	b.step(time.Minute, Tick{})
	if list := b.signedForHead(); len(list) > 0 {
		t.Fatalf("signed %T for a head that is spent", list[0].Message)
	}
	for _, o := range b.others() {
		b.receive(o, b.voteFor(o, r))
	}
	if !b.head().ID.Equals(mustCID(t, r)) {
		t.Fatal("it does not follow")
	}
	b.step(time.Minute, Tick{})
	if len(b.signedForHead()) == 0 {
		t.Error("nothing is signed for the next head")
	}

	sole := newBench(t, 1, 0)
	sole.forgetful(nil, sole.head().ID)
	sole.step(time.Minute, Tick{})
	if len(sole.signedForHead()) == 0 {
		t.Error("a run of one seat stands still")
	}
}

// TestRecall: what others heard from this peer it has said, also if it does not
// know it: as when its folder was restored, or another node has its key.
func TestRecall(t *testing.T) {
	b := newBench(t, 4, 3)
	by, r := b.toVote(seatOf(b.head().Record.NextSeats, b.node.id))
	vote := b.voteFor(b.node, r)
	vote.Record = testCID("another")
	have := &msg.Have{Run: b.runID, Round: r.Round, Head: r.Parent, Peer: b.node.id}
	b.forgetful(b.node.saidBefore())
	b.step(0, Received{b.node.seal(vote)})
	b.step(0, Received{b.node.seal(have)})
	if n := len(b.signedForHead()); n != 2 {
		t.Fatalf("%d messages are stored, want those that came back", n)
	}
	b.receive(by, b.proposal(r, by, 0))
	b.step(time.Minute, Tick{})
	for _, s := range b.signedForHead() {
		switch m := s.Message.(type) {
		case *msg.Vote:
			if !m.Record.Equals(vote.Record) {
				t.Error("it votes once more")
			}
		case *msg.Have:
			if len(m.Entries) > 0 || len(m.Joins) > 0 {
				t.Error("it gives another have")
			}
		}
	}
	if b.node.m.cur != nil && b.node.m.cur.parent.ID.Equals(r.Parent) && b.node.m.cur.t0.IsZero() {
		t.Error("its attempts never begin")
	}
	// A have in a proposal is heard, too.
	b = newBench(t, 4, 3)
	by, r = b.toVote(3)
	inside := false
	for _, e := range r.Haves {
		s, err := msg.Open(e)
		if err != nil {
			t.Fatal(err)
		}
		inside = inside || s.From == b.node.id
	}
	b.forgetful(b.node.saidBefore())
	b.receive(by, b.proposal(r, by, 0))
	known := b.node.m.own.at(r.Parent).have
	if inside != (known != nil) {
		t.Errorf("its have is in the proposal: %v; it knows it: %v", inside, known != nil)
	}
	if !inside {
		t.Error("the proposal has no have of it")
	}
	// What it committed to is told while it trains.
	b = newBench(t, 4, 3)
	head := b.head()
	b.forgetful(b.node.saidBefore())
	b.step(0, Want{Seat: true})
	if !b.node.m.training {
		t.Fatal("it does not train")
	}
	said := b.node.seal(b.commitOf(b.node, 7))
	b.step(0, Received{said})
	b.train()
	for _, s := range b.signedForHead() {
		if _, ok := s.Message.(*msg.Commit); ok && !s.CID.Equals(said.CID) {
			t.Error("it commits to another delta")
		}
	}
	// Old ones take the place of nothing.
	for i := range 3 * keepHeads {
		old := b.commitOf(b.node, 1)
		old.Head, old.Round = testCID(fmt.Sprint("old ", i)), 1
		b.step(0, Received{b.node.seal(old)})
	}
	if mine := b.node.m.own.at(head.ID); mine.forgotten || mine.commit == nil {
		t.Error("old messages make it forget what it said for the head")
	}
}

// TestDoubt: whose record says that it had part in the round before, and knows nothing of
// that, signs nothing for the head, for it may have done so; the next one, and one after
// which it was missing, are as usual, and so is all for who knows what it said.
func TestDoubt(t *testing.T) {
	b := newBench(t, 4, 3)
	self := seatOf(b.head().Record.NextSeats, b.node.id)
	if s := b.head().Record.NextSeats[self]; s.Missed > 0 || len(b.node.saidBefore()) == 0 {
		t.Fatal("it had no part in the round before")
	}
	before := b.node.saidBefore()
	b.forgetful(before)
	if !b.node.m.training {
		t.Error("who knows what it said does not train")
	}
	b.forgetful(nil)
	b.train()
	if b.node.doubts != 1 {
		t.Errorf("it is told %d times that nothing is signed, want once", b.node.doubts)
	}
	by, r := b.toVote(self)
	b.receive(by, b.proposal(r, by, 0))
	b.step(time.Minute, Tick{})
	if list := b.signedForHead(); len(list) > 0 {
		t.Fatalf("signed %T for a head for which it may have signed", list[0].Message)
	}
	for _, o := range b.others() {
		b.receive(o, b.voteFor(o, r))
	}
	if !b.head().ID.Equals(mustCID(t, r)) {
		t.Fatal("it does not follow")
	}
	if in := r.NextSeats[seatOf(r.NextSeats, b.node.id)]; in.Missed == 0 {
		t.Fatal("it had part in this round")
	}
	b.step(time.Minute, Tick{})
	if len(b.signedForHead()) == 0 {
		t.Error("nothing is signed for the next head")
	}
	// What others say that it said, in the round before or this one, is no memory.
	for _, now := range []bool{false, true} {
		b = newBench(t, 4, 3)
		m, head := b.node.m, b.head()
		said := b.node.saidBefore()[0]
		if now {
			said = b.node.seal(b.commitOf(b.node, 7))
		}
		m.own = ownBook{byHead: make(map[cid.Cid]*signedFor)}
		m.recall(said)
		if at, _, _ := slotOf(said.Message); len(m.own.at(at).all()) != 1 {
			t.Fatal("it does not take what it said")
		}
		m.doubt(head)
		if !m.own.at(head.ID).forgotten {
			t.Errorf("in this round: %v; who is told what it said does not doubt that this is all", now)
		}
	}
	// Also of who was given something of this round by its folder.
	b = newBench(t, 4, 3)
	b.forgetful([]msg.Signed{b.node.seal(b.commitOf(b.node, 7))})
	if b.node.m.own.at(b.head().ID).commit == nil {
		t.Error("what is known is forgotten")
	}
}
