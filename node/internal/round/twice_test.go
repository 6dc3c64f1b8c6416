package round

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/moot-net/moot/proto/msg"
)

// votes are two of a node for one head.
func (n *simNode) votes(head Link) (one, two msg.Signed) {
	v := msg.Vote{Run: n.sim.runID, Round: head.Record.Round + 1, Head: head.ID, Peer: n.id}
	w := v
	v.Record, w.Record = testCID("one"), testCID("two")
	return n.seal(&v), n.seal(&w)
}

// votesTwice makes a liar of a node that tells who is told two votes, beside each of
// its haves.
func (s *sim) votesTwice(n *simNode, told func(to int) bool) {
	s.liars[n.i] = true
	n.lie = func(to int, m msg.Signed) []msg.Signed {
		if _, ok := m.Message.(*msg.Have); !ok || !told(to) {
			return []msg.Signed{m}
		}
		one, two := n.votes(n.chain.Head())
		return []msg.Signed{m, one, two}
	}
}

// bannedBy waits until a node is banned for ever, for all the others, by one proof
// in the chain, and has no seat.
func (s *sim) bannedBy(n *simNode, within time.Duration) *msg.Record {
	s.t.Helper()
	if !s.runUntil(within, func() bool {
		for _, o := range s.nodes {
			r := o.chain.Head().Record
			e := standings(r.Standings).of(n.id)
			if o != n && o.up && (e.Until != msg.MaxRound || e.Reason != msg.Equivocation || seatOf(r.NextSeats, n.id) >= 0) {
				return false
			}
		}
		return true
	}) {
		s.t.Fatalf("node %d is not banned:\n%s", n.i, s.describe())
	}
	var by *msg.Record
	for _, l := range s.nodes[0].chain.links {
		if len(l.Record.Proofs) > 0 {
			if by != nil || len(l.Record.Proofs) != 1 {
				s.t.Errorf("more than one proof is recorded, in round %d too", l.Record.Round)
			}
			by = l.Record
		}
	}
	if by == nil {
		s.t.Fatal("no proof is recorded")
	}
	return by
}

// TestVotesToOne: that one peer alone heard both votes is enough, as soon as it
// proposes.
func TestVotesToOne(t *testing.T) {
	for told := range 4 {
		if told == 2 {
			continue
		}
		s := running(t, uint64(30+told), 4, simOpts{}, 0)
		s.votesTwice(s.nodes[2], func(to int) bool { return to == told })
		if by := s.bannedBy(s.nodes[2], 5*time.Minute); by.Proposer != s.nodes[told].id {
			t.Errorf("node %d has both votes, and another proposed the proof", told)
		}
	}
}

// TestVotesOfTrainee: who only trains, and has a vote that counts for nothing, is
// banned for two all the same.
func TestVotesOfTrainee(t *testing.T) {
	s := newSim(t, 33, 5, audited(4, 50), simOpts{})
	s.opts.gain = func(auditor *simNode, _ int) int64 { return honestGain(s, auditor) }
	for _, n := range s.nodes[:4] {
		n.start()
	}
	s.runUntil(time.Minute, func() bool { return s.minRound() >= 3 })
	liar := s.nodes[4]
	liar.start()
	if !s.runUntil(2*time.Minute, func() bool {
		r := s.nodes[0].chain.Head().Record
		i := seatOf(r.NextSeats, liar.id)
		return i >= 0 && r.NextSeats[i].Trainee && seatOf(r.Seats, liar.id) >= 0
	}) {
		t.Fatalf("it has no seat:\n%s", s.describe())
	}
	s.votesTwice(liar, func(int) bool { return true })
	s.bannedBy(liar, 3*time.Minute)
}

// TestVotesApart: of two votes this peer hears one, and nobody passes the other
// on: it is in the certificate that others have.
func TestVotesApart(t *testing.T) {
	b := newBench(t, 4, 3)
	by, r := b.toVote(3)
	b.receive(by, b.proposal(r, by, 0))
	o := b.others()
	liar := o[0]
	other := b.voteFor(liar, r)
	other.Record = testCID("another")
	b.receive(liar, other)
	b.receive(o[1], b.voteFor(o[1], r))
	b.receive(o[2], b.voteFor(o[2], r))
	if len(effects[Adopt](b)) != 1 {
		t.Fatal("the record is not adopted")
	}
	theirs := &msg.Certificate{Record: mustCID(t, r)}
	for _, seat := range r.Seats {
		if n := b.nodes[b.indexOf(seat)]; n != b.node {
			theirs.Votes = append(theirs.Votes, n.seal(b.voteFor(n, r)).Envelope)
		}
	}
	_, next := b.toVote(3)
	order := Proposers(next.Parent, next.Seats)
	for b.nodes[b.indexOf(next.Seats[order[next.Attempt]])] == b.node {
		next.Attempt++
	}
	by = b.nodes[b.indexOf(next.Seats[order[next.Attempt]])]
	next.Proposer, next.ParentCertificate = by.id, theirs
	b.receive(by, b.proposal(next, by, next.Attempt))
	e := effects[Evidence](b)
	if len(e) != 1 || e[0].A.From != liar.id {
		t.Fatalf("evidence is %v", e)
	}
	if list := b.node.m.proofs.against(b.head().Record); len(list) != 1 || list[0].peer() != liar.id {
		t.Errorf("proofs are %v", list)
	}
}

