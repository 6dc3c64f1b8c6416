package round

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// TestCellsOf: every seat is in one cell, cells are of nearly one size, and each
// head draws others.
func TestCellsOf(t *testing.T) {
	for _, n := range []int{1, 48, 49, 64, 65, 100, 256, 1024} {
		seats := testSeats(n)
		cells := CellsOf(testCID("head"), seats)
		if n <= 48 {
			if cells != nil || Cells(n) != 0 {
				t.Errorf("%d seats have %d cells", n, len(cells))
			}
			continue
		}
		if len(cells) != (n+31)/32 {
			t.Errorf("%d seats have %d cells", n, len(cells))
		}
		seen := make(map[int]bool)
		for _, c := range cells {
			if len(c) < n/len(cells) || len(c) > n/len(cells)+1 || len(c) > msg.MaxSeats || !slices.IsSorted(c) {
				t.Errorf("%d seats: a cell has %d", n, len(c))
			}
			for _, i := range c {
				seen[i] = true
			}
		}
		if len(seen) != n {
			t.Errorf("%d of %d seats are in a cell", len(seen), n)
		}
		if other := CellsOf(testCID("another"), seats); slices.Equal(other[0], cells[0]) {
			t.Errorf("%d seats: two heads draw the same cell", n)
		}
	}
}

// TestCommittee: of very many seats so few witness, and of those only who may.
func TestCommittee(t *testing.T) {
	r := &msg.Record{Parent: testCID("parent"), NextSeats: testSeats(200)}
	for i := range 100 {
		r.NextSeats[i].Trainee = true // say, on probation
	}
	assignCommittee(r)
	if n := Witnesses(r.NextSeats); n != committeeSeats {
		t.Errorf("%d witness, want %d", n, committeeSeats)
	}
	for _, s := range r.NextSeats[:100] {
		if !s.Trainee {
			t.Fatal("a seat on probation witnesses")
		}
	}
	few := &msg.Record{Parent: testCID("parent"), NextSeats: testSeats(48)}
	assignCommittee(few)
	if n := Witnesses(few.NextSeats); n != 48 {
		t.Errorf("%d of 48 witness", n)
	}
}

func cellManifest() *run.Manifest {
	return testManifest(func(m *run.Manifest) { m.Seats, m.MinPeers = 64, 2 })
}

// inCells is a network whose round is done in cells.
func inCells(t *testing.T, n int, opts simOpts) *sim {
	t.Helper()
	s := newSim(t, 5, n, cellManifest(), opts)
	s.startAll()
	if !s.runUntil(10*time.Minute, func() bool {
		h := s.nodes[0].chain.Head().Record
		return len(h.NextSeats) == n && s.agree(h.Round) == nil
	}) {
		t.Fatalf("not all have a seat\n%s", s.describe())
	}
	return s
}

