package round

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

func auditedCells(seats int) *run.Manifest {
	return testManifest(func(m *run.Manifest) {
		m.Seats, m.MinPeers = uint32(seats), 2
		m.Trust = run.Trust{Auditors: 3, AuditSamples: 8, Probation: 3}
	})
}

// TestAuditsInCells: with cells, too, who damages is found and loses its seat, and
// others keep theirs; what a record says follows from what it rests on; and
// nobody audits who was not in the cell.
func TestAuditsInCells(t *testing.T) {
	if testing.Short() {
		t.Skip("many rounds of many nodes")
	}
	const n, liars = 52, 13
	s := newSim(t, 5, n, auditedCells(64), simOpts{})
	s.opts.gain = func(auditor *simNode, maker int) int64 {
		switch {
		case maker >= n-liars && auditor.i >= n-liars:
			return 2_000_000 // they praise each other
		case maker >= n-liars:
			return -1_000_000
		}
		return honestGain(s, auditor)
	}
	s.startAll()
	inCells := func() bool { return len(s.nodes[0].chain.Head().Record.Seats) == n }
	if !s.runUntil(10*time.Minute, inCells) {
		t.Fatalf("not all have a seat\n%s", s.describe())
	}
	from := s.nodes[0].chain.Head().Record.Round
	if !s.runUntil(10*time.Minute, func() bool { return s.nodes[0].chain.Head().Record.Round >= from+9 }) {
		t.Fatalf("stuck:\n%s", s.describe())
	}
	chain := s.nodes[0].chain
	verdicts := make(map[msg.Verdict]int)
	for _, l := range chain.links[from+1:] {
		r := l.Record
		parent := chain.links[r.Round-1]
		if Cells(len(parent.Record.Seats)) == 0 || Cells(len(r.Seats)) == 0 {
			continue
		}
		if len(r.Judgements) < len(parent.Record.Seats)*8/10 {
			t.Errorf("round %d: %d of %d seats are judged", r.Round, len(r.Judgements), len(parent.Record.Seats))
		}
		for _, j := range r.Judgements {
			i := s.indexOf(parent.Record.Seats[j.Seat])
			if i < n-liars {
				verdicts[j.Verdict]++
				if j.Verdict == msg.Damaging || j.Verdict == msg.Useless {
					t.Errorf("round %d: what honest node %d did is called %v", r.Round, i, j.Verdict)
				}
			}
		}
		if _, err := s.rules.Verify(chain.links[r.Round-2], parent, r); err != nil {
			t.Errorf("round %d: %v", r.Round, err)
		}
		if _, err := s.rules.Verify(Link{}, parent, r); err == nil || !strings.Contains(err.Error(), "the record before the parent") {
			t.Errorf("round %d without the record before its parent: %v", r.Round, err)
		}
		cells := CellsOf(parent.Record.Parent, parent.Record.Seats)
		for _, e := range s.rules.entered(Basis{Before: chain.links[r.Round-2], Parent: parent}) {
			cell := cells[slices.IndexFunc(cells, func(c []int) bool { return slices.Contains(c, int(e.seat)) })]
			for _, id := range e.auditors {
				if k := seatOf(parent.Record.Seats, id); id == e.maker || !slices.Contains(cell, k) {
					t.Fatalf("round %d: %v audits %v, whose delta it has not", r.Round, id, e.maker)
				}
			}
		}
	}
	if verdicts[msg.Useful] == 0 {
		t.Error("nothing was found useful")
	}
	head := chain.Head().Record
	for i, node := range s.nodes {
		e := standings(head.Standings).of(node.id)
		seat := seatOf(head.NextSeats, node.id)
		switch {
		case i < n-liars && (seat < 0 || e.StrikesQ8 > 0):
			t.Errorf("honest node %d has seat %d and standing %+v", i, seat, e)
		case i >= n-liars && seat >= 0 && e.Owed == 0 && e.StrikesQ8 == 0:
			t.Errorf("liar %d counts: %+v", i, e)
		}
	}
}

// TestPauseInCells: what was measured of a round in cells is told without them in
// the round after it, if the run is paused then, as coarsely as a cell tells it.
func TestPauseInCells(t *testing.T) {
	const n = 52
	s := newSim(t, 5, n, auditedCells(64), simOpts{})
	s.opts.gain = func(auditor *simNode, _ int) int64 { return honestGain(s, auditor) }
	s.startAll()
	chain := s.nodes[0].chain
	// The order takes effect in a round in cells that follows one in cells.
	if !s.runUntil(10*time.Minute, func() bool { return len(chain.Head().Record.Seats) == n }) {
		t.Fatalf("not all have a seat\n%s", s.describe())
	}
	s.nodes[0].give(msg.Order{Action: msg.ActionPause})
	if !s.runUntil(time.Minute, func() bool { return Paused(chain.Head().Record) }) {
		t.Fatalf("not paused:\n%s", s.describe())
	}
	paused := chain.Head().Record
	if !s.runUntil(2*time.Minute, func() bool { return s.minRound() > paused.Round }) {
		t.Fatalf("stuck when paused:\n%s", s.describe())
	}
	parent := chain.links[paused.Round]
	r := chain.links[paused.Round+1].Record
	if len(r.Contributions) > 0 || len(parent.Record.Contributions) == 0 || len(r.Judgements) == 0 {
		t.Fatalf("%d contributions after %d, %d judgements", len(r.Contributions), len(parent.Record.Contributions), len(r.Judgements))
	}
	for _, j := range r.Judgements {
		if j.GainNano < 1_000_000 || j.GainNano > 1_400_000 || j.GainNano%1000 != 0 {
			t.Errorf("the gain of seat %d is %d", j.Seat, j.GainNano)
		}
	}
	if _, err := s.rules.Verify(chain.links[paused.Round-1], parent, r); err != nil {
		t.Error(err)
	}
}

