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

// bench is one machine of a network of seats whose other messages the test
// makes. Self is the seat that proposes last, but where a test says otherwise.
type bench struct {
	*sim
	node *simNode
	out  []Effect
}

// newBench has n seats that have trained for two rounds, after which only node
// is stepped.
func newBench(t *testing.T, n, proposes int) *bench {
	t.Helper()
	return newBenchOf(t, testManifest(func(m *run.Manifest) { m.MinPeers = uint32(n) }), n, proposes)
}

func newBenchOf(t *testing.T, manifest *run.Manifest, n, proposes int) *bench {
	t.Helper()
	s := runningOf(t, 31, n, manifest, simOpts{}, 0)
	if !s.runUntil(time.Minute, func() bool {
		for _, x := range s.nodes {
			if !x.chain.Head().ID.Equals(s.nodes[0].chain.Head().ID) {
				return false
			}
		}
		return true
	}) {
		t.Fatal("no common head")
	}
	head := s.nodes[0].chain.Head()
	seat := Proposers(head.ID, head.Record.NextSeats)[proposes]
	b := &bench{sim: s, node: s.nodes[s.indexOf(head.Record.NextSeats[seat])]}
	s.queue = nil
	for _, x := range s.nodes {
		x.life++
	}
	return b
}

func (b *bench) head() Link { return b.node.chain.Head() }

// step lets time go by and takes an event; Adopt, Certify, Store and Doubt are carried out.
func (b *bench) step(d time.Duration, ev Event) {
	b.now = b.now.Add(d)
	b.out = b.node.m.Step(b.now, ev)
	for _, e := range b.out {
		switch e.(type) {
		case Adopt, Certify, Store, Doubt:
			b.node.do(e)
		}
	}
}

func (b *bench) receive(from *simNode, v msg.Message) msg.Signed {
	s := from.seal(v)
	b.step(time.Millisecond, Received{s})
	return s
}

// sent returns the message of a kind that the last step published.
func sent[M msg.Message](b *bench) (M, bool) {
	for _, e := range b.out {
		if p, ok := e.(Publish); ok {
			if m, ok := p.Signed.Message.(M); ok {
				return m, true
			}
		}
	}
	var none M
	return none, false
}

func effects[E Effect](b *bench) []E {
	var list []E
	for _, e := range b.out {
		if e, ok := e.(E); ok {
			list = append(list, e)
		}
	}
	return list
}

func (b *bench) others() []*simNode {
	var list []*simNode
	for _, n := range b.nodes {
		if n != b.node {
			list = append(list, n)
		}
	}
	return list
}

func (b *bench) commitOf(n *simNode, tokens uint64) *msg.Commit {
	h := b.head()
	return &msg.Commit{
		Run: b.runID, Round: h.Record.Round + 1, Head: h.ID, Peer: n.id, Delta: testCID(fmt.Sprint("d", n.i)),
		DeltaBytes: b.rules.deltaBytes, CodecBits: 2, Tokens: tokens, Steps: 1, Norm: 1,
	}
}

func (b *bench) train() {
	b.step(time.Millisecond, Trained{
		Head: b.head().ID, Delta: testCID("own"), DeltaBytes: b.rules.deltaBytes, Tokens: 5, Steps: 1, Norm: 1,
	})
}

func entryOf(b *bench, h *msg.Have, n *simNode) (msg.HaveEntry, bool) {
	seat := seatOf(b.head().Record.NextSeats, n.id)
	for _, e := range h.Entries {
		if int(e.Seat) == seat {
			return e, true
		}
	}
	return msg.HaveEntry{}, false
}

