package round

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// tale is a run told record by record, with real deltas and states: every seat
// sends a delta, everybody holds all of them, and all auditors measure the same.
type tale struct {
	t      *testing.T
	rules  *Rules
	layout *fold.Layout
	keys   map[peer.ID]crypto.PrivKey
	links  []Link
	states map[cid.Cid]*fold.State
	deltas map[cid.Cid]*fold.Delta
	rnd    *rand.Rand
}

// newTale is a run of n peers that begins to train with the record to come.
func newTale(t *testing.T, n int, m *run.Manifest) *tale {
	t.Helper()
	rules, err := NewRules(m)
	if err != nil {
		t.Fatal(err)
	}
	layout, err := m.Layout()
	if err != nil {
		t.Fatal(err)
	}
	state, _, err := run.Genesis(m)
	if err != nil {
		t.Fatal(err)
	}
	s := &tale{
		t: t, rules: rules, layout: layout, keys: make(map[peer.ID]crypto.PrivKey), deltas: make(map[cid.Cid]*fold.Delta),
		states: map[cid.Cid]*fold.State{state.CID(): state}, rnd: rand.New(rand.NewPCG(1, 2)),
	}
	r := &msg.Record{Version: msg.RecordVersion, Run: rules.run, Round: 3, Parent: testCID("early"), State: state.CID(), Haves: [][]byte{{1}}}
	for i := range n {
		priv, id := testKey(i)
		s.keys[id] = priv
		r.NextSeats = append(r.NextSeats, msg.Seat{Peer: id, Since: 2})
	}
	slices.SortFunc(r.NextSeats, func(a, b msg.Seat) int { return comparePeers(a.Peer, b.Peer) })
	r.Proposer, r.Seats = r.NextSeats[0].Peer, []msg.Seat{{Peer: r.NextSeats[0].Peer, Since: 1}}
	s.add(r)
	return s
}

func (s *tale) add(r *msg.Record) {
	s.t.Helper()
	id, err := r.CID()
	if err != nil {
		s.t.Fatal(err)
	}
	s.links = append(s.links, Link{ID: id, Record: r})
}

func (s *tale) head() Link { return s.links[len(s.links)-1] }

func (s *tale) before() Link {
	if len(s.links) < 2 {
		return Link{}
	}
	return s.links[len(s.links)-2]
}

// State implements Payloads.
func (s *tale) State(id cid.Cid) (*fold.State, error) {
	if st := s.states[id]; st != nil {
		return st, nil
	}
	return nil, fmt.Errorf("state %v is not there", id)
}

// Delta implements Payloads.
func (s *tale) Delta(in Input) (*fold.Delta, error) {
	if d := s.deltas[in.Delta]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("delta %v is not there", in.Delta)
}

// turn is what peers do in a round. gain is what is measured of a peer's delta
// of the round before.
type turn struct {
	gain   func(id peer.ID) int64
	merge  *msg.Merge
	absent func(id peer.ID) bool
	loss   func(id peer.ID) uint64 // of the head's state
	tokens func(seat int) uint64
	found  func(id peer.ID) uint32  // by who retraces what a peer sent in the round before
	edit   func(i int, h *msg.Have) // of seat i, at last
}

func useful(peer.ID) int64 { return 1_000_000 }

func damagingOf(liars ...peer.ID) func(peer.ID) int64 {
	return func(id peer.ID) int64 {
		if slices.Contains(liars, id) {
			return -1_000_000
		}
		return 1_000_000
	}
}

// follow is the next round.
func (s *tale) follow(w turn) *Consequence {
	s.t.Helper()
	basis := s.basis(w)
	c := s.rules.Consequence(basis)
	if len(c.Blocked) > 0 {
		s.t.Fatalf("blocked: %v", c.Blocked)
	}
	r := c.Record
	if c.Folds() {
		f := c.Fold(s.head().Record.State)
		next, applied, err := f.Compute(s, s.rules.manifest.FoldOuter())
		if err != nil {
			s.t.Fatal(err)
		}
		s.states[next.CID()] = next
		r = c.weigh(Folded{ID: f.ID, State: next.CID(), Applied: applied})
	}
	r.Proposer = r.Seats[Proposers(s.head().ID, r.Seats)[0]].Peer
	if _, err := s.rules.Verify(s.before(), s.head(), r); err != nil {
		s.t.Fatal(err)
	}
	s.add(r)
	return c
}

