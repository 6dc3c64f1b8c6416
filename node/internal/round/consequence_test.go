package round

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// TestQuorum is the table of the specification.
func TestQuorum(t *testing.T) {
	for _, tt := range []struct{ n, q, f int }{
		{1, 1, 0}, {2, 2, 0}, {3, 2, 0}, {4, 3, 1}, {5, 4, 1}, {6, 5, 1}, {7, 5, 2}, {10, 7, 3}, {16, 11, 5}, {32, 22, 10}, {48, 33, 15},
	} {
		if q, f := Quorum(tt.n); q != tt.q || f != tt.f {
			t.Errorf("Quorum(%d) = %d, %d, want %d, %d", tt.n, q, f, tt.q, tt.f)
		}
	}
	for n := 4; n <= msg.MaxSeats; n++ {
		if q, f := Quorum(n); 2*q-n <= f || q > n-f {
			t.Errorf("n = %d: two quorums share %d seats, %d may lie, q %d", n, 2*q-n, f, q)
		}
	}
}

// TestProposers: the order is that of sha2-256(head, peer ID), so it differs
// from head to head and has every seat once.
func TestProposers(t *testing.T) {
	var seats []msg.Seat
	for i := range 4 {
		_, id := testKey(i)
		seats = append(seats, msg.Seat{Peer: id, Since: 1})
	}
	slices.SortFunc(seats, func(a, b msg.Seat) int { return strings.Compare(string(a.Peer), string(b.Peer)) })
	first := make(map[int]int)
	for i := range 64 {
		head := testCID(fmt.Sprint("head ", i))
		order := Proposers(head, seats)
		first[order[0]]++
		for j := 1; j < len(order); j++ {
			a, b := rank(head, seats[order[j-1]].Peer), rank(head, seats[order[j]].Peer)
			if bytes.Compare(a[:], b[:]) >= 0 {
				t.Fatalf("%v is not in order", order)
			}
		}
	}
	if len(first) != 4 {
		t.Errorf("only %v are ever first", first)
	}
}

// scene is a record with seats and the keys of them, to make messages for the
// round that follows.
type scene struct {
	t        *testing.T
	rules    *Rules
	manifest *run.Manifest
	parent   Link
	keys     []crypto.PrivKey // by seat
	known    map[cid.Cid]msg.Signed
}

// newScene has n seats, or as the change says, and a run that has trained.
func newScene(t *testing.T, n int, change func(*run.Manifest, *msg.Record)) *scene {
	t.Helper()
	type keyed struct {
		priv crypto.PrivKey
		id   peer.ID
	}
	var keys []keyed
	for i := range n {
		priv, id := testKey(i)
		keys = append(keys, keyed{priv, id})
	}
	slices.SortFunc(keys, func(a, b keyed) int { return strings.Compare(string(a.id), string(b.id)) })
	m := testManifest(nil)
	r := &msg.Record{
		Version: msg.RecordVersion, Round: 8, Parent: testCID("grandparent"), Proposer: keys[0].id,
		Seats: []msg.Seat{{Peer: keys[0].id, Since: 1}}, Haves: [][]byte{{1}}, State: testCID("state"),
		Tokens: 5000, TrainedRounds: 4,
	}
	for _, k := range keys {
		r.NextSeats = append(r.NextSeats, msg.Seat{Peer: k.id, Since: 2})
	}
	if change != nil {
		change(m, r)
	}
	rules, err := NewRules(m)
	if err != nil {
		t.Fatal(err)
	}
	r.Run = rules.run
	id, err := r.CID()
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, rules: rules, manifest: m, parent: Link{ID: id, Record: r}, known: make(map[cid.Cid]msg.Signed)}
	for _, k := range keys {
		s.keys = append(s.keys, k.priv)
	}
	return s
}

func (s *scene) seal(priv crypto.PrivKey, v msg.Message) msg.Signed {
	s.t.Helper()
	m, err := msg.Seal(priv, v)
	if err != nil {
		s.t.Fatal(err)
	}
	s.known[m.CID] = m
	return m
}

func (s *scene) seat(i int) peer.ID { return s.parent.Record.NextSeats[i].Peer }

// commit is the variant-th commit of a seat.
func (s *scene) commit(seat, variant int) cid.Cid {
	return s.seal(s.keys[seat], &msg.Commit{
		Run: s.rules.run, Round: 9, Head: s.parent.ID, Peer: s.seat(seat), Delta: testCID(fmt.Sprint("delta", seat, variant)),
		DeltaBytes: s.rules.deltaBytes, CodecBits: 2, Tokens: uint64(100*(seat+1) + variant), Steps: 1, Norm: 1,
	}).CID
}

