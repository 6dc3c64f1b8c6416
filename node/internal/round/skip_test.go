package round

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// annals is a chain of records with seats and votes as a test wants them.
type annals struct {
	t     testing.TB
	rules *Rules
	keys  map[peer.ID]crypto.PrivKey
	links []Link
}

// newAnnals has rounds up to last. seats says who has a seat in a round; nobody
// votes in one for which certified is false.
func newAnnals(t testing.TB, last msg.Round, seats func(msg.Round) []int, certified func(msg.Round) bool) *annals {
	t.Helper()
	m := testManifest(func(m *run.Manifest) { m.SkipLinks = true })
	rules, err := NewRules(m)
	if err != nil {
		t.Fatal(err)
	}
	a := &annals{t: t, rules: rules, keys: make(map[peer.ID]crypto.PrivKey)}
	_, genesis, err := run.Genesis(m)
	if err != nil {
		t.Fatal(err)
	}
	id, err := genesis.CID()
	if err != nil {
		t.Fatal(err)
	}
	a.links = []Link{{ID: id, Record: genesis}}
	key, launcher := testKey(0)
	a.keys[launcher] = key
	for n := msg.Round(1); n <= last; n++ {
		parent := a.links[n-1]
		r := &msg.Record{
			Version: msg.RecordVersion, Run: rules.run, Round: n, Parent: parent.ID, Seats: parent.Record.NextSeats, Haves: [][]byte{{1}},
			State: genesis.State, Proposer: parent.Record.NextSeats[0].Peer, Skips: skipsAfter(parent),
		}
		for _, i := range seats(n + 1) {
			key, id := testKey(i)
			a.keys[id] = key
			r.NextSeats = append(r.NextSeats, msg.Seat{Peer: id, Since: 1})
		}
		slices.SortFunc(r.NextSeats, func(x, y msg.Seat) int { return comparePeers(x.Peer, y.Peer) })
		l := Link{ID: mustID(t, r), Record: r}
		if certified == nil || certified(n) {
			q, _ := Quorum(Witnesses(r.Seats))
			l.Certificate = a.votes(l, r.Seats[:q])
		}
		a.links = append(a.links, l)
	}
	return a
}

