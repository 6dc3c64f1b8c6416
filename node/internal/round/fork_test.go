package round

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// forkTree makes chains of records without messages.
type forkTree struct{ seats []msg.Seat }

func newForkTree(n int) *forkTree {
	f := &forkTree{}
	for i := range n {
		_, id := testKey(i)
		f.seats = append(f.seats, msg.Seat{Peer: id})
	}
	slices.SortFunc(f.seats, func(a, b msg.Seat) int { return comparePeers(a.Peer, b.Peer) })
	return f
}

func (f *forkTree) root() Link {
	return Link{ID: testCID("root"), Record: &msg.Record{NextSeats: f.seats}}
}

// after is a record in which the given seats had part.
func (f *forkTree) after(parent Link, name string, certified bool, tokens uint64, signers ...int) Link {
	r := &msg.Record{
		Parent: parent.ID, Round: parent.Record.Round + 1, Seats: f.seats, NextSeats: slices.Clone(f.seats),
		Contributions: []msg.Contribution{{Tokens: tokens}},
	}
	for i := range r.NextSeats {
		if r.NextSeats[i].Missed = 1; slices.Contains(signers, i) {
			r.NextSeats[i].Missed = 0
		}
	}
	l := Link{ID: testCID(name), Record: r}
	if certified {
		l.Certificate = &msg.Certificate{}
	}
	return l
}

// TestForkChoice: one rule in each case.
func TestForkChoice(t *testing.T) {
	f := newForkTree(7)
	f.seats[6].Trainee = true
	low, high := "a", "b"
	if compareCIDs(testCID(low), testCID(high)) > 0 {
		low, high = high, low
	}
	type step struct {
		name      string
		certified bool
		tokens    uint64
		signers   []int
	}
	chain := func(steps ...step) []Link {
		parent := f.root()
		var out []Link
		for _, s := range steps {
			parent = f.after(parent, s.name, s.certified, s.tokens, s.signers...)
			out = append(out, parent)
		}
		return out
	}
	all, three, one := []int{0, 1, 2, 3, 4, 5}, []int{0, 1, 2}, []int{3}
	long := []step{{high, false, 9, all}}
	for i := range 20 {
		long = append(long, step{fmt.Sprint("lone", i), true, 9, one})
	}
	final := func(links []Link) []Link {
		links[0].Record.Final = true
		return links
	}
	for _, tt := range []struct {
		name         string
		theirs, ours []Link
		want         bool
	}{
		{"two last records, the lower", final(chain(step{low, false, 1, all})), final(chain(step{high, false, 1, all})), true},
		{"two last records, the higher", final(chain(step{high, false, 1, all})), final(chain(step{low, false, 1, all})), false},
		{"follows our head", chain(step{high, false, 1, all}), nil, true},
		{"nothing", nil, chain(step{high, false, 1, all}), false},
		{"part of ours", chain(step{high, false, 1, all}), chain(step{high, false, 1, all}, step{"x", false, 1, all}), false},
		{"goes on from ours", chain(step{high, false, 1, all}, step{"x", false, 1, all}), chain(step{high, false, 1, all}), true},
		{"certified at the fork", chain(step{low, true, 1, one}), chain(step{high, false, 9, all}, step{"x", true, 9, all}), true},
		{"provisional at the fork", chain(step{high, false, 9, all}, step{"x", true, 9, all}), chain(step{low, true, 1, one}), false},
		{"more voices", chain(step{high, false, 1, all}), chain(step{low, false, 9, three}), true},
		{"fewer voices", chain(step{low, false, 9, three}), chain(step{high, false, 1, all}), false},
		{"more tokens", chain(step{high, false, 2, all}), chain(step{low, false, 1, all}), true},
		{"fewer tokens", chain(step{low, false, 1, all}), chain(step{high, false, 2, all}), false},
		{"a lower CID that nobody built on", chain(step{low, false, 1, all}), chain(step{high, false, 1, all}), false},
		{"a higher one", chain(step{high, false, 1, all}), chain(step{low, false, 1, all}), false},
		{"a lower one that both built on", chain(step{low, false, 1, all}, step{"x", false, 1, three}), chain(step{high, false, 1, all}, step{"y", false, 1, three}), true},
		{"more support", chain(step{high, false, 1, three}, step{"x", false, 1, three}), chain(step{low, false, 9, all}, step{"y", false, 1, one}), true},
		{"one seat, as long as it likes", chain(long...), chain(step{low, false, 1, three}, step{"x", false, 1, three}), false},
		{"many against that seat", chain(step{low, false, 1, three}, step{"x", false, 1, three}), chain(long...), true},
		{"a trainee's support is none", chain(step{low, false, 1, all}, step{"x", false, 1, []int{6}}), chain(step{high, false, 2, all}), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b forkBook
			if got := b.better(f.root(), tt.theirs, tt.ours); got != tt.want {
				t.Errorf("better() = %v, want %v", got, tt.want)
			}
		})
	}
}