func (s *scene) join(key int, seq uint64, leave bool) cid.Cid {
	priv, id := testKey(key)
	return s.seal(priv, &msg.JoinRequest{Run: s.rules.run, Peer: id, Seq: seq, Leave: leave}).CID
}

// have is that of a seat; entries are (seat, commit, reason).
func (s *scene) have(seat int, entries []msg.HaveEntry, joins ...cid.Cid) msg.Signed {
	slices.SortFunc(joins, compareCIDs)
	return s.seal(s.keys[seat], &msg.Have{
		Run: s.rules.run, Round: 9, Head: s.parent.ID, Peer: s.seat(seat), Entries: entries, Joins: joins,
	})
}

func (s *scene) consequence(haves ...msg.Signed) *Consequence {
	return s.rules.Consequence(Basis{Parent: s.parent, Haves: haves, Find: func(id cid.Cid) (msg.Signed, bool) {
		m, ok := s.known[id]
		return m, ok
	}})
}

// record completes a consequence as the proposer of attempt 0 does.
func (s *scene) record(c *Consequence) *msg.Record {
	f := Folded{State: testCID("next")}
	for range c.Inputs {
		f.Applied = append(f.Applied, fold.Applied{Weight: 1, ClipQ16: 65536})
	}
	r := c.Record
	if c.Folds() {
		r = c.weigh(f)
	}
	r.Proposer = s.seat(Proposers(s.parent.ID, s.parent.Record.NextSeats)[0])
	return r
}

func held(seat int, id cid.Cid) msg.HaveEntry {
	return msg.HaveEntry{Seat: uint32(seat), Commit: id, Reason: msg.Held}
}

func refused(seat int, id cid.Cid, r msg.Reason) msg.HaveEntry {
	return msg.HaveEntry{Seat: uint32(seat), Commit: id, Reason: r}
}

// TestInclusion: t is the smaller of f+1 and the number of haves, and a commit
// that so many list as held is included.
func TestInclusion(t *testing.T) {
	for _, tt := range []struct {
		name                  string
		seats, haves, holders int
		included              bool
	}{
		{"four seats, one holder", 4, 3, 1, false},
		{"four seats, two holders", 4, 3, 2, true},
		{"seven seats, two holders", 7, 5, 2, false},
		{"seven seats, three holders", 7, 5, 3, true},
		{"seven seats, one have in all", 7, 1, 1, true},
		{"seven seats, two haves in all", 7, 2, 1, false},
		{"three seats, one holder", 3, 2, 1, true},
		{"two seats, nobody", 2, 2, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, tt.seats, nil)
			c := s.commit(0, 0)
			var haves []msg.Signed
			for i := range tt.haves {
				e := held(0, c)
				if i >= tt.holders {
					e.Reason = msg.Timeout
				}
				haves = append(haves, s.have(i, []msg.HaveEntry{e}))
			}
			r := s.consequence(haves...).Record
			if got := len(r.Contributions) == 1; got != tt.included {
				t.Errorf("included = %v", got)
			}
			if tt.included {
				if r.Tokens != 5100 || r.TrainedRounds != 5 || len(r.Refused) != 0 || len(r.Commits) != 1 {
					t.Errorf("tokens %d, trained %d, refused %v", r.Tokens, r.TrainedRounds, r.Refused)
				}
				return
			}
			want := []msg.Refusal{{Seat: 0, Commit: c, Reason: msg.Timeout}}
			if r.Tokens != 5000 || r.TrainedRounds != 4 || !r.State.Equals(s.parent.Record.State) || !slices.Equal(r.Refused, want) {
				t.Errorf("tokens %d, trained %d, refused %v, state %v", r.Tokens, r.TrainedRounds, r.Refused, r.State)
			}
		})
	}
}

