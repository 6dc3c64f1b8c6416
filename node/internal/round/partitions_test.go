package round

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

// partitions are all ways to part n nodes: the number of the group of each, a new
// group having the lowest number that is free.
func partitions(n int) [][]int {
	if n == 0 {
		return [][]int{nil}
	}
	var out [][]int
	for _, p := range partitions(n - 1) {
		next := 0
		if len(p) > 0 {
			next = slices.Max(p) + 1
		}
		for g := range next + 1 {
			out = append(out, append(slices.Clone(p), g))
		}
	}
	return out
}

// yesMan makes a liar of a node that hears everybody, whatever the network does,
// and votes for each record that anybody proposes, before all who hear it.
func (s *sim) yesMan(n *simNode) {
	s.liars[n.i] = true
	said := make(map[cid.Cid]bool)
	n.lie = func(_ int, m msg.Signed) []msg.Signed {
		if _, vote := m.Message.(*msg.Vote); vote {
			return nil
		}
		return []msg.Signed{m}
	}
	s.overhear = func(m msg.Signed) {
		p, ok := m.Message.(*msg.Proposal)
		if !ok || !n.up || p.Attempt == msg.MaxAttempt {
			return
		}
		id := msg.RawCID(p.Record)
		r, err := p.Decoded()
		if err != nil || said[id] || seatOf(r.Seats, n.id) < 0 {
			return
		}
		said[id] = true
		vote := n.seal(&msg.Vote{Run: s.runID, Round: p.Round, Head: r.Parent, Record: id, Peer: n.id})
		for _, to := range s.nodes {
			if to != n {
				s.deliver(n, to, vote)
			}
		}
	}
}

// parted has four nodes go through phases, in each of which they are parted in one
// way, for long enough that those who are too few for a quorum go on without
// certificates; then the network heals.
func parted(t *testing.T, phases [][]int, liar bool) *sim {
	t.Helper()
	s := newSim(t, 90, 4, pledging(4), simOpts{})
	s.startAll()
	if !s.runUntil(time.Minute, func() bool { return s.minRound() >= 2 }) {
		t.Fatalf("stuck:\n%s", s.describe())
	}
	if liar {
		s.yesMan(s.nodes[3])
	}
	for _, groups := range phases {
		s.blocked = func(a, b *simNode) bool {
			return groups[a.i] != groups[b.i] && !s.liars[a.i] && !s.liars[b.i]
		}
		s.runFor(40 * time.Second)
	}
	s.blocked = nil
	return s
}

// certifiedOf are the records with a certificate that a node has, those that it left
// too.
func certifiedOf(n *simNode) []Link {
	var list []Link
	for _, l := range n.chain.links {
		if l.Certificate != nil {
			list = append(list, l)
		}
	}
	for _, l := range n.chain.side {
		if l.Certificate != nil {
			list = append(list, l)
		}
	}
	return list
}

// holdsOf are the records whose training the chain of a node has: its own, those of
// branches that it merged, and what these had merged.
func holdsOf(n *simNode, known map[cid.Cid]Link) map[cid.Cid]bool {
	holds := make(map[cid.Cid]bool)
	queue := slices.Clone(n.chain.links)
	for len(queue) > 0 {
		l := queue[0]
		queue = queue[1:]
		if holds[l.ID] {
			continue
		}
		holds[l.ID] = true
		if e := l.Record.Merge; e != nil {
			for at := e.Head; !at.Equals(e.Fork); at = known[at].Record.Parent {
				if known[at].Record == nil {
					break
				}
				queue = append(queue, known[at])
			}
		}
	}
	return holds
}