// TestForkClaims: a number of tokens that is claimed, and not proven, does not
// decide which of two records is followed.
func TestForkClaims(t *testing.T) {
	f := newForkTree(4)
	parent := &msg.Record{NextSeats: f.seats}
	rec := func(tokens ...uint64) *msg.Record {
		r := &msg.Record{Seats: f.seats}
		for i, n := range tokens {
			c := msg.Contribution{Seat: uint32(i), Tokens: n}
			if n >= 1<<20 {
				c.Reason = msg.Probation
			}
			r.Contributions = append(r.Contributions, c)
		}
		return r
	}
	honest := included(parent, rec(1000, 1000, 1000, 1000))
	for _, tt := range []struct {
		name string
		list []uint64
		most uint64
	}{
		{"as it is", []uint64{1000, 1000, 1000}, 3000},
		{"one claims much", []uint64{1000, 1000, 1 << 19}, 4000},
		{"one on probation claims more", []uint64{1000, 1000, 1 << 40}, 2000},
		{"nobody counts", []uint64{1 << 20, 1 << 20}, 1 << 21},
	} {
		if got := included(parent, rec(tt.list...)); got != tt.most {
			t.Errorf("%s: %d tokens, want %d", tt.name, got, tt.most)
		}
	}
	parent.Standings = []msg.Standing{{Peer: f.seats[0].Peer, Pace: 100}}
	if got := included(parent, rec(1<<19)); got != 400 {
		t.Errorf("alone, with a pace of 100: %d tokens", got)
	}
	if got := included(parent, rec(1000, 1000, 1000, 1000)); got >= honest {
		t.Errorf("a pace does not bound: %d tokens", got)
	}
}

// TestForkOrder: in whatever order chains of a tree are met, again and again,
// everybody ends on the same one, and nobody goes round in circles.
func TestForkOrder(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		f := newForkTree(6)
		parents := []Link{f.root()}
		leaf := []bool{false}
		up := map[cid.Cid]Link{}
		certified := map[cid.Cid]bool{} // heads with a certified record on them
		for i := range 14 {
			at := rnd.IntN(len(parents))
			p := parents[at]
			var signers []int
			for s := range f.seats {
				if rnd.IntN(3) == 0 {
					signers = append(signers, s)
				}
			}
			// Two certified records on one head do not occur.
			c := rnd.IntN(3) == 0 && !certified[p.ID]
			certified[p.ID] = certified[p.ID] || c
			l := f.after(p, fmt.Sprint("r", seed, i), c, uint64(rnd.IntN(2)*100+i), signers...)
			up[l.ID] = p
			leaf[at] = false
			parents, leaf = append(parents, l), append(leaf, true)
		}
		var tips [][]Link
		for i, l := range parents {
			if !leaf[i] {
				continue
			}
			var chain []Link
			for l.Record.Round > 0 {
				chain = append(chain, l)
				l = up[l.ID]
			}
			slices.Reverse(chain)
			tips = append(tips, chain)
		}
		ends := map[cid.Cid]bool{}
		for range 8 {
			var b forkBook
			head := tips[rnd.IntN(len(tips))]
			for pass, changed := 0, true; changed; pass++ {
				if pass > 40 {
					t.Fatalf("seed %d: no end", seed)
				}
				changed = false
				for _, i := range rnd.Perm(len(tips)) {
					if b.better(f.root(), tips[i], head) {
						head, changed = tips[i], true
					}
				}
			}
			ends[head[len(head)-1].ID] = true
		}
		if len(ends) != 1 {
			t.Errorf("seed %d: %d ends of %d chains", seed, len(ends), len(tips))
		}
	}
}