// TestHaveEntries: a have says of each commit that was seen whether it is held,
// or why not; it is given at the deadline and not again.
func TestHaveEntries(t *testing.T) {
	b := newBench(t, 7, 6)
	o := b.others()
	b.train()
	good := b.receive(o[0], b.commitOf(o[0], 1))
	if c := effects[Check](b); len(c) != 1 || !c[0].CID.Equals(good.CID) {
		t.Fatalf("checks are %v", c)
	}
	b.step(0, Checked{Commit: good.CID, Reason: msg.Held})
	bad := b.receive(o[1], b.commitOf(o[1], 1))
	b.step(0, Checked{Commit: bad.CID, Reason: msg.BadNorm})
	b.receive(o[2], b.commitOf(o[2], 1)) // not checked in time
	codec := b.commitOf(o[3], 1)
	codec.CodecBits = 8
	b.receive(o[3], codec)
	if c := effects[Check](b); len(c) != 0 {
		t.Errorf("a delta of another codec is pulled: %v", c)
	}
	twice := b.receive(o[4], b.commitOf(o[4], 1))
	b.step(0, Checked{Commit: twice.CID, Reason: msg.Held})
	second := b.receive(o[4], b.commitOf(o[4], 2))
	if ev := effects[Evidence](b); len(ev) != 1 || !ev[0].A.CID.Equals(twice.CID) || !ev[0].B.CID.Equals(second.CID) {
		t.Errorf("evidence is %v", ev)
	}
	if _, ok := sent[*msg.Have](b); ok {
		t.Fatal("a have before the deadline")
	}
	b.step(11*time.Second, Tick{})
	h, ok := sent[*msg.Have](b)
	if !ok {
		t.Fatal("no have at the deadline")
	}
	for i, want := range []msg.Reason{msg.Held, msg.BadNorm, msg.Timeout, msg.BadCodec, msg.Equivocation} {
		if e, ok := entryOf(b, h, o[i]); !ok || e.Reason != want {
			t.Errorf("entry %d is %v, want %v", i, e, want)
		}
	}
	if e, ok := entryOf(b, h, b.node); !ok || e.Reason != msg.Held {
		t.Errorf("own entry is %v", e)
	}
	if _, ok := entryOf(b, h, o[5]); ok {
		t.Error("an entry for a commit that was not seen")
	}
	if e, _ := entryOf(b, h, o[4]); compareCIDs(e.Commit, twice.CID) > 0 || compareCIDs(e.Commit, second.CID) > 0 {
		t.Error("of two commits not the lower is named")
	}
	late := b.receive(o[5], b.commitOf(o[5], 1))
	b.step(time.Second, Checked{Commit: late.CID, Reason: msg.Held})
	for _, e := range effects[Store](b) {
		if _, ok := e.Signed.Message.(*msg.Have); ok {
			t.Error("a second have")
		}
	}
}

// TestHaveEarly: with the commits of all seats held there is nothing to wait
// for.
func TestHaveEarly(t *testing.T) {
	b := newBench(t, 4, 3)
	b.train()
	for i, o := range b.others() {
		c := b.receive(o, b.commitOf(o, 1))
		if _, ok := sent[*msg.Have](b); ok {
			t.Fatalf("a have with %d commits unchecked", 3-i)
		}
		b.step(time.Millisecond, Checked{Commit: c.CID, Reason: msg.Held})
	}
	if h, ok := sent[*msg.Have](b); !ok || len(h.Entries) != 4 {
		t.Errorf("have is %v", h)
	}
}

// record returns what the proposer of attempt 0 makes of empty haves of the
// first q seats but one.
func (b *bench) record(skip int) (*simNode, *msg.Record) {
	head := b.head()
	var haves []msg.Signed
	q, _ := Quorum(len(head.Record.NextSeats))
	for i, s := range head.Record.NextSeats {
		if i == skip || len(haves) == q {
			continue
		}
		n := b.nodes[b.indexOf(s)]
		haves = append(haves, n.seal(&msg.Have{Run: b.runID, Round: head.Record.Round + 1, Head: head.ID, Peer: n.id}))
	}
	c := b.rules.Consequence(Basis{Parent: head, Haves: haves, Find: func(cid.Cid) (msg.Signed, bool) { return msg.Signed{}, false }})
	first := head.Record.NextSeats[Proposers(head.ID, head.Record.NextSeats)[0]]
	c.Record.Proposer, c.Record.ParentCertificate = first.Peer, head.Certificate
	return b.nodes[b.indexOf(first)], c.Record
}

// toVote brings the bench to its have first.
func (b *bench) toVote(skip int) (*simNode, *msg.Record) {
	b.step(11*time.Second, Tick{})
	return b.record(skip)
}