// TestRefusal: the reason that most haves give, the lowest of several, not-held
// if there is none; two that enough hold are refused for equivocation.
func TestRefusal(t *testing.T) {
	for _, tt := range []struct {
		name    string
		reasons [4]msg.Reason
		want    msg.Reason
	}{
		{"most", [4]msg.Reason{msg.BadNorm, msg.Timeout, msg.BadNorm, msg.NotHeld}, msg.BadNorm},
		{"tie", [4]msg.Reason{msg.BadNorm, msg.Timeout, msg.BadNorm, msg.Timeout}, msg.Timeout},
		{"held is left out", [4]msg.Reason{msg.Held, msg.Held, msg.NotFinite, msg.NotFinite}, msg.NotFinite},
		{"none", [4]msg.Reason{msg.Held, msg.Held, msg.Held, msg.Held}, msg.NotHeld},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var o opinion
			for _, r := range tt.reasons {
				if r == msg.Held {
					o.held++
				} else {
					o.reasons[r]++
				}
			}
			if got := o.refusal(); got != tt.want {
				t.Errorf("refusal = %v, want %v", got, tt.want)
			}
		})
	}
	t.Run("one holder of too many seats", func(t *testing.T) {
		s := newScene(t, 4, nil)
		c := s.commit(1, 0)
		r := s.consequence(s.have(0, []msg.HaveEntry{held(1, c)}), s.have(2, nil), s.have(3, nil)).Record
		if want := []msg.Refusal{{Seat: 1, Commit: c, Reason: msg.NotHeld}}; !slices.Equal(r.Refused, want) {
			t.Errorf("refused %v, want %v", r.Refused, want)
		}
	})
	t.Run("equivocation", func(t *testing.T) {
		s := newScene(t, 4, nil)
		a, b := s.commit(1, 0), s.commit(1, 1)
		r := s.consequence(
			s.have(0, []msg.HaveEntry{held(1, a)}), s.have(1, []msg.HaveEntry{held(1, b)}),
			s.have(2, []msg.HaveEntry{held(1, a)}), s.have(3, []msg.HaveEntry{held(1, b)})).Record
		want := []msg.Refusal{{Seat: 1, Commit: a, Reason: msg.Equivocation}, {Seat: 1, Commit: b, Reason: msg.Equivocation}}
		slices.SortFunc(want, func(a, b msg.Refusal) int { return compareCIDs(a.Commit, b.Commit) })
		if len(r.Contributions) != 0 || !slices.Equal(r.Refused, want) {
			t.Errorf("contributions %v, refused %v", r.Contributions, r.Refused)
		}
	})
	t.Run("one of two that enough hold", func(t *testing.T) {
		s := newScene(t, 4, nil)
		a, b := s.commit(1, 0), s.commit(1, 1)
		r := s.consequence(
			s.have(0, []msg.HaveEntry{held(1, a)}), s.have(1, []msg.HaveEntry{refused(1, b, msg.Equivocation)}),
			s.have(2, []msg.HaveEntry{held(1, a)})).Record
		if len(r.Contributions) != 1 || !r.Contributions[0].Commit.Equals(a) || len(r.Refused) != 1 {
			t.Errorf("contributions %v, refused %v", r.Contributions, r.Refused)
		}
	})
	t.Run("assembly", func(t *testing.T) {
		s := newScene(t, 4, func(m *run.Manifest, r *msg.Record) { m.MinPeers, r.TrainedRounds, r.Tokens = 5, 0, 0 })
		c := s.commit(1, 0)
		e := []msg.HaveEntry{held(1, c)}
		r := s.consequence(s.have(0, e), s.have(1, e), s.have(2, e)).Record
		if len(r.Contributions) != 0 || len(r.Refused) != 1 {
			t.Errorf("contributions %v, refused %v", r.Contributions, r.Refused)
		}
	})
}

// TestBlocked: a commit that has to be included must be one of its seat, for
// this round, with the codec and size of the run.
func TestBlocked(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*msg.Commit)
		signer int
	}{
		{"of another seat", func(*msg.Commit) {}, 2},
		{"for another head", func(c *msg.Commit) { c.Head = testCID("other") }, 1},
		{"for another round", func(c *msg.Commit) { c.Round++ }, 1},
		{"of another codec", func(c *msg.Commit) { c.CodecBits = 4 }, 1},
		{"of another size", func(c *msg.Commit) { c.DeltaBytes-- }, 1},
		{"of another run", func(c *msg.Commit) { c.Run = testCID("other") }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, 4, nil)
			v := *s.known[s.commit(1, 0)].Message.(*msg.Commit)
			tt.change(&v)
			v.Peer = s.seat(tt.signer)
			id := s.seal(s.keys[tt.signer], &v).CID
			e := []msg.HaveEntry{held(1, id)}
			c := s.consequence(s.have(0, e), s.have(1, e), s.have(2, e))
			if !slices.Equal(c.Blocked, []cid.Cid{id}) {
				t.Errorf("blocked %v, want %v", c.Blocked, id)
			}
		})
	}
}

