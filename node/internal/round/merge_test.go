package round

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

// merged returns the merges in a chain.
func merged(c *memChain) []msg.Merge {
	var list []msg.Merge
	for _, l := range c.links {
		if l.Record.Merge != nil {
			list = append(list, *l.Record.Merge)
		}
	}
	return list
}

// TestMerge: after a partition what the losing side trained comes back as one
// merge, in the chain of all, with its tokens and the weight of its seats.
func TestMerge(t *testing.T) {
	for _, tt := range []struct{ n, cut int }{{10, 4}, {10, 5}, {4, 1}, {2, 1}} {
		t.Run(fmt.Sprintf("%d of %d", tt.cut, tt.n), func(t *testing.T) {
			s := running(t, uint64(40+tt.n), tt.n, simOpts{}, 0)
			s.blocked = func(a, b *simNode) bool { return (a.i < tt.cut) != (b.i < tt.cut) }
			s.runFor(2 * time.Minute)
			cut, rest := s.nodes[0].chain, s.nodes[tt.n-1].chain
			branches := [2]Link{cut.Head(), rest.Head()}
			healed := rest.Head().Record.Round
			s.converge(5 * time.Minute)
			s.progress(3*time.Minute, 5, true)
			list := merged(rest)
			if len(list) != 1 {
				t.Fatalf("%d merges, want 1\n%s", len(list), s.describe())
			}
			e := list[0]
			fork, ok := rest.Link(e.Fork)
			if !ok {
				t.Fatal("the fork is not in the chain")
			}
			lost := branches[0]
			if _, ok := rest.Link(lost.ID); ok {
				lost = branches[1]
			}
			// The losing side may have made a round more while it healed.
			if got, want := e.Tokens, lost.Record.Tokens-fork.Record.Tokens; got < want || got > want*5/4+10_000 {
				t.Errorf("%d tokens came back, of %d or a few more", got, want)
			}
			part := float64(e.WeightQ16) / 65536
			if most := float64(max(tt.cut, tt.n-tt.cut)) / float64(tt.n); part > most+0.01 || part < 0.1 {
				t.Errorf("weight %.2f, want at most the part of the seats, %.2f", part, most)
			}
			for _, l := range rest.links {
				if l.Record.Merge == nil {
					continue
				}
				if l.Certificate == nil || l.Record.Round > healed+8 {
					t.Errorf("merged in round %d after round %d, certified %v", l.Record.Round, healed, l.Certificate != nil)
				}
				parent, _ := rest.Link(l.Record.Parent)
				own := creditedTokens(l.Record.Contributions)
				if l.Record.Tokens != parent.Record.Tokens+own+e.Tokens {
					t.Errorf("tokens grow from %d to %d with %d of its own and %d merged", parent.Record.Tokens, l.Record.Tokens, own, e.Tokens)
				}
			}
		})
	}
}

// TestMergeOneRound: a cut that takes one round has a merge as well, for what only
// one side has.
func TestMergeOneRound(t *testing.T) {
	for _, tt := range []struct{ n, cut int }{{10, 4}, {10, 5}, {4, 1}, {2, 1}} {
		t.Run(fmt.Sprintf("%d of %d", tt.cut, tt.n), func(t *testing.T) {
			s := running(t, uint64(60+tt.n), tt.n, simOpts{}, 0)
			cut, rest := s.nodes[0], s.nodes[tt.n-1]
			s.blocked = func(a, b *simNode) bool { return (a.i < tt.cut) != (b.i < tt.cut) }
			parted := func() bool {
				x := cut.chain.Head()
				_, common := rest.chain.Link(x.ID)
				fork, ok := rest.chain.Link(x.Record.Parent)
				return !common && ok && rest.chain.Head().Record.Round > fork.Record.Round
			}
			if !s.runUntil(5*time.Minute, parted) {
				t.Fatal("the chains do not part")
			}
			x, y := cut.chain.Head(), rest.chain.Head()
			s.blocked = nil
			s.converge(5 * time.Minute)
			s.progress(3*time.Minute, 5, true)
			list := merged(rest.chain)
			if len(list) != 1 {
				t.Fatalf("%d merges, want 1\n%s", len(list), s.describe())
			}
			e := list[0]
			fork, _ := rest.chain.Link(e.Fork)
			lost := x
			if _, ok := rest.chain.Link(x.ID); ok {
				lost = y
			}
			if !e.Head.Equals(lost.ID) || e.Tokens != lost.Record.Tokens-fork.Record.Tokens {
				t.Errorf("merged %+v, lost was %v with %d tokens", e, lost.ID, lost.Record.Tokens-fork.Record.Tokens)
			}
			if part, most := float64(e.WeightQ16)/65536, float64(max(tt.cut, tt.n-tt.cut))/float64(tt.n); part > most+0.01 || part < 0.1 {
				t.Errorf("weight %.2f, want at most the part of the seats, %.2f", part, most)
			}
		})
	}
}