func (b *bench) proposal(r *msg.Record, by *simNode, attempt uint32) *msg.Proposal {
	e, err := r.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	return &msg.Proposal{Run: b.runID, Round: r.Round, Attempt: attempt, Peer: by.id, Record: e}
}

func (b *bench) voteFor(n *simNode, r *msg.Record) *msg.Vote {
	id, err := r.CID()
	if err != nil {
		b.t.Fatal(err)
	}
	return &msg.Vote{Run: b.runID, Round: r.Round, Head: r.Parent, Record: id, Peer: n.id}
}

// TestVoteOnce: the first valid record gets the vote, and no other, whatever
// attempt it is of; q votes make it the head.
func TestVoteOnce(t *testing.T) {
	b := newBench(t, 4, 3)
	by, r := b.toVote(3)
	b.receive(by, b.proposal(r, by, 0))
	v, ok := sent[*msg.Vote](b)
	if id, _ := r.CID(); !ok || !v.Record.Equals(id) {
		t.Fatalf("vote is %v", v)
	}
	_, other := b.record(0)
	second := b.nodes[b.indexOf(r.Seats[Proposers(r.Parent, r.Seats)[1]])]
	other.Attempt, other.Proposer = 1, second.id
	b.receive(second, b.proposal(other, second, 1))
	for _, e := range effects[Store](b) {
		if _, ok := e.Signed.Message.(*msg.Vote); ok {
			t.Error("a second vote")
		}
	}
	others := b.others()
	b.receive(others[0], b.voteFor(others[0], r))
	if len(effects[Adopt](b)) != 0 {
		t.Fatal("adopted with two votes of four")
	}
	b.receive(others[0], b.voteFor(others[0], other)) // votes twice
	if len(effects[Evidence](b)) != 1 {
		t.Error("no evidence of two votes")
	}
	b.receive(others[1], b.voteFor(others[1], r))
	a := effects[Adopt](b)
	if len(a) != 1 || a[0].Links[0].Certificate == nil || len(a[0].Links[0].Certificate.Votes) != 3 {
		t.Errorf("adopt is %v", a)
	}
}

// TestWrongState: a record whose state is not the one that follows gets no vote
// and is not adopted, whoever votes for it; that a quorum did is told.
func TestWrongState(t *testing.T) {
	b := newBench(t, 4, 3)
	by, r := b.toVote(-1)
	var haves []msg.Signed
	c := by.seal(b.commitOf(by, 7))
	seat := seatOf(r.Seats, by.id)
	for _, n := range b.nodes {
		if n != b.node {
			haves = append(haves, n.seal(&msg.Have{
				Run: b.runID, Round: r.Round, Head: r.Parent, Peer: n.id,
				Entries: []msg.HaveEntry{{Seat: uint32(seat), Commit: c.CID}},
			}))
		}
	}
	bySeat := func(i int) msg.Signed {
		for _, h := range haves {
			if h.From == r.Seats[i].Peer {
				return h
			}
		}
		return msg.Signed{}
	}
	var sorted []msg.Signed
	for i := range r.Seats {
		if h := bySeat(i); h.Message != nil {
			sorted = append(sorted, h)
		}
	}
	cons := b.rules.Consequence(Basis{Parent: b.head(), Haves: sorted, Find: func(cid.Cid) (msg.Signed, bool) { return c, true }})
	f := fakeFold(cons.Fold(b.head().Record.State))
	wrong := f
	wrong.State = testCID("wrong")
	r = cons.weigh(wrong)
	r.Proposer, r.ParentCertificate = by.id, b.head().Certificate
	b.receive(by, b.proposal(r, by, 0))
	if folds := effects[Fold](b); len(folds) != 1 || folds[0].ID != f.ID {
		t.Fatalf("folds are %v", folds)
	}
	b.step(time.Second, f)
	if bad := effects[Misbehaved](b); len(bad) != 1 || bad[0].Peer != by.id {
		t.Errorf("misbehaved is %v", bad)
	}
	id := mustCID(t, r)
	cert := &msg.Certificate{Record: id}
	frauds := 0
	for _, n := range b.others() {
		cert.Votes = append(cert.Votes, b.receive(n, b.voteFor(n, r)).Envelope)
		if len(effects[Adopt](b)) != 0 {
			t.Fatal("a wrong state became the head")
		}
		for _, e := range effects[Fraud](b) {
			frauds++
			if !e.Claimed.Equals(r.State) || !e.Computed.Equals(f.State) || VerifyCertificate(e.Certificate, id, r) != nil {
				t.Errorf("told of %+v", e)
			}
		}
	}
	if frauds != 1 {
		t.Errorf("told of %d frauds, want 1", frauds)
	}
	if b.node.m.own.at(r.Parent).vote != nil {
		t.Error("a vote for a wrong state")
	}
	// Nor when a peer offers it, on the word of its quorum.
	slices.SortFunc(cert.Votes, func(x, y []byte) int { return b.seatOfEnvelope(r, x) - b.seatOfEnvelope(r, y) })
	if err := VerifyCertificate(cert, id, r); err != nil {
		t.Fatal(err)
	}
	b.step(0, Offered{From: by.id, Items: []Item{itemOf(t, Link{ID: id, Record: r, Certificate: cert})}})
	if len(effects[Adopt](b)) > 0 || len(effects[Misbehaved](b)) != 1 {
		t.Errorf("an offer of the wrong record: %d adopted, %d misbehaved", len(effects[Adopt](b)), len(effects[Misbehaved](b)))
	}
}