// TestRoundInCells: rounds of 52 seats are certified with the deltas of all, and
// what the records say is what the rules say.
func TestRoundInCells(t *testing.T) {
	s := inCells(t, 52, simOpts{})
	from := s.minRound()
	if !s.runUntil(5*time.Minute, func() bool { return s.minRound() >= from+3 }) {
		t.Fatalf("three rounds were not made\n%s", s.describe())
	}
	n := s.nodes[0]
	for r := from + 2; r <= from+3; r++ {
		if err := s.agree(r); err != nil {
			t.Fatal(err)
		}
		l, parent := n.chain.links[r], n.chain.links[r-1]
		rec := l.Record
		if l.Certificate == nil || len(rec.Contributions) != 2 || len(rec.NextSeats) != 52 || Witnesses(rec.NextSeats) != committeeSeats {
			t.Fatalf("round %d: certified %v, %d contributions, %d seats", r, l.Certificate != nil, len(rec.Contributions), len(rec.NextSeats))
		}
		for i, c := range rec.Contributions {
			res, _, err := msg.OpenAs[*msg.CellResult](rec.Commits[i])
			if err != nil {
				t.Fatal(err)
			}
			if c.Seat != uint32(i) || !c.Delta.Equals(res.Summary.Aggregate) || c.Tokens < 20*1000 {
				t.Errorf("round %d: contribution %d is %+v", r, i, c)
			}
			for k := range CellsOf(parent.ID, rec.Seats)[i] {
				if !msg.Has(res.Summary.Included, k) {
					t.Errorf("round %d: seat %d of cell %d is not included", r, k, i)
				}
			}
		}
		cons, err := s.rules.Verify(n.chain.links[r-2], parent, rec)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range cons.Inputs {
			if in.Bits != fold.CellBits || in.FactorQ16 != fold.FactorFull {
				t.Errorf("round %d: an input is %+v", r, in)
			}
		}
	}
	// Who was away and comes back follows the records of the others.
	last := s.nodes[51]
	last.stop()
	if !s.runUntil(5*time.Minute, func() bool { return s.minRound() >= from+4 }) {
		t.Fatalf("no round without one seat\n%s", s.describe())
	}
	last.start()
	if !s.runUntil(5*time.Minute, func() bool { return last.chain.Head().Record.Round >= from+5 }) {
		t.Fatalf("who was away does not follow\n%s", s.describe())
	}
	for _, n := range s.nodes {
		for id, err := range n.misbehaved {
			t.Errorf("node %d blames %v: %v", n.i, id, err)
		}
	}
}

// TestLateInCell: who comes into the middle of a round gives its have in its cell when
// the time is up for others, and not a whole period after it came.
func TestLateInCell(t *testing.T) {
	s := inCells(t, 50, simOpts{})
	r := s.minRound()
	if !s.runUntil(time.Minute, func() bool { return s.minRound() > r && s.agree(r+1) == nil }) {
		t.Fatalf("no round\n%s", s.describe())
	}
	late := s.nodes[49]
	var beside *simNode // without its delta nobody gives a have early
	for _, e := range late.m.cur.sub.seats {
		if n := s.nodes[s.indexOf(e)]; n != late {
			beside = n
		}
	}
	beside.stop()
	late.stop() // before it has trained
	s.runFor(8 * time.Second)
	late.start()
	period, came := late.m.timing.Deadline, s.now
	h := late.m.cur
	if h.sub == nil || h.t0 != (time.Time{}) {
		t.Fatal("it is in no cell, or has given a have already")
	}
	gave := func() bool { return late.m.own.at(h.sub.slot()).have != nil }
	if !s.runUntil(2*period, gave) || s.now.Sub(came) > period*6/10 {
		t.Errorf("the have came after %v, a period is %v", s.now.Sub(came), period)
	}
}

// TestOwnCommitInCell: in a cell, too, what a maker says of its own commit does not
// include what another finds to be wrong.
func TestOwnCommitInCell(t *testing.T) {
	for _, tt := range []struct {
		reason msg.Reason
		want   int
	}{{msg.BadNorm, 0}, {msg.Timeout, 1}} {
		s := newScene(t, 3, nil)
		s.parent.Record.Cell = 1
		c := s.commit(0, 0)
		haves := []msg.Signed{s.have(0, []msg.HaveEntry{held(0, c)}), s.have(1, []msg.HaveEntry{refused(0, c, tt.reason)})}
		r := s.rules.cellConsequence(Basis{Parent: s.parent, Haves: haves, Find: func(id cid.Cid) (msg.Signed, bool) {
			m, ok := s.known[id]
			return m, ok
		}}).Record
		if len(r.Contributions) != tt.want || len(r.Refused) != 1-tt.want {
			t.Errorf("%v of another: %d contributions, refused %v", tt.reason, len(r.Contributions), r.Refused)
		}
	}
}

