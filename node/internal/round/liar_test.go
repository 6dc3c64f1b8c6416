package round

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// fault is how a liar lies.
type fault int

const (
	doubles    fault = iota // two commits, haves, proposals and votes, one for each half
	wrongState              // proposals with another state
	alone                   // proposals of the fallback on its own have, at once
	silent                  // takes part in nothing
	holdsAll                // lists nothing as held, and all for another reason
	faults
)

func (f fault) String() string {
	return [...]string{"doubles", "wrong state", "alone", "silent", "holds all"}[f]
}

func (n *simNode) seal(v msg.Message) msg.Signed {
	s, err := msg.Seal(n.priv, v)
	if err != nil {
		n.sim.t.Fatal(err)
	}
	return s
}

// turn makes a liar of a node. Liars know each other and vote for everything
// that one of them proposes.
func (s *sim) turn(n *simNode, f fault) {
	s.liars[n.i] = true
	twins := make(map[cid.Cid]msg.Signed)
	n.lie = func(to int, m msg.Signed) []msg.Signed {
		_, isStatus := m.Message.(*msg.Status)
		switch f {
		case silent:
			if !isStatus {
				return nil
			}
		case doubles:
			twin, ok := twins[m.CID]
			if !ok {
				twin = n.twin(m)
				twins[m.CID] = twin
			}
			if to%2 == 1 {
				return []msg.Signed{twin}
			}
		case wrongState:
			if p, ok := m.Message.(*msg.Proposal); ok {
				return []msg.Signed{n.altered(p, func(r *msg.Record) { r.State = testCID("wrong") })}
			}
		case alone:
			if h, ok := m.Message.(*msg.Have); ok {
				return []msg.Signed{m, n.lonely(m, h)}
			}
		case holdsAll:
			if h, ok := m.Message.(*msg.Have); ok {
				lie := *h
				lie.Entries = slices.Clone(h.Entries)
				for i := range lie.Entries {
					lie.Entries[i].Reason = msg.BadNorm
				}
				return []msg.Signed{n.seal(&lie)}
			}
		}
		return []msg.Signed{m}
	}
}

// twin is another message of the same kind for the same head.
func (n *simNode) twin(m msg.Signed) msg.Signed {
	switch v := m.Message.(type) {
	case *msg.Commit:
		w := *v
		w.Tokens++
		return n.seal(&w)
	case *msg.Have:
		w := *v
		w.Entries = nil
		return n.seal(&w)
	case *msg.Proposal:
		return n.altered(v, nil)
	case *msg.Vote:
		w := *v
		w.Record = testCID("another")
		for _, c := range n.m.cur.candidates {
			if !c.id.Equals(v.Record) {
				w.Record = c.id
			}
		}
		return n.seal(&w)
	}
	return m
}

// altered is a proposal of a record with one have less, or changed.
func (n *simNode) altered(p *msg.Proposal, change func(*msg.Record)) msg.Signed {
	r, err := msg.DecodeRecord(p.Record)
	if err != nil {
		n.sim.t.Fatal(err)
	}
	if change != nil {
		change(r)
	} else {
		r = n.resting(r, r.Haves[:max(1, len(r.Haves)-1)])
	}
	b, err := r.Encode()
	if err != nil {
		n.sim.t.Fatal(err)
	}
	w := *p
	w.Record = b
	return n.seal(&w)
}

// resting is what r would be on other haves.
func (n *simNode) resting(r *msg.Record, envelopes [][]byte) *msg.Record {
	parent, ok := n.chain.Link(r.Parent)
	if !ok {
		return r
	}
	var haves []msg.Signed
	for _, e := range envelopes {
		s, err := msg.Open(e)
		if err != nil {
			n.sim.t.Fatal(err)
		}
		haves = append(haves, s)
	}
	c := n.sim.rules.Consequence(Basis{Parent: parent, Haves: haves, Find: func(id cid.Cid) (msg.Signed, bool) {
		for _, h := range []*height{n.m.cur, n.m.prev} {
			if h != nil {
				if s, ok := h.find(id); ok {
					return s, true
				}
			}
		}
		return n.m.joins.find(id)
	}})
	if len(c.Blocked) > 0 {
		return r
	}
	out := c.Record
	if c.Folds() {
		out = c.weigh(fakeFold(c.Fold(parent.Record.State)))
	}
	out.ParentCertificate, out.Attempt, out.Proposer = r.ParentCertificate, r.Attempt, r.Proposer
	return out
}

// lonely is a fallback proposal on one have.
func (n *simNode) lonely(m msg.Signed, h *msg.Have) msg.Signed {
	r := n.resting(&msg.Record{
		Version: msg.RecordVersion, Run: h.Run, Round: h.Round, Parent: h.Head, Attempt: msg.MaxAttempt, Proposer: n.id,
	}, [][]byte{m.Envelope})
	b, err := r.Encode()
	if err != nil {
		return m
	}
	return n.seal(&msg.Proposal{Run: h.Run, Round: h.Round, Attempt: msg.MaxAttempt, Peer: n.id, Record: b})
}