func mustID(t testing.TB, r *msg.Record) cid.Cid {
	t.Helper()
	id, err := r.CID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// votes is a certificate with the votes of these seats.
func (a *annals) votes(l Link, seats []msg.Seat) *msg.Certificate {
	c := &msg.Certificate{Record: l.ID}
	for _, s := range seats {
		v, err := msg.Seal(a.keys[s.Peer], &msg.Vote{Run: a.rules.run, Round: l.Record.Round, Head: l.Record.Parent, Record: l.ID, Peer: s.Peer})
		if err != nil {
			a.t.Fatal(err)
		}
		c.Votes = append(c.Votes, v.Envelope)
	}
	return c
}

func (a *annals) at(n msg.Round) (Link, bool) {
	if n >= msg.Round(len(a.links)) {
		return Link{}, false
	}
	return a.links[n], true
}

func (a *annals) items(steps []ProofStep) []Item {
	var items []Item
	for _, s := range steps {
		l := a.links[s.Round]
		if s.Bare {
			l.Certificate = nil
		}
		items = append(items, itemOf(a.t, l))
	}
	return items
}

// atMost lets proofs have so many steps.
func atMost(n int) func([]ProofStep) bool { return func(s []ProofStep) bool { return len(s) <= n } }

func four(msg.Round) []int { return []int{0, 1, 2, 3} }

// TestSkips: a record names the last ones before it whose rounds are multiples
// of 2, 4, 8 and so on.
func TestSkips(t *testing.T) {
	a := newAnnals(t, 40, four, nil)
	for n, l := range a.links {
		var want []cid.Cid
		for p := 2; p < n; p *= 2 {
			want = append(want, a.links[(n-1)/p*p].ID)
		}
		if n <= 2 {
			want = nil
		}
		if len(want) != len(l.Record.Skips) || !slices.EqualFunc(want, l.Record.Skips, cid.Cid.Equals) {
			t.Errorf("record %d has %d skips, want %d: %v", n, len(l.Record.Skips), len(want), l.Record.Skips)
		}
	}
}

// skippingTale is a tale of a run with skip links.
func skippingTale(t *testing.T) *tale {
	m := audited(4, 0)
	m.SkipLinks = true
	s := newTale(t, 4, m)
	s.links[0].Record.Skips = []cid.Cid{testCID("round 2")}
	s.links[0].ID = mustID(t, s.links[0].Record)
	return s
}

// TestSkipRule: skips are what follows from the parent, in a run that has them.
func TestSkipRule(t *testing.T) {
	s := skippingTale(t)
	for range 3 {
		s.follow(turn{gain: useful})
	}
	r := s.head().Record
	want := []cid.Cid{s.links[1].ID, s.links[1].ID}
	if r.Round != 6 || !slices.EqualFunc(r.Skips, want, cid.Cid.Equals) {
		t.Fatalf("record of round %d has skips %v, want %v", r.Round, r.Skips, want)
	}
	before, parent := s.links[len(s.links)-3], s.before()
	for i := range r.Skips {
		bad := *r
		bad.Skips = slices.Clone(r.Skips)
		bad.Skips[i] = testCID("another")
		if _, err := s.rules.Verify(before, parent, &bad); err == nil {
			t.Errorf("another skip %d is accepted", i)
		}
	}
	bad := *r
	bad.Skips = nil
	if _, err := s.rules.Verify(before, parent, &bad); err == nil {
		t.Error("the skips can be left out")
	}
}

// TestProveSteps: a head is proven with few records as long as those who vote are
// some who come again and again; with more the sooner they go for ever.
func TestProveSteps(t *testing.T) {
	shifting := func(seats, every int) func(msg.Round) []int {
		return func(n msg.Round) (list []int) {
			for i := range seats {
				list = append(list, int(n)/every+i)
			}
			return list
		}
	}
	for _, tt := range []struct {
		name  string
		last  msg.Round
		seats func(msg.Round) []int
		most  int
	}{
		{"nobody comes or goes", 500, four, 1},
		{"the launcher goes", 500, func(n msg.Round) []int {
			if n > 100 {
				return []int{1, 2, 3, 4}
			}
			return []int{0, 1, 2, 3}
		}, 5},
		{"twenty of fifty in each round", 500, func(n msg.Round) []int { return drawn(uint64(n), 20, 50) }, 20},
		{"four of twelve, who are others in each round", 500, func(n msg.Round) []int {
			i := 4 * (int(n-1) % 3)
			return []int{i, i + 1, i + 2, i + 3}
		}, 12},
		{"one in 20 rounds", 500, shifting(7, 20), 40},
		{"a new one in each round", 60, shifting(4, 1), 60},
		{"all others in each round", 30, func(n msg.Round) []int { i := 4 * int(n); return []int{i, i + 1, i + 2, i + 3} }, 30},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAnnals(t, tt.last, tt.seats, nil)
			for _, from := range []msg.Round{0, 1, 7, tt.last / 2, tt.last - 1} {
				steps := Prove(from, tt.last, atMost(1000), a.at)
				if len(steps) == 0 || steps[len(steps)-1].Round != tt.last || len(steps) > tt.most+12 {
					t.Fatalf("from %d: %d steps: %v", from, len(steps), steps)
				}
				got, err := a.rules.VerifyProof(a.links[from], a.items(steps))
				if err != nil || !got[len(got)-1].ID.Equals(a.links[tt.last].ID) {
					t.Errorf("from %d: %d steps, %v", from, len(got), err)
				}
				if from == 0 && len(steps) > tt.most {
					t.Errorf("%d steps from genesis, want %d at most: %v", len(steps), tt.most, steps)
				}
			}
			t.Logf("%d rounds: %d records from genesis", tt.last, len(Prove(0, tt.last, atMost(1000), a.at)))
		})
	}
}