// TestStay: a have or a contribution keeps a seat; two rounds without lose it.
func TestStay(t *testing.T) {
	s := newScene(t, 4, func(_ *run.Manifest, r *msg.Record) {
		r.NextSeats[0].Missed, r.NextSeats[1].Missed, r.NextSeats[2].Missed = 1, 1, 1
		r.NextSeats[1].Fresh, r.NextSeats[0].Fresh = true, true
	})
	c := s.commit(1, 0)
	e := []msg.HaveEntry{held(1, c)}
	cons := s.consequence(s.have(0, e), s.have(3, e)) // as in the fallback
	want := slices.Clone(s.parent.Record.NextSeats)
	want[0].Missed, want[1].Missed, want[1].Fresh = 0, 0, false
	want = slices.Delete(want, 2, 3)
	if diff := cmp.Diff(want, cons.Record.NextSeats); diff != "" {
		t.Errorf("next seats (-want +got):\n%s", diff)
	}
	if len(cons.Inputs) != 1 || cons.Inputs[0].FactorQ16 != fold.FactorFresh {
		t.Errorf("inputs %v, want one of factor 0", cons.Inputs)
	}
	cons = s.consequence(s.have(0, nil))
	if n := cons.Record.NextSeats; len(n) != 2 || n[0].Missed != 0 || n[1].Missed != 1 || !n[0].Fresh {
		t.Errorf("next seats %v", n)
	}
}