func (b *bench) seatOfEnvelope(r *msg.Record, e []byte) int {
	s, err := msg.Open(e)
	if err != nil {
		b.t.Fatal(err)
	}
	return seatOf(r.Seats, s.From)
}

// TestFallback: after the attempts each seat proposes on what it has, and after
// the settling time the best of all is adopted, provisionally. A certificate
// that appears later counts, also for another record.
func TestFallback(t *testing.T) {
	for _, other := range []bool{false, true} {
		t.Run(fmt.Sprint("for another record: ", other), func(t *testing.T) {
			b := newBench(t, 4, 3)
			certified := b.head().Certified + 1
			by, r := b.toVote(3)
			b.receive(by, b.proposal(r, by, 0))
			timing := b.node.m.timing
			b.step(3*timing.Attempt, Tick{})
			own, ok := sent[*msg.Proposal](b)
			if !ok || own.Attempt != msg.MaxAttempt {
				t.Fatalf("proposal of the fallback is %v", own)
			}
			if len(effects[Adopt](b)) != 0 {
				t.Fatal("adopted before the settling time")
			}
			b.step(timing.Settle, Tick{})
			a := effects[Adopt](b)
			if len(a) != 1 || a[0].Links[0].Certificate != nil {
				t.Fatalf("adopt is %v", a)
			}
			provisional := a[0].Links[0]
			ownRecord, err := msg.DecodeRecord(own.Record)
			if err != nil {
				t.Fatal(err)
			}
			id, _ := r.CID()
			loser := r
			if provisional.ID.Equals(id) {
				loser = ownRecord
			}
			target := provisional.Record
			if other {
				target = loser
			}
			for _, n := range b.others() {
				b.receive(n, b.voteFor(n, target))
			}
			h := b.head()
			want, _ := target.CID()
			if !h.ID.Equals(want) || h.Certificate == nil || h.Certified != certified {
				t.Errorf("head is %v, certified %v, %d in all; want %v", h.ID, h.Certificate != nil, h.Certified, want)
			}
			if v := b.node.m.View(); !v.Head.ID.Equals(want) || v.Head.Certified != certified {
				t.Errorf("view has head %v, certified %d", v.Head.ID, v.Head.Certified)
			}
		})
	}
}

// TestSameRecord: who proposes in a later attempt, and has a valid record of an
// earlier one, proposes that.
func TestSameRecord(t *testing.T) {
	b := newBench(t, 4, 1)
	by, r := b.toVote(3)
	b.receive(by, b.proposal(r, by, 0))
	for _, n := range b.others() {
		b.receive(n, &msg.Have{Run: b.runID, Round: r.Round, Head: r.Parent, Peer: n.id})
	}
	b.step(b.node.m.timing.Attempt, Tick{})
	p, ok := sent[*msg.Proposal](b)
	if !ok || p.Attempt != 1 {
		t.Fatalf("proposal is %v", p)
	}
	got, err := msg.DecodeRecord(p.Record)
	if err != nil {
		t.Fatal(err)
	}
	if a, _ := got.CID(); a != mustCID(t, r) {
		t.Error("another record is proposed")
	}
	if n := len(b.node.m.cur.candidates); n != 1 {
		t.Errorf("%d candidates, want 1", n)
	}
}