// TestCellThatFails: a cell without a quorum is left out of the record; its
// seats keep their places, and the next head draws other cells.
func TestCellThatFails(t *testing.T) {
	s := inCells(t, 52, simOpts{})
	head := s.nodes[0].chain.Head()
	cell := CellsOf(head.ID, head.Record.NextSeats)[1]
	for _, i := range cell {
		if head.Record.NextSeats[i].Trainee {
			s.nodes[s.indexOf(head.Record.NextSeats[i])].stop()
		}
	}
	if !s.runUntil(5*time.Minute, func() bool { return s.minRound() >= head.Record.Round+1 }) {
		t.Fatalf("no round\n%s", s.describe())
	}
	rec := s.nodes[s.indexOf(head.Record.NextSeats[slices.IndexFunc(head.Record.NextSeats, func(s msg.Seat) bool { return !s.Trainee })])].chain.links[head.Record.Round+1].Record
	if len(rec.Contributions) != 1 || rec.Contributions[0].Seat != 0 {
		t.Fatalf("contributions are %+v", rec.Contributions)
	}
	if len(rec.NextSeats) != 52 {
		t.Errorf("%d seats are left, want all", len(rec.NextSeats))
	}
	for _, i := range cell {
		peer := head.Record.NextSeats[i].Peer
		if next := rec.NextSeats[seatOf(rec.NextSeats, peer)]; head.Record.NextSeats[i].Trainee && next.Missed != 1 {
			t.Errorf("a seat of the cell that failed has missed %d, want 1", next.Missed)
		}
	}
}

// hostileResult is a valid result of the first cell of a round.
func hostileResult(t *testing.T, s *sim) (Link, msg.CellResult) {
	t.Helper()
	n := s.nodes[0]
	for i := len(n.chain.links) - 1; i > 1; i-- {
		if rec := n.chain.links[i].Record; Cells(len(rec.Seats)) > 0 && len(rec.Contributions) > 0 {
			res, _, err := msg.OpenAs[*msg.CellResult](rec.Commits[0])
			if err != nil {
				t.Fatal(err)
			}
			return n.chain.links[i-1], *res
		}
	}
	t.Fatal("no round was done in cells")
	return Link{}, msg.CellResult{}
}

// TestHostileResults: what a cell came to needs a quorum of its seats, for that
// very summary.
func TestHostileResults(t *testing.T) {
	s := inCells(t, 50, simOpts{})
	from := s.minRound()
	if !s.runUntil(5*time.Minute, func() bool { return s.minRound() >= from+2 }) {
		t.Fatal("no rounds")
	}
	parent, good := hostileResult(t, s)
	if err := s.rules.verifyResult(parent, &good); err != nil {
		t.Fatal(err)
	}
	outside := parent.Record.NextSeats[CellsOf(parent.ID, parent.Record.NextSeats)[1][0]].Peer
	for _, tt := range []struct {
		name   string
		change func(*msg.CellResult)
		want   string
	}{
		{"a vote less", func(r *msg.CellResult) { r.Votes = r.Votes[1:] }, "votes, must be at least"},
		{"another mean", func(r *msg.CellResult) { r.Summary.Aggregate = testCID("another") }, "not signed"},
		{"more tokens", func(r *msg.CellResult) { r.Summary.Tokens++ }, "not signed"},
		{"other seats", func(r *msg.CellResult) { r.Summary.Present = slices.Repeat([]byte{255}, len(r.Summary.Present)) }, "not of its"},
		{"another cell", func(r *msg.CellResult) { r.Summary.Cell = 2 }, "told by"},
		{"a cell that is not", func(r *msg.CellResult) { r.Summary.Cell = 3 }, "not of this round"},
		{"another round", func(r *msg.CellResult) { r.Summary.Round++ }, "not of this round"},
		{"another head", func(r *msg.CellResult) { r.Summary.Head = testCID("x") }, "not of this round"},
		{"told from outside", func(r *msg.CellResult) { r.Peer = outside }, "told by"},
		{"a vote of nobody", func(r *msg.CellResult) { r.Votes[len(r.Votes)-1].Seat = 47 }, "which it has not"},
		{"the vote of another seat", func(r *msg.CellResult) {
			r.Votes[0].Signature, r.Votes[1].Signature = r.Votes[1].Signature, r.Votes[0].Signature
		}, "not signed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := good
			bad.Votes, bad.Summary.Present = slices.Clone(good.Votes), slices.Clone(good.Summary.Present)
			tt.change(&bad)
			if err := s.rules.verifyResult(parent, &bad); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("verifyResult() = %v, want %q", err, tt.want)
			}
		})
	}
}