// TestForkBookBound: what is remembered does not grow without end.
func TestForkBookBound(t *testing.T) {
	f := newForkTree(4)
	var b forkBook
	for i := range 1000 {
		b.note(f.root(), []Link{f.after(f.root(), fmt.Sprint(i), false, 1)})
	}
	if len(b.order) != maxForks || len(b.supporters) != maxForks {
		t.Errorf("%d and %d are remembered", len(b.order), len(b.supporters))
	}
}

// TestWolfOnProvisional: also where the chain of the others is provisional, a
// seat that plays them absent and certifies alone takes nobody with it.
func TestWolfOnProvisional(t *testing.T) {
	s := running(t, 23, 7, simOpts{}, 0)
	wolf := s.nodes[3]
	// Without a quorum: three are gone.
	for _, i := range []int{0, 1, 2} {
		s.nodes[i].stop()
	}
	from := msg.Round(0)
	for _, n := range s.nodes[3:] {
		from = max(from, n.chain.Head().Record.Round+1) // votes for the round after may be under way
	}
	if !s.runUntil(3*time.Minute, func() bool {
		return s.minRound() >= from+3 && s.nodes[4].chain.links[from+1].Certificate == nil
	}) {
		t.Fatalf("not provisional:\n%s", s.describe())
	}
	s.liars[3] = true
	fork, ok := s.nodes[4].chain.Link(s.nodes[4].chain.links[from].ID)
	if !ok {
		t.Fatal("no fork")
	}
	lair := &memChain{links: slices.Clone(s.nodes[4].chain.links[:from+1]), at: make(map[cid.Cid]int)}
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
	if parent.Certified < fork.Certified+30 {
		t.Fatalf("the wolf has %d certified records", parent.Certified)
	}
	wolf.answer = func(locator []cid.Cid) []Item { return lair.offer(t, locator, 64) }
	wolf.lie = func(_ int, m msg.Signed) []msg.Signed {
		st, ok := m.Message.(*msg.Status)
		if !ok {
			return []msg.Signed{m}
		}
		boast := *st
		boast.Head, boast.Round, boast.Certified = parent.ID, parent.Record.Round+1, parent.Certified
		boast.Tokens = 1 << 60
		return []msg.Signed{wolf.seal(&boast)}
	}
	for _, i := range []int{0, 1, 2} {
		s.nodes[i].start()
	}
	s.progress(5*time.Minute, 8, true)
	for _, n := range s.nodes {
		if n == wolf {
			continue
		}
		if _, ok := n.chain.Link(lair.links[from+1].ID); ok {
			t.Errorf("node %d follows the wolf", n.i)
		}
	}
}

// TestThreeWay: a network in three parts comes together.
func TestThreeWay(t *testing.T) {
	const n = 6
	s := newSim(t, uint64(n), n, testManifest(func(m *run.Manifest) { m.MinPeers = uint32(n) }), simOpts{})
	s.startAll()
	s.runUntil(time.Minute, func() bool { return s.minRound() >= 3 })
	s.blocked = func(a, b *simNode) bool { return a.i%3 != b.i%3 }
	s.runFor(2 * time.Minute)
	// First two of the parts meet, then all.
	s.blocked = func(a, b *simNode) bool { return a.i%3 != b.i%3 && (a.i%3 == 2 || b.i%3 == 2) }
	s.runFor(time.Minute)
	s.converge(5 * time.Minute)
	s.progress(2*time.Minute, 3, true)
	if got := len(s.nodes[0].chain.Head().Record.NextSeats); got != n {
		t.Errorf("%d seats after healing, want %d", got, n)
	}
}