// TestJoins: order, limits, newest of several, leave before join, the last seat
// stays, fresh, and only what took effect is in the record.
func TestJoins(t *testing.T) {
	_, five := testKey(5)
	_, six := testKey(6)
	has := func(r *msg.Record, id peer.ID) bool { return seatOf(r.NextSeats, id) >= 0 }
	all := func(s *scene, joins ...cid.Cid) *Consequence {
		return s.consequence(s.have(0, nil, slices.Clone(joins)...), s.have(1, nil, slices.Clone(joins)...), s.have(2, nil, slices.Clone(joins)...))
	}
	t.Run("join", func(t *testing.T) {
		s := newScene(t, 4, nil)
		r := all(s, s.join(5, 1, false)).Record
		i := seatOf(r.NextSeats, five)
		if i < 0 || r.NextSeats[i] != (msg.Seat{Peer: five, Since: 10, Fresh: true}) || len(r.Joins) != 1 {
			t.Errorf("next seats %v", r.NextSeats)
		}
		if !slices.IsSortedFunc(r.NextSeats, func(a, b msg.Seat) int { return strings.Compare(string(a.Peer), string(b.Peer)) }) {
			t.Error("next seats are not sorted")
		}
	})
	t.Run("not fresh before tokens", func(t *testing.T) {
		s := newScene(t, 4, func(_ *run.Manifest, r *msg.Record) { r.Tokens, r.TrainedRounds = 0, 0 })
		r := all(s, s.join(5, 1, false)).Record
		if i := seatOf(r.NextSeats, five); i < 0 || r.NextSeats[i].Fresh {
			t.Errorf("next seats %v", r.NextSeats)
		}
	})
	t.Run("fresh with the first tokens", func(t *testing.T) {
		s := newScene(t, 4, func(_ *run.Manifest, r *msg.Record) { r.Tokens, r.TrainedRounds = 0, 0 })
		c, j := s.commit(0, 0), s.join(5, 1, false)
		e := []msg.HaveEntry{held(0, c)}
		r := s.consequence(s.have(0, e, j), s.have(1, e, j), s.have(2, e, j)).Record
		if i := seatOf(r.NextSeats, five); i < 0 || !r.NextSeats[i].Fresh {
			t.Errorf("next seats %v", r.NextSeats)
		}
	})
	t.Run("too few list it", func(t *testing.T) {
		s := newScene(t, 4, nil)
		r := s.consequence(s.have(0, nil, s.join(5, 1, false)), s.have(1, nil), s.have(2, nil)).Record
		if has(r, five) || len(r.Joins) != 0 {
			t.Error("one of four was enough")
		}
	})
	t.Run("newest counts", func(t *testing.T) {
		s := newScene(t, 4, nil)
		if r := all(s, s.join(5, 1, false), s.join(5, 2, true)).Record; has(r, five) || len(r.Joins) != 0 {
			t.Error("joined by an older request")
		}
		if r := all(s, s.join(5, 3, false), s.join(5, 2, true)).Record; !has(r, five) || len(r.Joins) != 1 {
			t.Error("did not join by the newer request")
		}
	})
	t.Run("tie of two", func(t *testing.T) {
		s := newScene(t, 4, nil)
		a, b := s.join(5, 7, false), s.join(5, 7, true)
		if got, want := has(all(s, a, b).Record, five), compareCIDs(a, b) < 0; got != want {
			t.Errorf("joined %v, want %v", got, want)
		}
	})
	t.Run("full", func(t *testing.T) {
		s := newScene(t, 4, func(m *run.Manifest, _ *msg.Record) { m.Seats = 5 })
		r := all(s, s.join(5, 1, false), s.join(6, 1, false)).Record
		a, b := rank(s.parent.ID, five), rank(s.parent.ID, six)
		first := bytes.Compare(a[:], b[:]) < 0
		if has(r, five) != first || has(r, six) == first || len(r.Joins) != 1 {
			t.Errorf("next seats %v", r.NextSeats)
		}
	})
	t.Run("a leave makes room", func(t *testing.T) {
		s := newScene(t, 4, func(m *run.Manifest, _ *msg.Record) { m.Seats = 4 })
		_, zero := testKey(0)
		r := all(s, s.join(5, 1, false), s.join(0, 1, true)).Record
		if !has(r, five) || has(r, zero) || len(r.Joins) != 2 || len(r.NextSeats) != 4 {
			t.Errorf("next seats %v", r.NextSeats)
		}
	})
	t.Run("of those with a seat, and leaves of those without", func(t *testing.T) {
		s := newScene(t, 4, nil)
		r := all(s, s.join(0, 1, false), s.join(5, 1, true)).Record
		if len(r.NextSeats) != 4 || len(r.Joins) != 0 {
			t.Errorf("next seats %v, joins %d", r.NextSeats, len(r.Joins))
		}
	})
	t.Run("the last seat stays", func(t *testing.T) {
		s := newScene(t, 1, nil)
		r := s.consequence(s.have(0, nil, s.join(0, 1, true), s.join(5, 1, false))).Record
		if len(r.NextSeats) != 2 || len(r.Joins) != 1 {
			t.Errorf("next seats %v", r.NextSeats)
		}
	})
	t.Run("all leave", func(t *testing.T) {
		s := newScene(t, 4, nil)
		r := all(s, s.join(0, 1, true), s.join(1, 1, true), s.join(2, 1, true), s.join(3, 1, true)).Record
		if len(r.NextSeats) != 1 || len(r.Joins) != 3 {
			t.Errorf("next seats %v", r.NextSeats)
		}
	})
	t.Run("a seat that goes can join", func(t *testing.T) {
		s := newScene(t, 4, func(_ *run.Manifest, r *msg.Record) { r.NextSeats[3].Missed = 1 })
		id := s.seat(3)
		key := slices.IndexFunc([]int{0, 1, 2, 3}, func(i int) bool { _, x := testKey(i); return x == id })
		r := all(s, s.join(key, 1, false)).Record
		if i := seatOf(r.NextSeats, id); i < 0 || r.NextSeats[i].Since != 10 || r.NextSeats[i].Missed != 0 {
			t.Errorf("next seats %v", r.NextSeats)
		}
	})
}

// TestCreditedTokens: nobody makes the tokens of a run grow by more than twice
// what the others do.
func TestCreditedTokens(t *testing.T) {
	one := func(tokens uint64, reason msg.Reason) msg.Contribution {
		return msg.Contribution{Tokens: tokens, Reason: reason}
	}
	for _, tt := range []struct {
		list []msg.Contribution
		want uint64
	}{
		{nil, 0},
		{[]msg.Contribution{one(100, 0), one(150, 0), one(120, 0)}, 370},
		{[]msg.Contribution{one(100, 0), one(msg.MaxTokens, 0), one(120, 0)}, 460},
		{[]msg.Contribution{one(100, 0), one(5000, msg.Probation), one(5000, msg.Probation), one(5000, msg.Fresh)}, 700},
		{[]msg.Contribution{one(50, msg.Harmful)}, 50},
	} {
		if got := creditedTokens(tt.list); got != tt.want {
			t.Errorf("creditedTokens(%v) = %d, want %d", tt.list, got, tt.want)
		}
	}
}