// TestWrongMean: seats of a cell that vote for another mean than its deltas give
// prove that they lie, to each honest seat of the cell.
func TestWrongMean(t *testing.T) {
	s := inCells(t, 50, simOpts{})
	head := s.nodes[0].chain.Head()
	members := CellsOf(head.ID, head.Record.NextSeats)[0]
	honest := s.nodes[s.indexOf(head.Record.NextSeats[members[0]])]
	if !s.runUntil(2*time.Minute, func() bool { h := honest.m.cur; return h.sub != nil && len(h.sub.candidates) > 0 }) {
		t.Fatal("no record of the cell was proposed")
	}
	h := honest.m.cur
	c := h.sub.candidates[0]
	wrong := *c.record
	wrong.State = testCID("not the mean")
	b, err := wrong.Encode()
	if err != nil {
		t.Fatal(err)
	}
	id := honest.m.idOf(h.sub, &wrong, msg.RawCID(b))
	proposer := s.nodes[s.indexOf(msg.Seat{Peer: wrong.Proposer})]
	var out []Effect
	step := func(ev Event) {
		s.now = s.now.Add(time.Millisecond)
		out = append(out, honest.m.Step(s.now, ev)...)
	}
	// As if the liar's had come in place of the true one.
	h.sub.candidates, h.sub.proposals[wrong.Attempt] = nil, make([]proposalSlot, len(h.sub.seats))
	step(Received{proposer.seal(&msg.Proposal{Run: s.runID, Round: h.round, Attempt: wrong.Attempt, Peer: proposer.id, Record: b})})
	step(fakeFold(h.sub.candidates[0].cons.Fold(h.sub.parent.Record.State)))
	for _, i := range members[1:] {
		n := s.nodes[s.indexOf(head.Record.NextSeats[i])]
		step(Received{n.seal(&msg.Vote{Run: s.runID, Round: h.round, Head: head.ID, Record: id, Peer: n.id, Cell: h.sub.cell})})
	}
	i := slices.IndexFunc(out, func(e Effect) bool { _, ok := e.(Fraud); return ok })
	if i < 0 {
		t.Fatal("nobody was told of the wrong mean")
	}
	if f := out[i].(Fraud); !f.Claimed.Equals(wrong.State) || f.Computed.Equals(f.Claimed) || len(f.Certificate.Votes) < h.sub.q {
		t.Errorf("fraud is %+v", f)
	}
}

// TestCellsOwnMessages: the messages of a peer in its cell and for all do not
// contradict each other, and each is for its own readers.
func TestCellsOwnMessages(t *testing.T) {
	_, id := testKey(1)
	head := testCID("head")
	inCell := &msg.Have{Run: testCID("run"), Round: 3, Head: head, Peer: id, Cell: 1}
	ofAll := &msg.Have{Run: testCID("run"), Round: 3, Head: head, Peer: id}
	a, _, _ := slotOf(inCell)
	b, _, _ := slotOf(ofAll)
	if a.Equals(b) || !b.Equals(head) {
		t.Error("a have in a cell and one of all are for one slot")
	}
	many := Link{Record: &msg.Record{Round: 2, NextSeats: testSeats(60)}, ID: head}
	for _, m := range []msg.Message{inCell, &msg.Vote{Round: 3, Head: head, Peer: id, Cell: 2}, &msg.Commit{Round: 3, Head: head, Peer: id}} {
		if passesOn(many, 100, msg.Signed{Message: m, From: id}) {
			t.Errorf("%T of a cell is passed on", m)
		}
	}
	if !passesOn(many, 100, msg.Signed{Message: ofAll, From: id}) {
		t.Error("a have of all is not passed on")
	}
	few := Link{Record: &msg.Record{Round: 2, NextSeats: testSeats(40)}, ID: head}
	if !passesOn(few, 100, msg.Signed{Message: &msg.Commit{Round: 3, Head: head, Peer: id}, From: id}) {
		t.Error("a commit in a round without cells is not passed on")
	}
}