// TestVotesAtTheEnd: two votes of a peer whose seat ended in that very round are
// of no use then, and are kept: it is banned as soon as it has a seat again. Those
// of a peer that never had one are none.
func TestVotesAtTheEnd(t *testing.T) {
	s := running(t, 34, 4, simOpts{}, 1)
	liar := s.nodes[3]
	s.liars[3] = true
	liar.step(Want{Seat: false})
	gone := func() bool {
		for _, n := range s.nodes[:3] {
			if n.chain.Head().Record.Round < 3 || seatOf(n.chain.Head().Record.NextSeats, liar.id) >= 0 || !n.chain.Head().ID.Equals(s.nodes[0].chain.Head().ID) {
				return false
			}
		}
		return true
	}
	if !s.runUntil(3*time.Minute, gone) {
		t.Fatalf("it does not leave:\n%s", s.describe())
	}
	head := s.nodes[0].chain.Head()
	if seatOf(head.Record.Seats, liar.id) < 0 {
		t.Fatal("its seat did not end in the round of the head")
	}
	before, _ := s.nodes[0].chain.Link(head.Record.Parent)
	for _, n := range s.nodes[:3] {
		for _, x := range []*simNode{liar, s.nodes[4]} {
			one, two := x.votes(before)
			n.step(Received{one})
			n.step(Received{two})
		}
	}
	if s.evidence[s.nodes[4].id] || !s.evidence[liar.id] {
		t.Errorf("evidence is against %v", s.evidence)
	}
	s.progress(3*time.Minute, 3, true)
	for _, l := range s.nodes[0].chain.links {
		if len(l.Record.Proofs) > 0 {
			t.Errorf("round %d has a proof against who has no seat", l.Record.Round)
		}
	}
	liar.step(Want{Seat: true})
	by := s.bannedBy(liar, 3*time.Minute)
	if seatOf(by.Seats, liar.id) < 0 {
		t.Error("it was banned without a seat")
	}
}

// TestProofBook: when it is full, what is of no use goes, and not what is new.
func TestProofBook(t *testing.T) {
	var b proofBook
	head := &msg.Record{}
	twice := func(i int) (one, two msg.Signed) {
		key, id := testKey(i)
		v := msg.Vote{Run: testCID("run"), Round: 1, Head: testCID("head"), Peer: id}
		for k, to := range []*msg.Signed{&one, &two} {
			v.Record = testCID(fmt.Sprint(k))
			s, err := msg.Seal(key, &v)
			if err != nil {
				t.Fatal(err)
			}
			*to = s
		}
		return one, two
	}
	has := func(i int) bool {
		one, two := twice(i)
		p, _ := newProof(one, two)
		_, ok := b.find(p)
		return ok
	}
	add := func(i int) {
		one, two := twice(i)
		b.add(one, two, head)
	}
	for i := range maxProofs {
		_, id := testKey(i)
		head.NextSeats = append(head.NextSeats, msg.Seat{Peer: id})
	}
	slices.SortFunc(head.NextSeats, func(a, b msg.Seat) int { return comparePeers(a.Peer, b.Peer) })
	for i := range maxProofs {
		add(i)
		add(i)
	}
	if len(b.list) != maxProofs {
		t.Fatalf("%d proofs, want %d", len(b.list), maxProofs)
	}
	add(100)
	if has(100) || len(b.list) != maxProofs {
		t.Error("a proof that is of use went")
	}
	_, left := testKey(0)
	head.NextSeats = slices.DeleteFunc(head.NextSeats, func(s msg.Seat) bool { return s.Peer == left })
	_, banned := testKey(5)
	*(*standings)(&head.Standings).at(banned) = msg.Standing{Peer: banned, Until: msg.MaxRound, Reason: msg.Equivocation}
	add(101)
	if !has(101) || has(5) || !has(0) {
		t.Errorf("the new one %v, of who is banned %v, of who left %v", has(101), has(5), has(0))
	}
	_, id := testKey(101)
	head.NextSeats = append(head.NextSeats, msg.Seat{Peer: id})
	slices.SortFunc(head.NextSeats, func(a, b msg.Seat) int { return comparePeers(a.Peer, b.Peer) })
	add(102)
	if !has(102) || !has(101) || has(0) || len(b.list) != maxProofs {
		t.Errorf("the new one %v, of who left %v, all %d", has(102), has(0), len(b.list))
	}
}