// TestFinalRule: the run stops at max_rounds or max_tokens.
func TestFinalRule(t *testing.T) {
	for _, tt := range []struct {
		rounds, tokens uint64
		want           bool
	}{{5, 0, true}, {6, 0, false}, {4, 0, true}, {9, 5100, true}, {9, 5101, false}} {
		s := newScene(t, 1, func(m *run.Manifest, _ *msg.Record) { m.MaxRounds, m.MaxTokens = tt.rounds, tt.tokens })
		c := s.commit(0, 0)
		if got := s.consequence(s.have(0, []msg.HaveEntry{held(0, c)})).Record.Final; got != tt.want {
			t.Errorf("max_rounds %d, max_tokens %d: final = %v, want %v", tt.rounds, tt.tokens, got, tt.want)
		}
	}
}

// TestVerify: a record is valid as it follows, and not with anything changed.
func TestVerify(t *testing.T) {
	base := func(t *testing.T) (*scene, *msg.Record, []msg.Signed) {
		s := newScene(t, 4, nil)
		a, b, j := s.commit(0, 0), s.commit(2, 0), s.join(5, 1, false)
		e := []msg.HaveEntry{held(0, a), refused(2, b, msg.BadNorm)}
		haves := []msg.Signed{s.have(0, e, j), s.have(1, e, j), s.have(2, e, j), s.have(3, e, j)}
		return s, s.record(s.consequence(haves[:3]...)), haves
	}
	s, r, _ := base(t)
	if c, err := s.rules.Verify(Link{}, s.parent, r); err != nil || len(c.Inputs) != 1 {
		t.Fatalf("a valid record: %v", err)
	}
	for _, tt := range []struct {
		name   string
		change func(s *scene, r *msg.Record, haves []msg.Signed)
	}{
		{"run", func(_ *scene, r *msg.Record, _ []msg.Signed) { r.Run = testCID("other") }},
		{"round", func(_ *scene, r *msg.Record, _ []msg.Signed) { r.Round++ }},
		{"parent", func(_ *scene, r *msg.Record, _ []msg.Signed) { r.Parent = testCID("other") }},
		{"proposer", func(_ *scene, r *msg.Record, _ []msg.Signed) {
			i := seatOf(r.Seats, r.Proposer)
			r.Proposer = r.Seats[(i+1)%4].Peer
		}},
		{"attempt", func(_ *scene, r *msg.Record, _ []msg.Signed) { r.Attempt = 1 }},
		{"too few haves", func(_ *scene, r *msg.Record, _ []msg.Signed) { r.Haves = r.Haves[:2] }},
		{"another have", func(_ *scene, r *msg.Record, h []msg.Signed) { r.Haves[2] = h[3].Envelope; r.Haves[1] = h[2].Envelope }},
		{"a have twice", func(_ *scene, r *msg.Record, h []msg.Signed) { r.Haves[2] = h[1].Envelope }},
		{"a have of no seat", func(s *scene, r *msg.Record, _ []msg.Signed) {
			priv, id := testKey(9)
			r.Haves[2] = s.seal(priv, &msg.Have{Run: r.Run, Round: 9, Head: r.Parent, Peer: id}).Envelope
		}},
		{"a have for another head", func(s *scene, r *msg.Record, _ []msg.Signed) {
			r.Haves[2] = s.seal(s.keys[2], &msg.Have{Run: r.Run, Round: 9, Head: testCID("x"), Peer: s.seat(2)}).Envelope
		}},
		{"a have of a seat that is not", func(s *scene, r *msg.Record, _ []msg.Signed) {
			r.Haves[2] = s.have(2, []msg.HaveEntry{held(4, testCID("x"))}).Envelope
		}},
		{"something else for a have", func(_ *scene, r *msg.Record, _ []msg.Signed) { r.Haves[2] = r.Commits[0] }},
		{"a broken have", func(_ *scene, r *msg.Record, _ []msg.Signed) {
			r.Haves[2] = slices.Clone(r.Haves[2])
			r.Haves[2][40] ^= 1
		}},
		{"no contribution", func(_ *scene, r *msg.Record, _ []msg.Signed) { r.Commits, r.Contributions = nil, nil }},
		{"another commit", func(s *scene, r *msg.Record, _ []msg.Signed) { r.Commits[0] = s.known[s.commit(0, 1)].Envelope }},
		{"tokens of a contribution", func(_ *scene, r *msg.Record, _ []msg.Signed) { r.Contributions[0].Tokens++ }},
		{"delta", func(_ *scene, r *msg.Record, _ []msg.Signed) { r.Contributions[0].Delta = testCID("x") }},
		{"reason", func(_ *scene, r *msg.Record, _ []msg.Signed) { r.Refused[0].Reason = msg.Timeout }},
		{"no refusal", func(_ *scene, r *msg.Record, _ []msg.Signed) { r.Refused = nil }},
		{"seats", func(_ *scene, r *msg.Record, _ []msg.Signed) {
			r.Seats = slices.Clone(r.Seats)
			r.Seats[1].Fresh = true
		}},
		{"next seats", func(_ *scene, r *msg.Record, _ []msg.Signed) { r.NextSeats = r.NextSeats[1:] }},
		{"missed", func(_ *scene, r *msg.Record, _ []msg.Signed) {
			for i := range r.NextSeats {
				r.NextSeats[i].Missed = 0
			}
		}},
		{"a join that nobody lists", func(s *scene, r *msg.Record, _ []msg.Signed) {
			r.Joins = append(r.Joins, s.known[s.join(6, 1, false)].Envelope)
			slices.SortFunc(r.Joins, func(a, b []byte) int { return compareCIDs(msg.RawCID(a), msg.RawCID(b)) })
		}},
		{"tokens", func(_ *scene, r *msg.Record, _ []msg.Signed) { r.Tokens++ }},
		{"trained", func(_ *scene, r *msg.Record, _ []msg.Signed) { r.TrainedRounds++ }},
		{"final", func(_ *scene, r *msg.Record, _ []msg.Signed) { r.Final = true }},
		{"certificate of too few", func(s *scene, r *msg.Record, _ []msg.Signed) {
			v := s.seal(s.keys[1], &msg.Vote{Run: r.Run, Round: 8, Head: testCID("grandparent"), Record: r.Parent, Peer: s.seat(1)})
			r.ParentCertificate = &msg.Certificate{Record: r.Parent, Votes: [][]byte{v.Envelope}}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, r, haves := base(t)
			tt.change(s, r, haves)
			if _, err := s.rules.Verify(Link{}, s.parent, r); err == nil {
				t.Error("Verify() = nil")
			}
		})
	}
	t.Run("fallback", func(t *testing.T) {
		s, _, haves := base(t)
		r := s.record(s.consequence(haves[3]))
		r.Attempt, r.Proposer = msg.MaxAttempt, s.seat(2)
		if _, err := s.rules.Verify(Link{}, s.parent, r); err != nil {
			t.Errorf("one have in the fallback: %v", err)
		}
	})
	t.Run("state without contribution", func(t *testing.T) {
		s, _, _ := base(t)
		r := s.record(s.consequence(s.have(0, nil), s.have(1, nil), s.have(2, nil)))
		if _, err := s.rules.Verify(Link{}, s.parent, r); err != nil {
			t.Fatal(err)
		}
		r.State = testCID("x")
		if _, err := s.rules.Verify(Link{}, s.parent, r); err == nil {
			t.Error("another state than the parent's")
		}
	})
	t.Run("after the final record", func(t *testing.T) {
		s, r, _ := base(t)
		s.parent.Record.Final = true
		if _, err := s.rules.Verify(Link{}, s.parent, r); err == nil {
			t.Error("a record follows the final one")
		}
	})
}