// drawn are n of so many peers, drawn by a seed; the first ones in the first round.
func drawn(seed uint64, n, of int) []int {
	if seed <= 1 {
		list := make([]int, n)
		for i := range list {
			list[i] = i
		}
		return list
	}
	list := rand.New(rand.NewPCG(seed, 7)).Perm(of)[:n]
	slices.Sort(list)
	return list
}

// TestProveInParts: a proof that is too long for one answer is one of an earlier
// record, from which it goes on.
func TestProveInParts(t *testing.T) {
	a := newAnnals(t, 300, func(n msg.Round) []int { i := int(n) / 4; return []int{i, i + 1, i + 2, i + 3} }, nil)
	known, answers := a.links[0], 0
	for known.Record.Round < 300 {
		steps := Prove(known.Record.Round, 300, atMost(16), a.at)
		links, err := a.rules.VerifyProof(known, a.items(steps))
		if err != nil || len(links) == 0 || len(links) > 16 {
			t.Fatalf("from %d: %d steps, %v", known.Record.Round, len(links), err)
		}
		known, answers = links[len(links)-1], answers+1
	}
	if answers < 2 || answers > 40 {
		t.Errorf("%d answers", answers)
	}
}

// TestProveProvisional: steps go over records that nobody certified, and name them
// where they have to; where nobody certifies any more, the proof ends.
func TestProveProvisional(t *testing.T) {
	few := func(n msg.Round) bool { return n%8 == 5 }
	for _, tt := range []struct {
		name      string
		seats     func(msg.Round) []int
		certified func(msg.Round) bool
		from, to  msg.Round
		bare      bool
	}{
		{"most are certified", func(n msg.Round) []int { i := int(n) / 4; return []int{i, i + 1, i + 2, i + 3} }, func(n msg.Round) bool { return n%8 != 5 && n != 38 }, 0, 40, false},
		{"one of eight is, and none of round numbers", func(n msg.Round) (list []int) {
			for i := range 8 {
				list = append(list, (int(n)/3+i)%12)
			}
			return list
		}, func(n msg.Round) bool { return n == 1 || few(n) }, 13, 501, true},
	} {
		a := newAnnals(t, tt.to, tt.seats, tt.certified)
		steps := Prove(tt.from, tt.to, atMost(64), a.at)
		if len(steps) == 0 || steps[len(steps)-1].Round != tt.to {
			t.Fatalf("%s: steps %v", tt.name, steps)
		}
		bare := 0
		for _, s := range steps {
			if s.Bare {
				bare++
			} else if a.links[s.Round].Certificate == nil {
				t.Errorf("%s: round %d has no certificate", tt.name, s.Round)
			}
		}
		if (bare > 0) != tt.bare {
			t.Errorf("%s: %d of %d records are there to lead on alone", tt.name, bare, len(steps))
		}
		if got, err := a.rules.VerifyProof(a.links[tt.from], a.items(steps)); err != nil || got[len(got)-1].Record.Round != tt.to {
			t.Errorf("%s: %d steps, %v", tt.name, len(got), err)
		}
		t.Logf("%s: %d steps, %d of them bare", tt.name, len(steps), bare)
	}
	a := newAnnals(t, 40, func(n msg.Round) []int { return drawn(uint64(n), 8, 12) }, few)
	if steps := Prove(41, 50, atMost(100), a.at); steps != nil {
		t.Errorf("steps from a record that is not there: %v", steps)
	}
	// The launcher alone can vouch for what follows genesis.
	_, launcher := testKey(0)
	voted := false
	for i, l := range a.links {
		if l.Certificate != nil && slices.Contains(l.Certificate.Voters(), launcher) {
			voted, a.links[i].Certificate = true, nil
		}
	}
	if steps := Prove(0, 40, atMost(100), a.at); !voted || steps != nil {
		t.Errorf("steps %v without a vote of the launcher; it had voted: %v", steps, voted)
	}
}