// TestLiars: as many liars as a network bears, which work together, neither
// get two records certified nor stop the others.
func TestLiars(t *testing.T) {
	for seed := range seeds(15) {
		f := fault(seed % int(faults))
		n := []int{4, 7, 10}[seed/int(faults)%3]
		t.Run(fmt.Sprintf("%d/%v/n=%d", seed, f, n), func(t *testing.T) {
			t.Parallel()
			s := newSim(t, uint64(seed), n, testManifest(func(m *run.Manifest) { m.MinPeers = uint32(n) }), simOpts{loss: 10, dup: 10})
			s.startAll()
			if !s.runUntil(time.Minute, func() bool { return s.minRound() >= 2 }) {
				t.Fatalf("stuck:\n%s", s.describe())
			}
			_, liars := Quorum(n)
			for _, i := range s.rnd.Perm(n)[:liars] {
				s.turn(s.nodes[i], f)
			}
			from := s.minRound()
			s.runFor(3 * time.Minute)
			if r := s.minRound(); r < from+7 {
				t.Errorf("only %d rounds in 3 minutes\n%s", r-from, s.describe())
			}
			s.opts.loss = 0
			s.progress(3*time.Minute, 2, false)
			for _, n := range s.nodes {
				if !s.liars[n.i] && s.evidence[n.id] {
					t.Errorf("evidence against node %d, which is honest", n.i)
				}
				if s.liars[n.i] {
					continue
				}
				for id := range n.misbehaved {
					if i := slices.IndexFunc(s.nodes, func(o *simNode) bool { return o.id == id }); !s.liars[i] {
						t.Errorf("node %d blames node %d, which is honest: %v", n.i, i, n.misbehaved[id])
					}
				}
			}
			if f == doubles && len(s.evidence) == 0 {
				t.Error("no evidence against those who sign twice")
			}
			s.judgeRounds(from + 1)
		})
	}
}

func (s *sim) indexOf(seat msg.Seat) int {
	return slices.IndexFunc(s.nodes, func(n *simNode) bool { return n.id == seat.Peer })
}

// judgeRounds holds that what honest seats did is in the chain: they can miss a
// round for a lost message, but liars cannot keep them out.
func (s *sim) judgeRounds(from msg.Round) {
	s.t.Helper()
	for _, n := range s.nodes {
		if s.liars[n.i] {
			continue
		}
		got, want, certified := 0, 0, 0
		for _, l := range n.chain.links[from:] {
			for _, seat := range l.Record.Seats {
				if !s.liars[s.indexOf(seat)] {
					want++
				}
			}
			for _, c := range l.Record.Contributions {
				if !s.liars[s.indexOf(l.Record.Seats[c.Seat])] {
					got++
				}
			}
			if l.Certificate != nil {
				certified++
			}
		}
		if got < want*9/10 {
			s.t.Errorf("node %d: %d contributions of honest seats, want %d", n.i, got, want)
		}
		if rounds := len(n.chain.links[from:]); certified < rounds/2 {
			s.t.Errorf("node %d: %d of %d rounds certified", n.i, certified, rounds)
		}
	}
}

// TestEvidenceIsKept: what proved a peer to lie before a restart is proposed
// after it.
func TestEvidenceIsKept(t *testing.T) {
	b := newBench(t, 4, 0)
	liar := b.others()[0]
	v := b.voteFor(liar, b.head().Record)
	v.Record = testCID("one")
	one := liar.seal(v)
	v.Record = testCID("two")
	two := liar.seal(v)
	m, err := New(Config{
		Manifest: b.manifest, Run: b.runID, Self: b.node.id, Chain: b.node.chain, Evidence: [][2]msg.Signed{{one, two}},
		Sign: func(x msg.Message) (msg.Signed, error) { return msg.Seal(b.node.priv, x) },
	}, b.now)
	if err != nil {
		t.Fatal(err)
	}
	if list := m.proofs.against(b.head().Record); len(list) != 1 || list[0].peer() != liar.id {
		t.Errorf("proofs are %v", list)
	}
}

// TestNothingBehindIt: two or three seats go on, though one of them announces
// deltas that nobody can get, and says that it holds them; and with three the
// other two do not follow it. (Of two nobody can tell who is right.)
func TestNothingBehindIt(t *testing.T) {
	for _, n := range []int{2, 3} {
		s := newSim(t, 41, n, testManifest(func(m *run.Manifest) { m.MinPeers = uint32(n) }), simOpts{nowhere: func(maker int) bool { return maker == n-1 }})
		s.startAll()
		s.progress(10*time.Minute, 4, false)
		trained := 0
		for _, l := range s.nodes[0].chain.links {
			for _, c := range l.Record.Contributions {
				if trained++; n == 3 && s.indexOf(l.Record.Seats[c.Seat]) == n-1 {
					t.Errorf("%d seats: round %d has a delta that does not exist", n, l.Record.Round)
				}
			}
		}
		if trained == 0 {
			t.Errorf("%d seats: nothing was trained", n)
		}
	}
}
