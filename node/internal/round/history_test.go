package round

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/proto/msg"
)

// told are the records of a tale that were made, newest first.
func told(s *tale) []Link {
	list := slices.Clone(s.links)
	slices.Reverse(list)
	return list
}

// TestVerifyBefore: the records before a known one are tied to it by their hashes,
// and all that they say is checked.
func TestVerifyBefore(t *testing.T) {
	s := skippingTale(t)
	for range 6 {
		s.follow(turn{gain: useful})
	}
	all := told(s)
	all = all[:len(all)-1] // the first ones of a tale are made up
	var items []Item
	for _, l := range all[1:5] {
		items = append(items, itemOf(t, l))
	}
	got, err := s.rules.VerifyBefore(all[:1], items)
	if err != nil || len(got) != 5 || !got[4].ID.Equals(all[4].ID) {
		t.Fatalf("%d records, %v", len(got), err)
	}
	if got, err := s.rules.VerifyBefore(all[:1], items[1:]); err == nil || errors.Is(err, ErrRefuted) || len(got) != 1 || !strings.Contains(err.Error(), "offered as the one before") {
		t.Errorf("one left out: %d records, %v", len(got), err)
	}
	// A head that was made up, on records that are true: its consequence is not theirs.
	bad := *all[0].Record
	bad.Tokens += 1000
	head := Link{ID: mustID(t, &bad), Record: &bad}
	if got, err := s.rules.VerifyBefore([]Link{head}, items); !errors.Is(err, ErrRefuted) || len(got) != 2 || !strings.Contains(err.Error(), "not the consequence") {
		t.Errorf("a head that was made up: %d records, %v", len(got), err)
	}
	bad = *all[1].Record
	bad.Standings = slices.Clone(bad.Standings)
	bad.Standings[0].Work += 5 // a snapshot that flatters somebody
	flattered := Link{ID: mustID(t, &bad), Record: &bad}
	top := *all[0].Record
	top.Parent, top.ParentCertificate = flattered.ID, nil
	head = Link{ID: mustID(t, &top), Record: &top}
	if got, err := s.rules.VerifyBefore([]Link{head}, append([]Item{itemOf(t, flattered)}, items[1:]...)); !errors.Is(err, ErrRefuted) {
		t.Errorf("a standing that was made up: %d records are right", len(got))
	}
	for i := range items {
		broken := slices.Clone(items)
		broken[i].Record = append(slices.Clone(broken[i].Record), 0)
		if got, err := s.rules.VerifyBefore(all[:1], broken); err == nil || len(got) != 1+i {
			t.Errorf("item %d has a byte more: %d records, %v", i, len(got), err)
		}
	}
}

// TestVerifyBeforeVotes: certificates are checked wherever they come from.
func TestVerifyBeforeVotes(t *testing.T) {
	a := newAnnals(t, 9, four, nil)
	item := itemOf(t, a.links[8])
	if _, err := a.rules.VerifyBefore(a.links[9:10], []Item{item}); err != nil {
		t.Fatal(err)
	}
	if item.Certificate, _ = a.votes(a.links[8], a.links[8].Record.Seats[:2]).Encode(); len(item.Certificate) == 0 {
		t.Fatal("no certificate")
	}
	if _, err := a.rules.VerifyBefore(a.links[9:10], []Item{item}); err == nil || !strings.Contains(err.Error(), "2 votes") {
		t.Errorf("two votes of four: %v", err)
	}
}

// TestContradiction: two chains for which the same seats signed are told apart by
// proofs of heads that are beyond the same power of two; two proofs of one chain
// never contradict.
func TestContradiction(t *testing.T) {
	a := newAnnals(t, 100, four, nil)
	b := newAnnals(t, 100, func(n msg.Round) []int {
		if n > 30 {
			return []int{0, 1, 2, 3, 4}
		}
		return four(n)
	}, nil)
	proof := func(a *annals, from, to msg.Round) []Link {
		var links []Link
		for _, s := range Prove(from, to, atMost(100), a.at) {
			links = append(links, a.links[s.Round])
		}
		if len(links) == 0 || links[len(links)-1].Record.Round != to {
			t.Fatalf("no proof from %d to %d", from, to)
		}
		return links
	}
	for x := msg.Round(33); x <= 100; x++ {
		for y := msg.Round(33); y <= 100; y++ {
			if n, ok := Contradiction(proof(a, 0, x), proof(a, 0, y)); ok {
				t.Fatalf("proofs of %d and %d of one chain contradict in round %d", x, y, n)
			}
			n, ok := Contradiction(proof(a, 0, x), proof(b, 0, y))
			if x > 64 && y > 64 && !ok || ok && n < 30 {
				t.Errorf("proofs of %d and %d of two chains contradict: %v, in round %d", x, y, ok, n)
			}
		}
	}
}

// TestRestart: what does not depend on the chain is known to the machine that goes
// on after a jump.
func TestRestart(t *testing.T) {
	b := newBench(t, 4, 1)
	other := b.others()[0]
	b.receive(other, &msg.Status{Run: b.node.m.rules.run, Peer: other.id, Seq: 1 << 50, Head: testCID("far"), Round: 100})
	b.receive(other, &msg.JoinRequest{Run: b.node.m.rules.run, Peer: other.id, Seq: 1})
	launcher := b.nodes[0]
	b.receive(launcher, &msg.Order{Run: b.node.m.rules.run, Peer: launcher.id, Seq: 1, Action: msg.ActionPause})
	old := b.node.m
	n, err := old.Restart(b.now, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(n.View().Members, func(e Member) bool { return e.Status.Peer == other.id && e.Status.Round == 100 }) {
		t.Error("members were forgotten")
	}
	if !n.joins.has(other.id) || n.lastSeq != old.lastSeq || n.statusSeq != old.statusSeq || n.want != old.want {
		t.Error("requests or sequence numbers were forgotten")
	}
	if n.orders.of(launcher.id) < 0 {
		t.Error("an order that has not taken effect was forgotten")
	}
	asked := false
	for range 100 {
		for _, e := range n.Step(n.now.Add(time.Second), Tick{}) {
			if s, ok := e.(Sync); ok {
				asked = asked || s.From == other.id
			}
		}
	}
	if !asked {
		t.Error("nobody is asked for what follows")
	}
}

// TestOlder: a delta of a record that came later is told from a new one.
func TestOlder(t *testing.T) {
	b := newBench(t, 4, 1)
	head := b.head().Record.Round
	delta := testCID("delta of old")
	rec := func(n msg.Round) *msg.Record {
		return &msg.Record{Round: n, Contributions: []msg.Contribution{{Delta: delta}}}
	}
	b.node.m.older(Older{[]*msg.Record{rec(head)}})
	if b.node.m.deltas.had(delta, head+1) {
		t.Error("the head's own deltas were replaced")
	}
	b.node.m.head.Record = &msg.Record{Round: 100}
	b.node.m.older(Older{[]*msg.Record{rec(36)}})
	if b.node.m.deltas.had(delta, 101) {
		t.Error("what is too old is remembered")
	}
	b.node.m.older(Older{[]*msg.Record{rec(90)}})
	if !b.node.m.deltas.had(delta, 101) {
		t.Error("a delta of round 90 is new in round 101")
	}
}