// TestExhaustivePartitions: four seats, one of which may lie as it votes, are parted
// in every way, and then in every way again: no two records of a head are
// certified, none that is certified is left for one that is not (the simulation holds
// both), and when the network is whole there is one chain, which has all that was
// certified, as its own or by a merge. Without -exhaustive the second way is always the same.
func TestExhaustivePartitions(t *testing.T) {
	all := partitions(4)
	if len(all) != 15 {
		t.Fatalf("%d ways to part four nodes, there are 15", len(all))
	}
	again := [][]int{{0, 1, 0, 1}}
	if *exhaustive {
		again = all
	}
	provisional, left, merges := 0, 0, 0
	for _, liar := range []bool{false, true} {
		for _, one := range all {
			for _, two := range again {
				name := fmt.Sprintf("%v %v, liar %v", one, two, liar)
				s := parted(t, [][]int{one, two}, liar)
				honest := s.nodes
				if liar {
					honest = s.nodes[:3]
				}
				known := make(map[cid.Cid]Link)
				var certified []Link
				for _, n := range honest {
					certified = append(certified, certifiedOf(n)...)
				}
				s.progress(5*time.Minute, 8, false)
				last := honest[0]
				settled := s.runUntil(2*time.Minute, func() bool {
					for _, n := range honest {
						if n.chain.Head().ID != last.chain.Head().ID {
							return false
						}
					}
					return true
				})
				if !settled {
					t.Fatalf("%s: no common head after it healed:\n%s", name, s.describe())
				}
				for _, n := range honest {
					for _, l := range n.chain.links {
						known[l.ID] = l
						if l.Certificate == nil {
							provisional++
						}
					}
					for id, l := range n.chain.side {
						known[id] = l
						left++
					}
				}
				holds := holdsOf(last, known)
				for _, l := range certified {
					if !holds[l.ID] && len(l.Record.Contributions) > 0 {
						t.Errorf("%s: record %v of round %d was certified and is lost:\n%s", name, l.ID, l.Record.Round, s.describe())
					}
				}
				merges += len(merged(last.chain))
			}
		}
	}
	t.Logf("%d worlds: %d provisional records, %d that were left, %d merges", 2*len(all)*len(again), provisional, left, merges)
	if provisional == 0 || left == 0 || merges == 0 {
		t.Error("the search does not reach what it is about")
	}
}

// TestExhaustiveForkChoice: of all short chains on one record, that differ in
// certificates, support, voices, tokens and whether they end, a provisional one never
// comes before one whose first record is certified; and nobody is called in a circle,
// through two chains or three.
func TestExhaustiveForkChoice(t *testing.T) {
	seats := make([]msg.Seat, 4)
	for i := range seats {
		_, seats[i].Peer = testKey(i)
	}
	slices.SortFunc(seats, func(a, b msg.Seat) int { return comparePeers(a.Peer, b.Peer) })
	record := func(present int, tokens uint64, final bool) *msg.Record {
		r := &msg.Record{Seats: seats, NextSeats: slices.Clone(seats), Final: final}
		for i := range r.NextSeats {
			if i >= present {
				r.NextSeats[i].Missed = 1
			}
		}
		if tokens > 0 {
			r.Contributions = []msg.Contribution{{Tokens: tokens}}
		}
		return r
	}
	ancestor := Link{ID: testCID("ancestor"), Record: &msg.Record{NextSeats: seats}}
	var chains [][]Link
	for _, cert := range []*msg.Certificate{nil, {}} {
		for _, voices := range []int{2, 3} {
			for _, tokens := range []uint64{0, 5} {
				for support := range 4 {
					for _, final := range []bool{false, true} {
						name := fmt.Sprint(cert != nil, voices, tokens, support, final)
						c := []Link{{ID: testCID(name), Record: record(voices, tokens, final && support == 0), Certificate: cert}}
						if support > 0 {
							c = append(c, Link{ID: testCID(name + " after"), Record: record(support, 0, final)})
						}
						chains = append(chains, c)
					}
				}
			}
		}
	}
	var book forkBook
	for _, c := range chains {
		book.note(ancestor, c)
	}
	before := make([][]bool, len(chains)) // i is left for k
	for i, x := range chains {
		before[i] = make([]bool, len(chains))
		for k, y := range chains {
			before[i][k] = book.better(ancestor, y, x)
			if before[i][k] && x[0].Certificate != nil && y[0].Certificate == nil {
				t.Fatal("a certified record is left for one that is not")
			}
			if !before[i][k] && x[0].Certificate == nil && y[0].Certificate != nil {
				t.Fatal("a record is not left for one that is certified")
			}
		}
	}
	for i := range chains {
		if before[i][i] {
			t.Fatal("a chain is better than itself")
		}
		for k := range chains {
			if before[i][k] && before[k][i] {
				t.Fatal("two chains are better than each other")
			}
			for l := range chains {
				if before[i][k] && before[k][l] && before[l][i] {
					t.Fatal("three chains are better than each other in a circle")
				}
			}
		}
	}
	t.Logf("%d chains, %d circles of three tried", len(chains), len(chains)*len(chains)*len(chains))
}
