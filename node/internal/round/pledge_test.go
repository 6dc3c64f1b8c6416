package round

import (
	"testing"
	"time"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

func pledging(minPeers int) *run.Manifest {
	return testManifest(func(m *run.Manifest) { m.MinPeers, m.Pledges = uint32(minPeers), true })
}

// promised is a proposal with the pledge of a node.
func (n *simNode) promised(p *msg.Proposal) *msg.Proposal {
	n.sim.t.Helper()
	if err := p.Promise(func(v msg.Message) (msg.Signed, error) { return msg.Seal(n.priv, v) }); err != nil {
		n.sim.t.Fatal(err)
	}
	return p
}

// another proposes another record for the attempt of p, which need not keep the
// rules.
func (n *simNode) another(p *msg.Proposal) msg.Signed {
	n.sim.t.Helper()
	r, err := msg.DecodeRecord(p.Record)
	if err != nil {
		n.sim.t.Fatal(err)
	}
	r.Tokens++
	b, err := r.Encode()
	if err != nil {
		n.sim.t.Fatal(err)
	}
	q := &msg.Proposal{Run: p.Run, Round: p.Round, Attempt: p.Attempt, Peer: p.Peer, Record: b}
	if len(p.Pledge) > 0 {
		n.promised(q)
	}
	return n.seal(q)
}

// TestProposesTwice: who proposes two records in one attempt is banned for ever by
// a proof in the chain, whoever hears both; and what the ledger says of it can be
// checked by everybody.
func TestProposesTwice(t *testing.T) {
	for told := range 3 {
		s := newSim(t, uint64(50+told), 4, pledging(4), simOpts{})
		s.startAll()
		s.runUntil(time.Minute, func() bool { return s.minRound() >= 2 })
		liar := s.nodes[3]
		s.liars[3] = true
		liar.lie = func(to int, m msg.Signed) []msg.Signed {
			p, ok := m.Message.(*msg.Proposal)
			switch {
			case !ok:
				return []msg.Signed{m}
			case to == told:
				return []msg.Signed{m, liar.another(p)}
			}
			return []msg.Signed{m}
		}
		by := s.bannedBy(liar, 5*time.Minute)
		if by.Proposer != s.nodes[told].id {
			t.Errorf("node %d has both proposals, and another proposed the proof", told)
		}
		first, _, err := msg.OpenAs[*msg.Pledge](by.Proofs[0].First)
		if err != nil {
			t.Fatalf("the proof is not of pledges: %v", err)
		}
		if first.Peer != liar.id {
			t.Errorf("the proof is against %v", first.Peer)
		}
		if e := standings(by.Standings).of(liar.id); e.Reason != msg.Equivocation {
			t.Errorf("banned for %v", e.Reason)
		}
		s.verifyChain(s.nodes[told])
	}
}

// verifyChain checks the whole chain of a node anew, as a replay does.
func (s *sim) verifyChain(n *simNode) {
	s.t.Helper()
	var before Link
	for i, l := range n.chain.links[1:] {
		if _, err := s.rules.Verify(before, n.chain.links[i], l.Record); err != nil {
			s.t.Fatalf("round %d: %v", l.Record.Round, err)
		}
		before = n.chain.links[i]
	}
}

// TestPledgesOfProposals: two proposals in an attempt are evidence if their records
// differ, and not if their signatures do; and a proposal without a pledge is none in
// a run that has them.
func TestPledgesOfProposals(t *testing.T) {
	b := newBenchOf(t, pledging(4), 4, 3)
	by, r := b.toVote(3)
	b.receive(by, b.proposal(r, by, 0))
	if _, ok := sent[*msg.Vote](b); ok {
		t.Error("voted for a proposal without a pledge")
	}
	if bad := effects[Misbehaved](b); len(bad) != 1 || bad[0].Peer != by.id {
		t.Errorf("misbehaved is %v", bad)
	}
	p := by.promised(b.proposal(r, by, 0))
	b.receive(by, p)
	if _, ok := sent[*msg.Vote](b); !ok {
		t.Fatal("no vote for a proposal with a pledge")
	}
	b.step(0, Received{by.seal(p)})
	if e := effects[Evidence](b); len(e) != 0 {
		t.Errorf("the same proposal again is evidence: %v", e)
	}
	two := by.another(p)
	b.step(0, Received{two})
	e := effects[Evidence](b)
	if len(e) != 1 || e[0].A.From != by.id {
		t.Fatalf("evidence is %v", e)
	}
	if _, ok := e[0].A.Message.(*msg.Pledge); !ok {
		t.Errorf("evidence is of %T, which no record can hold", e[0].A.Message)
	}
	if list := b.node.m.proofs.against(b.head().Record); len(list) != 1 || list[0].peer() != by.id {
		t.Errorf("proofs are %v", list)
	}
	b.step(0, Received{by.another(two.Message.(*msg.Proposal))})
	if e := effects[Evidence](b); len(e) != 0 {
		t.Error("a third one is told of, too")
	}
}

// TestPledgeProofs: what two pledges have to be to prove something.
func TestPledgeProofs(t *testing.T) {
	key, id := testKey(1)
	p := msg.Pledge{Run: testCID("run"), Round: 3, Head: testCID("head"), Attempt: 1, Record: testCID("one"), Peer: id}
	seal := func(m msg.Message) msg.Signed {
		s, err := msg.Seal(key, m)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, tt := range map[string]struct {
		change func(*msg.Pledge)
		proves bool
	}{
		"two records":      {func(q *msg.Pledge) {}, true},
		"one record":       {func(q *msg.Pledge) { q.Record = p.Record }, false},
		"two attempts":     {func(q *msg.Pledge) { q.Attempt = 2 }, false},
		"two heads":        {func(q *msg.Pledge) { q.Head = testCID("other") }, false},
		"two rounds":       {func(q *msg.Pledge) { q.Round = 4 }, false},
		"two runs":         {func(q *msg.Pledge) { q.Run = testCID("other") }, false},
		"round and cell":   {func(q *msg.Pledge) { q.Cell = 2 }, false},
		"the same message": {func(q *msg.Pledge) { *q = p }, false},
	} {
		q := p
		q.Record = testCID("two")
		tt.change(&q)
		if _, ok := newProof(seal(&p), seal(&q)); ok != tt.proves {
			t.Errorf("%s: a proof is %v, want %v", name, ok, tt.proves)
		}
	}
	vote := &msg.Vote{Run: p.Run, Round: 3, Head: p.Head, Record: testCID("two"), Peer: id}
	for range 2 {
		if _, ok := newProof(seal(&p), seal(vote)); ok {
			t.Error("a pledge and a vote prove something")
		}
		vote.Attempt++ // so that the order of their CIDs is another, perhaps
	}
	// Each peer of a run without pledges has to know what its records can hold.
	b := newBench(t, 4, 3)
	liar := b.others()[0]
	head := b.head()
	two := [2]msg.Signed{}
	for i, word := range []string{"one", "two"} {
		two[i] = liar.seal(&msg.Pledge{Run: b.runID, Round: head.Record.Round, Head: head.Record.Parent, Record: testCID(word), Peer: liar.id})
	}
	proof, ok := newProof(two[0], two[1])
	if !ok {
		t.Fatal("no proof")
	}
	_, r := b.toVote(3)
	r.Proofs = []msg.Proof{proof.message()}
	if _, err := b.rules.openProofs(head.Record, r, msg.Open); err == nil {
		t.Error("a proof of pledges in a run without")
	}
	ru := *b.rules
	m := *ru.manifest
	m.Pledges = true
	ru.manifest = &m
	if _, err := ru.openProofs(head.Record, r, msg.Open); err != nil {
		t.Errorf("in a run with pledges: %v", err)
	}
}