// TestCertificate: a quorum of votes, for this record, of different seats in
// their order.
func TestCertificate(t *testing.T) {
	s := newScene(t, 4, nil)
	r := s.record(s.consequence(s.have(0, nil), s.have(1, nil), s.have(2, nil)))
	id, err := r.CID()
	if err != nil {
		t.Fatal(err)
	}
	vote := func(seat int, change func(*msg.Vote)) []byte {
		v := &msg.Vote{Run: r.Run, Round: r.Round, Head: r.Parent, Record: id, Peer: s.seat(seat)}
		if change != nil {
			change(v)
		}
		return s.seal(s.keys[seat], v).Envelope
	}
	stranger, strange := testKey(9)
	for _, tt := range []struct {
		name  string
		votes [][]byte
		ok    bool
	}{
		{"quorum", [][]byte{vote(0, nil), vote(2, nil), vote(3, nil)}, true},
		{"all, of different attempts", [][]byte{vote(0, nil), vote(1, func(v *msg.Vote) { v.Attempt = 2 }), vote(2, nil), vote(3, nil)}, true},
		{"too few", [][]byte{vote(0, nil), vote(2, nil)}, false},
		{"one twice", [][]byte{vote(0, nil), vote(0, nil), vote(1, nil)}, false},
		{"out of order", [][]byte{vote(1, nil), vote(0, nil), vote(2, nil)}, false},
		{"for another record", [][]byte{vote(0, nil), vote(1, nil), vote(2, func(v *msg.Vote) { v.Record = testCID("x") })}, false},
		{"for another head", [][]byte{vote(0, nil), vote(1, nil), vote(2, func(v *msg.Vote) { v.Head = testCID("x") })}, false},
		{"for another round", [][]byte{vote(0, nil), vote(1, nil), vote(2, func(v *msg.Vote) { v.Round++ })}, false},
		{"of another run", [][]byte{vote(0, nil), vote(1, nil), vote(2, func(v *msg.Vote) { v.Run = testCID("x") })}, false},
		{"of a stranger", [][]byte{vote(0, nil), vote(1, nil), s.seal(stranger, &msg.Vote{
			Run: r.Run, Round: r.Round, Head: r.Parent, Record: id, Peer: strange,
		}).Envelope}, false},
		{"a have", [][]byte{vote(0, nil), vote(1, nil), s.have(2, nil).Envelope}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := VerifyCertificate(&msg.Certificate{Record: id, Votes: tt.votes}, id, r)
			if (err == nil) != tt.ok {
				t.Errorf("VerifyCertificate() = %v", err)
			}
		})
	}
}