// basis is what the record of the next round rests on.
func (s *tale) basis(w turn) Basis {
	s.t.Helper()
	head := s.head()
	known := make(map[cid.Cid]msg.Signed)
	seal := func(id peer.ID, v msg.Message) msg.Signed {
		m, err := msg.Seal(s.keys[id], v)
		if err != nil {
			s.t.Fatal(err)
		}
		known[m.CID] = m
		return m
	}
	var entries []msg.HaveEntry
	for i, seat := range head.Record.NextSeats {
		if w.absent != nil && w.absent(seat.Peer) {
			continue
		}
		values := make([]int32, s.layout.Params())
		for j := range values {
			values[j] = int32(s.rnd.IntN(1<<20) - 1<<19)
		}
		b, err := fold.Encode(s.layout, 2, values, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		d, err := fold.Decode(s.layout, b)
		if err != nil {
			s.t.Fatal(err)
		}
		id := fold.FileCID(b)
		s.deltas[id] = d
		c := &msg.Commit{
			Run: s.rules.run, Round: head.Record.Round + 1, Head: head.ID, Peer: seat.Peer, Delta: id, DeltaBytes: uint64(len(b)),
			CodecBits: 2, Tokens: uint64(1000 + 100*i), Steps: 1, Norm: d.Norm(),
		}
		if w.tokens != nil {
			c.Tokens = w.tokens(i)
		}
		if s.rules.manifest.Trust.RetracePPM > 0 {
			c.Trace = fold.FileCID(b)
		}
		entries = append(entries, held(i, seal(seat.Peer, c).CID))
	}
	b := Basis{Before: s.before(), Parent: head, Find: func(id cid.Cid) (msg.Signed, bool) { m, ok := known[id]; return m, ok }}
	for i, seat := range head.Record.NextSeats {
		have := &msg.Have{Run: s.rules.run, Round: head.Record.Round + 1, Head: head.ID, Peer: seat.Peer, Entries: entries}
		for _, item := range s.rules.Audits(head, seat.Peer) {
			have.Audits = append(have.Audits, msg.Audit{Seat: item.Seat, GainNano: w.gain(item.Maker)})
			if w.found != nil && len(have.Retraces) < msg.MaxRetraces {
				have.Retraces = append(have.Retraces, msg.Retrace{Seat: item.Seat, ErrorPPM: w.found(item.Maker)})
			}
		}
		if w.loss != nil {
			have.LossMicro = w.loss(seat.Peer)
		}
		if w.merge != nil {
			have.Merges = []msg.Merge{*w.merge}
		}
		if w.edit != nil {
			w.edit(i, have)
		}
		b.Haves = append(b.Haves, seal(seat.Peer, have))
	}
	return b
}

// inputs are those of a fold of a record's contributions, but for some makers.
func (s *tale) inputs(c *Consequence, without ...peer.ID) []fold.Input {
	var list []fold.Input
	for _, in := range c.Inputs {
		if !slices.Contains(without, in.Peer) {
			list = append(list, fold.Input{Delta: s.deltas[in.Delta], Tokens: in.Tokens, FactorQ16: in.FactorQ16})
		}
	}
	return list
}

func (s *tale) fold(st *fold.State, inputs []fold.Input) *fold.State {
	s.t.Helper()
	out, _, err := fold.Fold(st, inputs, s.rules.manifest.FoldOuter())
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func healing(n int) *run.Manifest {
	m := audited(n, 0)
	m.Trust.TakeBack = true
	return m
}

// TestTakeBack: after the verdict the state is, bit for bit, what it would be if
// the delta had never been included, and so are the tokens. Everybody else's
// part grows by that.
func TestTakeBack(t *testing.T) {
	const n = 7
	s := newTale(t, n, healing(n))
	start := s.states[s.head().Record.State]
	first := s.follow(turn{gain: useful})
	seats := first.Record.Seats
	liars := []peer.ID{seats[2].Peer, seats[5].Peer}
	spoiled := s.head().Record
	second := s.follow(turn{gain: damagingOf(liars...)})
	healed := s.head().Record

	want := s.fold(s.fold(start, s.inputs(first, liars...)), s.inputs(second))
	if got := s.states[healed.State]; !slices.Equal(got.Theta, want.Theta) || !slices.Equal(got.Momentum, want.Momentum) {
		t.Error("the state is not what it would be without the liars")
	}
	untouched := s.fold(s.states[spoiled.State], s.inputs(second))
	if slices.Equal(untouched.Theta, want.Theta) {
		t.Error("taking back changed nothing")
	}
	for _, j := range healed.Judgements {
		if j.TakenBack != slices.Contains(liars, seats[j.Seat].Peer) {
			t.Errorf("seat %d: taken back %v", j.Seat, j.TakenBack)
		}
	}
	var tokens uint64
	for i, c := range spoiled.Contributions {
		if !slices.Contains(liars, seats[i].Peer) {
			tokens += c.Tokens
		}
	}
	for _, c := range healed.Contributions {
		tokens += c.Tokens
	}
	if healed.Tokens != tokens || healed.TrainedRounds != 2 {
		t.Errorf("%d tokens of %d rounds, want %d of 2", healed.Tokens, healed.TrainedRounds, tokens)
	}

	// What follows goes on from there, and takes nothing back twice.
	if c := s.follow(turn{gain: useful}); c.Back != nil {
		t.Error("a round with useful deltas is taken back")
	}
}

// TestTakeBackAgain: a liar in each of several rounds, so that a record both has
// taken back and is taken back from. No share of a liar stays but for rounding.
func TestTakeBackAgain(t *testing.T) {
	const n = 12
	s := newTale(t, n, healing(n))
	want := s.states[s.head().Record.State]
	var last *Consequence
	var liar peer.ID
	for i := range 5 {
		w := turn{gain: useful}
		if last != nil {
			w.gain = damagingOf(liar)
		}
		c := s.follow(w)
		if last != nil {
			if c.Back == nil || len(c.Back.With) != len(c.Back.Keep)+1 {
				t.Fatalf("round %d: taken back %+v", i, c.Back)
			}
			want = s.fold(want, s.inputs(last, liar))
		}
		last, liar = c, c.Record.Seats[i].Peer
	}
	want = s.fold(want, s.inputs(last))
	got := s.states[s.head().Record.State]
	for i := range want.Theta {
		for _, d := range []int32{got.Theta[i] - want.Theta[i], got.Momentum[i] - want.Momentum[i]} {
			if d < -8 || d > 8 { // a unit or two with each round; a share of a liar is 10,000
				t.Errorf("value %d is %d off", i, d)
			}
		}
	}
}

// TestTakeBackWithMerge: a merge of the round before stays, and so does one of
// the same round.
func TestTakeBackWithMerge(t *testing.T) {
	const n = 7
	s := newTale(t, n, healing(n))
	start := s.states[s.head().Record.State]
	branch := fold.NewState(s.layout)
	for i := range branch.Theta {
		branch.Theta[i], branch.Momentum[i] = int32(100_000*i), int32(-50_000*i)
	}
	s.states[branch.CID()] = branch
	merge := func(word string) *msg.Merge {
		return &msg.Merge{
			Fork: testCID("fork"), First: testCID(word), Head: testCID(word), State: branch.CID(), Base: start.CID(), Tokens: 9, WeightQ16: 20_000,
		}
	}
	first := s.follow(turn{gain: useful, merge: merge("a")})
	liar := first.Record.Seats[1].Peer
	second := s.follow(turn{gain: damagingOf(liar), merge: merge("b")})
	merged := func(st *fold.State) *fold.State {
		out, err := fold.Merge(st, start, branch, 20_000)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	want := merged(s.fold(merged(s.fold(start, s.inputs(first, liar))), s.inputs(second)))
	if got := s.states[s.head().Record.State]; !slices.Equal(got.Theta, want.Theta) || !slices.Equal(got.Momentum, want.Momentum) {
		t.Error("the state is not what it would be without the liar")
	}
	if second.Record.Merge == nil || second.Back == nil {
		t.Fatalf("merge %v, back %v", second.Record.Merge, second.Back)
	}
}

// TestTakeBackAlone: a record without deltas takes back all the same.
func TestTakeBackAlone(t *testing.T) {
	const n = 4
	s := newTale(t, n, healing(n))
	start := s.states[s.head().Record.State]
	first := s.follow(turn{gain: useful})
	liar := first.Record.Seats[3].Peer
	second := s.follow(turn{gain: damagingOf(liar), absent: func(peer.ID) bool { return true }})
	if len(second.Inputs) > 0 || !second.Folds() {
		t.Fatalf("%d inputs, folds %v", len(second.Inputs), second.Folds())
	}
	want := s.fold(start, s.inputs(first, liar))
	if got := s.head().Record; !got.State.Equals(want.CID()) || got.TrainedRounds != 1 {
		t.Errorf("state %v after %d rounds, want %v after 1", got.State, got.TrainedRounds, want.CID())
	}
}

// TestTakeBackRetraced: what the fold of a round was made of is told again as it
// was, also if its judgements followed from retraces.
func TestTakeBackRetraced(t *testing.T) {
	const n = 4
	m := healing(n)
	m.Trust.RetracePPM = 1_000_000
	s := newTale(t, n, m)
	// Two seats do little and two much, of which one did not train what it says: then the usual is little.
	much := func(seat int) uint64 { return []uint64{100, 100, 10_000, 10_000}[seat] }
	forger := s.head().Record.NextSeats[3].Peer
	found := func(id peer.ID) uint32 {
		if id == forger {
			return Forged
		}
		return 0
	}
	honest := func(peer.ID) uint32 { return 0 }
	s.follow(turn{gain: useful, tokens: much, found: honest})
	for i, w := range []turn{{gain: useful, tokens: much, found: found}, {gain: useful, tokens: much, found: honest}} {
		c := s.follow(w)
		if (c.Back != nil) != (i == 0) {
			t.Fatalf("round %d takes back %v", i, c.Back)
		}
		got := s.rules.inputsOf(s.before(), s.head().Record)
		if diff := cmp.Diff(c.Inputs, got, cmp.Comparer(func(a, b cid.Cid) bool { return a.Equals(b) })); diff != "" {
			t.Errorf("round %d: inputs (-as they were +told again):\n%s", i, diff)
		}
	}
}

// TestTakeBackWeightless: who counted for nothing has nothing to be taken back,
// and those who counted for nothing do not count because others are taken back.
func TestTakeBackWeightless(t *testing.T) {
	const n = 8
	s := newTale(t, n, healing(n))
	first := s.head().Record
	first.Standings = nil
	for i := range 3 { // on probation
		first.Standings = append(first.Standings, msg.Standing{Peer: first.NextSeats[i].Peer, Owed: 4})
	}
	s.links = nil
	s.add(first)
	c := s.follow(turn{gain: useful})
	seats := c.Record.Seats
	c = s.follow(turn{gain: damagingOf(seats[0].Peer, seats[6].Peer)})
	var taken []uint32
	for _, j := range c.Record.Judgements {
		if j.TakenBack {
			taken = append(taken, j.Seat)
		}
	}
	if diff := cmp.Diff([]uint32{6}, taken); diff != "" {
		t.Errorf("taken back (-want +got):\n%s", diff)
	}
	if len(c.Back.With) != 5 || len(c.Back.Keep) != 4 {
		t.Errorf("%d of %d stay, want 4 of 5", len(c.Back.Keep), len(c.Back.With))
	}
}

// TestTakeBackRules: who leaves it out, does it without a verdict, or does it in
// a run that does not, makes no valid record; and without the record before
// there is nothing to say.
func TestTakeBackRules(t *testing.T) {
	const n = 7
	s := newTale(t, n, healing(n))
	first := s.follow(turn{gain: useful})
	liar := first.Record.Seats[0].Peer
	basis := s.basis(turn{gain: damagingOf(liar)})
	r := s.rules.Consequence(basis).weigh(Folded{State: testCID("next"), Applied: make([]fold.Applied, n)})
	r.Proposer = r.Seats[Proposers(s.head().ID, r.Seats)[0]].Peer
	if _, err := s.rules.Verify(s.before(), s.head(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := s.rules.Verify(Link{}, s.head(), r); err == nil {
		t.Error("it is checked without the record that it needs")
	}
	for i := range r.Judgements {
		bad := *r
		bad.Judgements = slices.Clone(r.Judgements)
		bad.Judgements[i].TakenBack = !bad.Judgements[i].TakenBack
		if _, err := s.rules.Verify(s.before(), s.head(), &bad); err == nil {
			t.Errorf("judgement %d: taken back %v is accepted", i, bad.Judgements[i].TakenBack)
		}
	}
	basis.Before = Link{}
	if c := s.rules.Consequence(basis); len(c.Blocked) == 0 {
		t.Error("a consequence without the record that it needs")
	}

	off := newTale(t, n, audited(n, 0))
	off.follow(turn{gain: useful})
	if c := off.follow(turn{gain: damagingOf(liar)}); c.Back != nil || slices.ContainsFunc(c.Record.Judgements, func(j msg.Judgement) bool { return j.TakenBack }) {
		t.Error("a run without taking back takes back")
	}
}

// TestTakeBackFold: the name of a fold depends on all of what it takes back.
func TestTakeBackFold(t *testing.T) {
	in := func(word string) Input { return Input{Delta: testCID(word), Tokens: 1, FactorQ16: 1} }
	ids := make(map[FoldID]int)
	for i, back := range []*Back{
		nil,
		{State: testCID("a"), With: []Input{in("x"), in("y")}, Keep: []Input{in("x")}},
		{State: testCID("b"), With: []Input{in("x"), in("y")}, Keep: []Input{in("x")}},
		{State: testCID("a"), With: []Input{in("x"), in("y")}, Keep: []Input{in("y")}},
		{State: testCID("a"), With: []Input{in("x")}, Keep: []Input{in("y"), in("x")}},
	} {
		id := (&Consequence{Record: &msg.Record{}, Back: back}).Fold(testCID("s")).ID
		if old, ok := ids[id]; ok {
			t.Errorf("folds %d and %d have one name", old, i)
		}
		ids[id] = i
	}
}

// TestTakeBackSim: machines agree on what is taken back, also those that were
// away or came late, and all of it follows from the records.
func TestTakeBackSim(t *testing.T) {
	const n, liars = 9, 2
	s := newSim(t, 21, n+1, healing(n), simOpts{loss: 20})
	s.opts.gain = func(auditor *simNode, maker int) int64 {
		if maker < liars {
			return -500_000 + int64(auditor.i)
		}
		return honestGain(s, auditor)
	}
	for _, node := range s.nodes[:n] {
		node.start()
	}
	s.progress(3*time.Minute, 4, false)
	s.nodes[n].start()
	s.nodes[3].stop()
	s.progress(3*time.Minute, 3, false)
	s.nodes[3].start()
	s.converge(3 * time.Minute)
	for _, node := range s.nodes {
		links := node.chain.links
		taken := make([]int, n+1)
		for i, l := range links[1:] {
			before := Link{}
			if i > 0 {
				before = links[i-1]
			}
			if _, err := s.rules.Verify(before, links[i], l.Record); err != nil {
				t.Fatalf("node %d: %v", node.i, err)
			}
			for _, j := range l.Record.Judgements {
				if j.TakenBack {
					taken[s.indexOf(links[i].Record.Seats[j.Seat])]++
				}
			}
		}
		for i, times := range taken {
			if (times > 0) != (i < liars) {
				t.Errorf("node %d: %d deltas of node %d are taken back", node.i, times, i)
			}
		}
	}
}

// TestCellsAreNotAudited: what a cell came to is not blamed on the seat that has
// its number.
func TestCellsAreNotAudited(t *testing.T) {
	s := newTale(t, 4, healing(4))
	s.follow(turn{gain: useful})
	parent := s.head()
	few := s.rules.Audits(parent, parent.Record.NextSeats[0].Peer)
	r := *parent.Record
	r.Seats = testSeats(60)
	many := s.rules.Audits(Link{ID: parent.ID, Record: &r}, parent.Record.NextSeats[0].Peer)
	if len(few) != 3 || len(many) != 0 {
		t.Errorf("%d deltas of four seats to audit, and %d of cells; want 3 and 0", len(few), len(many))
	}
}