// TestOwnProposal: the first proposer waits for all haves, or a little after a
// quorum of them; the next for its attempt.
func TestOwnProposal(t *testing.T) {
	for turn := range 2 {
		b := newBench(t, 4, turn)
		b.step(11*time.Second, Tick{})
		timing := b.node.m.timing
		head := b.head()
		have := func(n *simNode) {
			b.receive(n, &msg.Have{Run: b.runID, Round: head.Record.Round + 1, Head: head.ID, Peer: n.id})
		}
		o := b.others()
		have(o[0])
		b.step(timing.Grace, Tick{})
		have(o[1])
		if _, ok := sent[*msg.Proposal](b); ok {
			t.Errorf("turn %d: a proposal as soon as there is a quorum", turn)
		}
		b.step(timing.Grace, Tick{})
		p, ok := sent[*msg.Proposal](b)
		if ok != (turn == 0) {
			t.Errorf("turn %d: proposal is %v after the grace", turn, p)
		}
		if turn == 1 {
			b.step(timing.Attempt, Tick{})
			if p, ok := sent[*msg.Proposal](b); !ok || p.Attempt != 1 {
				t.Errorf("proposal of attempt 1 is %v", p)
			}
		}
	}
	b := newBench(t, 4, 0)
	b.step(11*time.Second, Tick{})
	for _, n := range b.others() {
		b.receive(n, &msg.Have{Run: b.runID, Round: b.head().Record.Round + 1, Head: b.head().ID, Peer: n.id})
	}
	if _, ok := sent[*msg.Proposal](b); !ok {
		t.Error("no proposal with all haves")
	}
}

// TestProvisionalOffer: one seat cannot end the round of others by a record of
// its own; when more than may lie went on, or the round failed, it is followed.
func TestProvisionalOffer(t *testing.T) {
	offer := func(b *bench) (Link, Event) {
		o := b.others()[0]
		l := o.howl(b.head())
		e, err := l.Record.Encode()
		if err != nil {
			b.t.Fatal(err)
		}
		return l, Offered{From: o.id, Items: []Item{{Record: e}}}
	}
	ahead := func(b *bench, l Link, n *simNode) {
		b.receive(n, &msg.Status{
			Run: b.runID, Peer: n.id, Seq: uint64(b.now.UnixMilli()) * 2, Head: l.ID, Round: l.Record.Round + 1,
			Certified: l.Certified, Tokens: l.Record.Tokens,
		})
	}
	t.Run("alone", func(t *testing.T) {
		b := newBench(t, 4, 3)
		l, ev := offer(b)
		ahead(b, l, b.others()[0])
		b.step(time.Second, ev)
		if len(effects[Adopt](b)) != 0 {
			t.Error("followed one seat")
		}
		ahead(b, l, b.others()[1])
		if a := effects[Adopt](b); len(a) != 1 || !a[0].Links[0].ID.Equals(l.ID) {
			t.Error("did not follow two of four")
		}
	})
	t.Run("after the own round failed", func(t *testing.T) {
		b := newBench(t, 4, 3)
		_, ev := offer(b)
		b.step(time.Second, ev)
		b.step(11*time.Second, Tick{})
		if len(effects[Adopt](b)) != 0 {
			t.Error("followed before the fallback")
		}
		timing := b.node.m.timing
		b.step(3*timing.Attempt+timing.Settle, Tick{})
		if a := effects[Adopt](b); len(a) == 0 {
			t.Error("nothing was adopted")
		}
	})
	t.Run("without a seat", func(t *testing.T) {
		b := newBench(t, 4, 3)
		b.node.m.cur.self = -1
		_, ev := offer(b)
		b.step(time.Second, ev)
		if len(effects[Adopt](b)) != 1 {
			t.Error("did not follow")
		}
	})
}