// TestCellWitnesses: in a cell those witness who may, whether or not they are of
// the few that witness for all; if none may, all do.
func TestCellWitnesses(t *testing.T) {
	s := newSim(t, 5, 2, auditedCells(200), simOpts{})
	r := &msg.Record{Round: 4, TrainedRounds: 3, NextSeats: testSeats(100)}
	for i := range r.NextSeats {
		if i%2 == 0 {
			r.Standings = append(r.Standings, msg.Standing{Peer: r.NextSeats[i].Peer, Owed: 2})
		}
	}
	s.rules.assignWitnesses(r.Standings, r)
	assignCommittee(r)
	parent := Link{ID: testCID("head"), Record: r}
	for k, members := range CellsOf(parent.ID, r.NextSeats) {
		p := s.rules.cellParent(parent, uint32(k+1)).Record
		want := 0
		for i, seat := range p.NextSeats {
			may := members[i]%2 == 1
			if seat.Trainee == may {
				t.Errorf("cell %d: seat %d is a trainee: %v", k+1, members[i], seat.Trainee)
			}
			if may {
				want++
			}
		}
		if Witnesses(p.NextSeats) != want {
			t.Errorf("cell %d has %d witnesses, want %d", k+1, Witnesses(p.NextSeats), want)
		}
	}
	r.Standings = nil
	for i := range r.NextSeats {
		r.Standings = append(r.Standings, msg.Standing{Peer: r.NextSeats[i].Peer, Owed: 2})
	}
	if p := s.rules.cellParent(parent, 1).Record; Witnesses(p.NextSeats) != len(p.NextSeats) {
		t.Errorf("%d of %d new seats of a cell witness, want all", Witnesses(p.NextSeats), len(p.NextSeats))
	}
}

// TestHostileAudits: a result has what audits need in runs that have any, and in
// no others.
func TestHostileAudits(t *testing.T) {
	s := newSim(t, 5, 2, auditedCells(64), simOpts{})
	plain := newSim(t, 5, 2, cellManifest(), simOpts{})
	parent := Link{ID: testCID("head"), Record: &msg.Record{Round: 4, TrainedRounds: 3, NextSeats: testSeats(60)}}
	members := s.rules.cellParent(parent, 1).Record.NextSeats
	result := func(run cid.Cid) *msg.CellResult {
		sum := msg.CellSummary{
			Run: run, Round: 5, Head: parent.ID, Cell: 1, Record: testCID("record"), Aggregate: testCID("mean"), Weight: 1, Tokens: 1,
			Present: make([]byte, (len(members)+7)/8), Included: make([]byte, (len(members)+7)/8), TokensEach: []uint64{1},
		}
		msg.SetBit(sum.Present, 0)
		msg.SetBit(sum.Included, 0)
		return &msg.CellResult{Summary: sum, Peer: members[0].Peer}
	}
	const need = "what the run's audits need"
	none := result(s.runID)
	none.Summary.TokensEach = nil
	if err := s.rules.verifyResult(parent, none); err == nil || !strings.Contains(err.Error(), need) {
		t.Errorf("without tokens: %v", err)
	}
	beyond := result(s.runID)
	beyond.Summary.Audits = []msg.CellAudit{{By: uint32(len(members))}}
	if err := s.rules.verifyResult(parent, beyond); err == nil || !strings.Contains(err.Error(), need) {
		t.Errorf("an audit by a seat that is not: %v", err)
	}
	if err := plain.rules.verifyResult(parent, result(plain.runID)); err == nil || !strings.Contains(err.Error(), need) {
		t.Errorf("tokens in a run without audits: %v", err)
	}
	if err := s.rules.verifyResult(parent, result(s.runID)); err == nil || !strings.Contains(err.Error(), "votes") {
		t.Errorf("one that lacks votes alone: %v", err)
	}
}

// TestFewAuditors: who has more to audit than a have holds audits a part.
func TestFewAuditors(t *testing.T) {
	s := newSim(t, 5, 2, auditedCells(48), simOpts{})
	r := &msg.Record{Round: 4, TrainedRounds: 3, Seats: testSeats(40), NextSeats: testSeats(40)}
	for i := range r.NextSeats {
		r.NextSeats[i].Trainee = i > 1
		r.Contributions = append(r.Contributions, msg.Contribution{Seat: uint32(i)})
	}
	if got := len(s.rules.Audits(Link{ID: testCID("head"), Record: r}, r.NextSeats[0].Peer)); got != msg.MaxAudits {
		t.Errorf("one of two auditors of 40 deltas audits %d, want %d", got, msg.MaxAudits)
	}
}