// TestApart: of a branch of one record counts who is in it alone, and nothing if a
// delta of it is in the other record too, or was bad there.
func TestApart(t *testing.T) {
	var seats []msg.Seat
	for i := range 7 {
		_, id := testKey(i)
		seats = append(seats, msg.Seat{Peer: id, Since: 1, Trainee: i == 6})
	}
	slices.SortFunc(seats, func(a, b msg.Seat) int { return comparePeers(a.Peer, b.Peer) })
	at := slices.IndexFunc(seats, func(s msg.Seat) bool { return s.Trainee })
	seats[at].Trainee, seats[6].Trainee = false, true
	rec := func(there []uint32, deltas []uint32) *msg.Record {
		r := &msg.Record{Seats: seats}
		for i, s := range seats {
			s.Missed = 1
			if slices.Contains(there, uint32(i)) {
				s.Missed = 0
			}
			r.NextSeats = append(r.NextSeats, s)
		}
		for _, i := range deltas {
			r.Contributions = append(r.Contributions, msg.Contribution{Seat: i})
		}
		return r
	}
	refused := func(r *msg.Record, seat uint32, why msg.Reason) *msg.Record {
		r.Refused = append(r.Refused, msg.Refusal{Seat: seat, Reason: why})
		return r
	}
	ours := rec([]uint32{0, 1, 2, 3}, []uint32{0, 1, 2, 3})
	for _, tt := range []struct {
		name   string
		theirs *msg.Record
		ours   *msg.Record
		s, t   int
	}{
		{"a cut", rec([]uint32{4, 5, 6}, []uint32{4, 5, 6}), ours, 2, 4},
		{"haves of both", rec([]uint32{2, 3, 4}, []uint32{4}), ours, 1, 4},
		{"a delta of both", rec([]uint32{3, 4, 5}, []uint32{3, 4, 5}), ours, 0, 0},
		{"nobody else", rec([]uint32{0, 1, 2}, nil), ours, 0, 4},
		{"came too late for ours", rec([]uint32{4, 5}, []uint32{4, 5}), refused(rec([]uint32{0, 1, 2, 3}, nil), 4, msg.Timeout), 2, 4},
		{"bad in ours", rec([]uint32{4, 5}, []uint32{4, 5}), refused(rec([]uint32{0, 1, 2, 3}, nil), 4, msg.Copy), 0, 0},
	} {
		if s, n := apart(tt.theirs, tt.ours); s != tt.s || n != tt.t {
			t.Errorf("%s: %d against %d, want %d against %d", tt.name, s, n, tt.s, tt.t)
		}
	}
}

// TestMergeClaims: a side that claims to have trained far more than the other
// has no more weight than its seats give it.
func TestMergeClaims(t *testing.T) {
	s := running(t, 57, 4, simOpts{}, 0)
	s.opts.tokens = func(i int) uint64 {
		if i == 0 {
			return 1_000_000
		}
		return 1000
	}
	s.blocked = func(a, b *simNode) bool { return (a.i == 0) != (b.i == 0) }
	s.runFor(2 * time.Minute)
	s.converge(5 * time.Minute)
	s.progress(3*time.Minute, 5, true)
	list := merged(s.nodes[3].chain)
	if len(list) != 1 || list[0].WeightQ16 != 65536/4 {
		t.Errorf("merged %+v, want once with a weight of a quarter", list)
	}
}

// TestMergeGate: what would make the loss worse is not merged; and some liars
// cannot bring it about.
func TestMergeGate(t *testing.T) {
	s := running(t, 51, 10, simOpts{}, 0)
	s.opts.gate = func(n *simNode) bool { return n.i < 3 }
	s.blocked = func(a, b *simNode) bool { return (a.i < 4) != (b.i < 4) }
	s.runFor(2 * time.Minute)
	s.converge(5 * time.Minute)
	s.progress(3*time.Minute, 8, true)
	if list := merged(s.nodes[9].chain); len(list) > 0 {
		t.Errorf("merged %+v", list)
	}
}

// TestMergeRule: more than half of the haves that count have to want the same
// merge.
func TestMergeRule(t *testing.T) {
	s := newScene(t, 7, nil)
	e := msg.Merge{
		Fork: testCID("fork"), First: testCID("first"), Head: testCID("lost"), State: testCID("lost state"), Base: testCID("base state"), Tokens: 700, WeightQ16: 20_000,
	}
	other := e
	other.WeightQ16++
	have := func(seat int, merges ...msg.Merge) msg.Signed {
		slices.SortFunc(merges, msg.Merge.Compare)
		return s.seal(s.keys[seat], &msg.Have{Run: s.rules.run, Round: 9, Head: s.parent.ID, Peer: s.seat(seat), Merges: merges})
	}
	for _, tt := range []struct {
		name  string
		haves []msg.Signed
		want  *msg.Merge
	}{
		{"nobody", []msg.Signed{have(0), have(1), have(2), have(3), have(4)}, nil},
		{"three of five", []msg.Signed{have(0, e), have(1, e), have(2, e), have(3), have(4)}, &e},
		{"three of six", []msg.Signed{have(0, e), have(1, e), have(2, e), have(3), have(4), have(5)}, nil},
		{"two ways", []msg.Signed{have(0, e), have(1, e), have(2, other), have(3, other), have(4)}, nil},
		{"both ways", []msg.Signed{have(0, e, other), have(1, e), have(2, e), have(3, other), have(4)}, &e},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := s.consequence(tt.haves...)
			same := cmp.Comparer(func(a, b cid.Cid) bool { return a.Equals(b) })
			if diff := cmp.Diff(tt.want, c.Record.Merge, same); diff != "" {
				t.Errorf("merge (-want +got):\n%s", diff)
			}
			if c.Folds() != (tt.want != nil) {
				t.Errorf("folds: %v", c.Folds())
			}
			r := s.record(c)
			if _, err := s.rules.Verify(Link{}, s.parent, r); err != nil {
				t.Fatal(err)
			}
			if tt.want == nil {
				if r.Tokens != 5000 {
					t.Errorf("tokens are %d", r.Tokens)
				}
				return
			}
			if r.Tokens != 5700 || r.State.Equals(s.parent.Record.State) {
				t.Errorf("tokens are %d, state %v", r.Tokens, r.State)
			}
			bad := *r
			bad.Merge = nil
			if _, err := s.rules.Verify(Link{}, s.parent, &bad); err == nil {
				t.Error("the merge can be left out")
			}
		})
	}
}