func mustCID(t *testing.T, r *msg.Record) cid.Cid {
	t.Helper()
	id, err := r.CID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestOfferedState: a provisional record that is offered has to have the state
// that its fold gives.
func TestOfferedState(t *testing.T) {
	for _, wrong := range []bool{false, true} {
		b := newBench(t, 4, 3)
		b.node.m.cur.self = -1
		o := b.others()[0]
		c := o.seal(b.commitOf(o, 5))
		seat := seatOf(b.head().Record.NextSeats, o.id)
		h := o.seal(&msg.Have{
			Run: b.runID, Round: b.head().Record.Round + 1, Head: b.head().ID, Peer: o.id,
			Entries: []msg.HaveEntry{{Seat: uint32(seat), Commit: c.CID}},
		})
		cons := b.rules.Consequence(Basis{Parent: b.head(), Haves: []msg.Signed{h}, Find: func(cid.Cid) (msg.Signed, bool) { return c, true }})
		f := fakeFold(cons.Fold(b.head().Record.State))
		said := f
		if wrong {
			said.State = testCID("wrong")
		}
		r := cons.weigh(said)
		r.Proposer, r.Attempt = o.id, msg.MaxAttempt
		e, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		b.step(time.Second, Offered{From: o.id, Items: []Item{{Record: e}}})
		if len(effects[Fold](b)) != 1 || len(effects[Adopt](b)) != 0 {
			t.Fatalf("effects are %v, want a fold", b.out)
		}
		b.step(time.Second, f)
		if got := len(effects[Adopt](b)) == 1; got == wrong {
			t.Errorf("wrong state %v: adopted %v", wrong, got)
		}
		if got := len(effects[Misbehaved](b)) == 1; got != wrong {
			t.Errorf("wrong state %v: misbehaved %v", wrong, got)
		}
	}
}

// TestSyncWaits: a peer one record further is asked after a while, one that is
// further at once, and one that has nothing good ever more rarely.
func TestSyncWaits(t *testing.T) {
	tell := func(b *bench, ahead msg.Round) []Sync {
		o := b.others()[0]
		b.receive(o, &msg.Status{
			Run: b.runID, Peer: o.id, Seq: uint64(b.now.UnixMilli()) * 2, Head: testCID(fmt.Sprint(b.now)),
			Round: b.head().Record.Round + 1 + ahead, Certified: 9,
		})
		return effects[Sync](b)
	}
	t.Run("one further", func(t *testing.T) {
		b := newBench(t, 4, 3)
		b.step(3*time.Second, Tick{})
		if len(tell(b, 1)) != 0 {
			t.Error("asked at once for what is about to be reached")
		}
		b.step(b.node.m.timing.Attempt, Tick{})
		if s := effects[Sync](b); len(s) != 1 || s[0].From != b.others()[0].id {
			t.Errorf("sync is %v", s)
		}
	})
	t.Run("two further", func(t *testing.T) {
		b := newBench(t, 4, 3)
		b.step(3*time.Second, Tick{})
		if len(tell(b, 2)) != 1 {
			t.Error("did not ask at once")
		}
	})
	t.Run("nothing good", func(t *testing.T) {
		b := newBench(t, 4, 3)
		asked := 0
		for range 40 {
			n := len(tell(b, 2))
			b.step(b.node.m.timing.Status, Tick{})
			if n += len(effects[Sync](b)); n > 0 {
				b.step(0, Offered{From: b.others()[0].id})
			}
			asked += n
		}
		if asked < 3 || asked > 8 {
			t.Errorf("asked %d times in 40 heartbeats", asked)
		}
	})
}

// TestAhead: what comes for the next head before it is ours is not lost.
func TestAhead(t *testing.T) {
	b := newBench(t, 4, 3)
	by, r := b.toVote(3)
	o := b.others()
	next := mustCID(t, r)
	early := o[0].seal(&msg.Have{Run: b.runID, Round: r.Round + 1, Head: next, Peer: o[0].id})
	b.step(0, Received{early})
	b.receive(by, b.proposal(r, by, 0))
	for _, n := range o {
		b.receive(n, b.voteFor(n, r))
	}
	if !b.head().ID.Equals(next) {
		t.Fatal("not adopted")
	}
	if v := b.node.m.View(); v.Haves != 1 {
		t.Errorf("%d haves are known in the new round, want the early one", v.Haves)
	}
}

// TestOldRequest: a request that took effect, or an older one, counts no more.
func TestOldRequest(t *testing.T) {
	s := newScene(t, 1, nil)
	p := newJoinPool()
	old, took, next := s.known[s.join(5, 3, false)], s.known[s.join(5, 4, false)], s.known[s.join(5, 5, false)]
	p.add(old)
	p.effect(took)
	for _, m := range []msg.Signed{old, took} {
		if p.add(m); len(p.all()) != 0 {
			t.Errorf("request %d is back", m.Message.(*msg.JoinRequest).Seq)
		}
	}
	if p.add(next); len(p.all()) != 1 {
		t.Error("a new request does not count")
	}
}

// TestOmittedJoin: a record that leaves out a join request that we know gets no
// vote.
func TestOmittedJoin(t *testing.T) {
	for _, known := range []bool{true, false} {
		b := newBench(t, 4, 3)
		by, r := b.toVote(-1)
		priv, id := testKey(77)
		join, err := msg.Seal(priv, &msg.JoinRequest{Run: b.runID, Peer: id, Seq: 1})
		if err != nil {
			t.Fatal(err)
		}
		var haves []msg.Signed
		for _, s := range r.Seats[:3] {
			n := b.nodes[b.indexOf(s)]
			haves = append(haves, n.seal(&msg.Have{Run: b.runID, Round: r.Round, Head: r.Parent, Peer: n.id, Joins: []cid.Cid{join.CID}}))
		}
		c := b.rules.Consequence(Basis{Parent: b.head(), Haves: haves, Find: func(cid.Cid) (msg.Signed, bool) { return msg.Signed{}, false }})
		c.Record.Proposer, c.Record.ParentCertificate = r.Proposer, b.head().Certificate
		if known {
			b.step(0, Received{join})
		}
		b.receive(by, b.proposal(c.Record, by, 0))
		if _, voted := sent[*msg.Vote](b); voted == known {
			t.Errorf("join request known: %v, voted: %v", known, voted)
		}
	}
}

// TestFlipBack: who comes back to a head that it had left signs nothing anew
// for it.
func TestFlipBack(t *testing.T) {
	var b ownBook
	b.byHead = make(map[cid.Cid]*signedFor)
	for i := range 3 * keepHeads {
		b.add(msg.Signed{Message: &msg.Vote{Head: testCID(fmt.Sprint(i)), Round: 1}, CID: testCID("v")})
	}
	for i := range 3 * keepHeads {
		e := b.at(testCID(fmt.Sprint(i)))
		if old := i < 2*keepHeads; e.forgotten != old || (e.vote == nil) != old {
			t.Errorf("head %d: forgotten %v, vote %v", i, e.forgotten, e.vote)
		}
	}
}

// TestNew refuses what it cannot work with.
func TestNew(t *testing.T) {
	m := testManifest(nil)
	id, err := m.ID()
	if err != nil {
		t.Fatal(err)
	}
	priv, self := testKey(0)
	good := Config{
		Manifest: m, Run: id, Self: self, Chain: newMemChain(t, m),
		Sign: func(v msg.Message) (msg.Signed, error) { return msg.Seal(priv, v) },
	}
	if _, err := New(good, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"run":    func(c *Config) { c.Run = testCID("x") },
		"self":   func(c *Config) { c.Self = "x" },
		"sign":   func(c *Config) { c.Sign = nil },
		"chain":  func(c *Config) { c.Chain = newMemChain(t, testManifest(func(m *run.Manifest) { m.Name = "other" })) },
		"timing": func(c *Config) { c.Timing.Grace = time.Second },
	} {
		c := good
		change(&c)
		if _, err := New(c, time.Unix(1, 0)); err == nil {
			t.Errorf("New() with another %s = nil", name)
		}
	}
}

func BenchmarkStep48(b *testing.B) {
	s := running(b, 1, 48, simOpts{}, 0)
	steps := 0
	for b.Loop() {
		e := s.seq
		s.runFor(time.Second)
		steps += s.seq - e
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(max(steps, 1)), "ns/event")
}