// TestOwnWord: where one have is enough, a maker's own is not against another's
// who found the delta wrong, nor in the fallback, as nobody else might ever get
// what it announced; a peer that is alone has no other.
func TestOwnWord(t *testing.T) {
	own := func(other msg.Reason) func(*scene, cid.Cid) []msg.Signed {
		return func(s *scene, id cid.Cid) []msg.Signed {
			return []msg.Signed{s.have(0, []msg.HaveEntry{refused(1, id, other)}), s.have(1, []msg.HaveEntry{held(1, id)})}
		}
	}
	both := func(s *scene, id cid.Cid) []msg.Signed {
		return []msg.Signed{s.have(0, []msg.HaveEntry{held(1, id)}), s.have(1, []msg.HaveEntry{held(1, id)})}
	}
	alone := func(s *scene, id cid.Cid) []msg.Signed { return []msg.Signed{s.have(1, []msg.HaveEntry{held(1, id)})} }
	for _, tt := range []struct {
		name             string
		seats            int
		haves            func(*scene, cid.Cid) []msg.Signed
		usual, fallback  bool
		usualWhy, lastly msg.Reason // why not
	}{
		{"two, late", 2, own(msg.Timeout), true, false, 0, msg.Timeout},
		{"two, wrong", 2, own(msg.BadCodec), false, false, msg.BadCodec, msg.BadCodec},
		{"two, the other holds it", 2, both, true, true, 0, 0},
		{"three, late", 3, own(msg.Timeout), true, false, 0, msg.Timeout},
		{"three, wrong", 3, own(msg.BadNorm), false, false, msg.BadNorm, msg.BadNorm},
		{"three, a copy", 3, own(msg.Copy), false, false, msg.Copy, msg.Copy},
		{"three, another holds it", 3, both, true, true, 0, 0},
		{"three, the only have", 3, alone, true, true, 0, 0},
		{"four", 4, own(msg.Timeout), false, false, msg.Timeout, msg.Timeout},
		{"four, two hold it", 4, both, true, true, 0, 0},
	} {
		for _, fallback := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, fallback %v", tt.name, fallback), func(t *testing.T) {
				s := newScene(t, tt.seats, nil)
				id := s.commit(1, 0)
				r := s.rules.Consequence(Basis{
					Parent: s.parent, Haves: tt.haves(s, id), Fallback: fallback,
					Find: func(id cid.Cid) (msg.Signed, bool) { m, ok := s.known[id]; return m, ok },
				}).Record
				want, why := tt.usual, tt.usualWhy
				if fallback {
					want, why = tt.fallback, tt.lastly
				}
				if included := len(r.Contributions) == 1; included != want {
					t.Fatalf("included %v", included)
				}
				if !want && (len(r.Refused) != 1 || r.Refused[0].Reason != why) {
					t.Errorf("refused %+v, want %v", r.Refused, why)
				}
			})
		}
	}
}