// TestProofHostile: what a liar can put together is no proof.
func TestProofHostile(t *testing.T) {
	const last = 64
	a := newAnnals(t, last, four, nil)
	genesis, honest := a.links[0], a.links[last]
	// The liars have all seats of a chain of their own, from its first record on,
	// and one of the four seats of the true one.
	liars := newAnnals(t, last, func(msg.Round) []int { return []int{3, 20, 21, 22} }, nil)
	change := func(l Link, f func(*msg.Record)) Link {
		r := *l.Record
		f(&r)
		return Link{ID: mustID(t, &r), Record: &r, Certificate: l.Certificate}
	}
	resigned := func(l Link, by ...int) Link {
		var seats []msg.Seat
		for _, i := range by {
			key, id := testKey(i)
			a.keys[id] = key
			seats = append(seats, msg.Seat{Peer: id})
		}
		slices.SortFunc(seats, func(x, y msg.Seat) int { return comparePeers(x.Peer, y.Peer) })
		l.Certificate = a.votes(l, seats)
		return l
	}
	seated := func(l Link, ids ...int) Link {
		return change(l, func(r *msg.Record) {
			r.Seats = nil
			for _, i := range ids {
				_, id := testKey(i)
				r.Seats = append(r.Seats, msg.Seat{Peer: id, Since: 1})
			}
			slices.SortFunc(r.Seats, func(x, y msg.Seat) int { return comparePeers(x.Peer, y.Peer) })
			r.Proposer = r.Seats[0].Peer
		})
	}
	uncertified := honest
	uncertified.Certificate = nil
	// after makes a record of liars' own, for which these vote.
	after := func(l Link, n msg.Round, by ...int) Link {
		k := change(l, func(r *msg.Record) {
			r.Round, r.Parent, r.Skips = n, testCID("any"), slices.Repeat([]cid.Cid{l.ID}, msg.SkipCount(n))
		})
		k = seated(k, by...)
		k = change(k, func(r *msg.Record) { r.NextSeats = r.Seats })
		return resigned(k, by...)
	}
	// Two of the four that follow round 32 lie, each for another step; one of them twice.
	first := after(a.links[32], 40, 2, 20, 21, 22)
	second, again := after(first, 48, 3, 20, 21, 22), after(first, 48, 2, 20, 21, 22)
	// All seats are others in each round of this chain.
	changing := newAnnals(t, 20, func(n msg.Round) []int { i := 4 * int(n); return []int{i, i + 1, i + 2, i + 3} }, nil)
	bare := func(l Link) Link { l.Certificate = nil; return l }
	foreign := change(honest, func(r *msg.Record) { r.Run = testCID("another run") })
	unlinked := change(a.links[63], func(r *msg.Record) { r.Skips = slices.Repeat([]cid.Cid{testCID("x")}, 5) })
	for _, tt := range []struct {
		name  string
		known Link
		steps []Link
		want  string
	}{
		{"a chain of liars alone", a.links[1], []Link{liars.links[64]}, "does not name"},
		{"from genesis, without the launcher", genesis, []Link{liars.links[64]}, "votes of 0 of its next witnesses, must have more than 0"},
		{"seats made up, one true", a.links[32], []Link{resigned(seated(honest, 3, 20, 21, 22), 3, 20, 21, 22)}, "votes of 1 of its next witnesses, must have more than 2"},
		{"half of the seats are true", a.links[32], []Link{resigned(seated(honest, 2, 3, 20, 21), 2, 3, 20)}, "votes of 2 of its next witnesses, must have more than 2"},
		{"fewer votes than a quorum", genesis, []Link{resigned(honest, 0, 1)}, "2 votes, must be at least 3"},
		{"votes of nobody with a seat", genesis, []Link{resigned(honest, 0, 1, 20)}, "out of order or of no witness"},
		{"votes for another record", genesis, []Link{{ID: honest.ID, Record: honest.Record, Certificate: a.links[63].Certificate}}, "certificate is of record"},
		{"no votes", genesis, []Link{uncertified}, "has no certificate"},
		{"another run", genesis, []Link{resigned(foreign, 0, 1, 2)}, "is of run"},
		{"backwards", honest, []Link{a.links[63]}, "must be after round 64"},
		{"the same again", genesis, []Link{honest, honest}, "must be after round 64"},
		{"a record that names others", a.links[32], []Link{resigned(unlinked, 0, 1, 2)}, "does not name the record of round 32"},
		{"next of the parent with other seats", a.links[63], []Link{resigned(seated(honest, 0, 1, 2, 20), 0, 1, 2)}, "other seats than follow"},
		{"two liars of four, each for another step", a.links[32], []Link{first, second}, "round 32: what follows has votes of 2 of its next witnesses, must have more than 2"},
		{"the same without what the first is for", a.links[32], []Link{bare(first), second}, "votes of 1 of its next witnesses, must have more than 2"},
		{"one liar twice", a.links[32], []Link{first, again}, "votes of 1 of its next witnesses, must have more than 2"},
		{"true ones after a made up one", a.links[32], []Link{first, honest}, "does not name the record of round 40"},
		{"true ones after one with other bytes", a.links[32], []Link{bare(change(a.links[48], func(r *msg.Record) { r.State = testCID("x") })), honest}, "does not name the record of round 48"},
		{"only one that leads on", a.links[32], []Link{bare(a.links[48])}, "is the last one, and has no certificate"},
		{"no vote for what follows the one before the last", changing.links[8], []Link{changing.links[12], changing.links[16]}, "votes of 0 of its next witnesses"},
		{"it leads on, and nobody vouches for it", changing.links[8], []Link{bare(changing.links[12]), changing.links[16]}, "votes of 0 of its next witnesses"},
		{"a good step and a bad one", genesis, []Link{a.links[32], liars.links[64]}, "does not name"},
	} {
		var items []Item
		for _, l := range tt.steps {
			items = append(items, itemOf(t, l))
		}
		if got, err := a.rules.VerifyProof(tt.known, items); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %d steps, error %v, want %q", tt.name, len(got), err, tt.want)
		}
	}
	unsigned := itemOf(t, liars.links[64])
	unsigned.Certificate[len(unsigned.Certificate)-1] ^= 1
	if _, err := a.rules.VerifyProof(genesis, []Item{unsigned}); err == nil || !strings.Contains(err.Error(), "next witnesses") {
		t.Errorf("signatures are checked before it is looked whose they are: %v", err)
	}
	var long []Item
	for _, l := range newAnnals(t, MaxProofSteps+1, four, nil).links[1:] {
		long = append(long, itemOf(t, l))
	}
	if _, err := a.rules.VerifyProof(genesis, long); err == nil || !strings.Contains(err.Error(), "must be at most") {
		t.Errorf("%d steps: %v", len(long), err)
	}
	if _, err := a.rules.VerifyProof(genesis, long[:MaxProofSteps]); err != nil {
		t.Errorf("%d steps: %v", MaxProofSteps, err)
	}
	good := itemOf(t, honest)
	for i := range 200 { // any byte that changes makes it another record, or none
		bad := Item{Record: slices.Clone(good.Record), Certificate: slices.Clone(good.Certificate)}
		list := [][]byte{bad.Record, bad.Certificate}[i%2]
		list[i*len(list)/200] ^= 1 << (i % 8)
		if _, err := a.rules.VerifyProof(genesis, []Item{bad}); err == nil {
			t.Fatal(fmt.Sprint("a changed byte is not noticed: ", i))
		}
	}
	if _, err := a.rules.VerifyProof(Link{Record: &msg.Record{Run: testCID("x")}}, []Item{good}); err == nil {
		t.Error("a record of another run is a beginning")
	}
}
