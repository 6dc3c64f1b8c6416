package round

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

// A round with more seats than one cell holds is done in two levels;
// proto/README.md section 6 has the rules. What follows from messages alone is
// in this file, when things are done in cell_height.go.
const (
	cellSeats       = 32
	committeeSeats  = 31 // that witness a round with cells
	cellDomain      = "moot cell 1"
	committeeDomain = "moot committee 1"
)

// Cells is how many cells a round with so many seats has; 0: it has none, and
// all seats exchange with all.
func Cells(seats int) int {
	if seats <= oneCell {
		return 0
	}
	return (seats + cellSeats - 1) / cellSeats
}

// drawnOrder gives the indices of seats in an order that nobody chooses.
func drawnOrder(domain string, head cid.Cid, seats []msg.Seat) []int {
	keys := make([][sha256.Size]byte, len(seats))
	order := make([]int, len(seats))
	for i, s := range seats {
		keys[i] = sha256.Sum256(append(append([]byte(domain), head.Bytes()...), s.Peer...))
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return bytes.Compare(keys[a][:], keys[b][:]) })
	return order
}

// CellsOf returns the seats of each cell of the round on head, sorted; nil if it
// has none.
func CellsOf(head cid.Cid, seats []msg.Seat) [][]int {
	c := Cells(len(seats))
	if c == 0 {
		return nil
	}
	cells := make([][]int, c)
	for k, i := range drawnOrder(cellDomain, head, seats) {
		cells[k%c] = append(cells[k%c], i)
	}
	for _, cell := range cells {
		slices.Sort(cell)
	}
	return cells
}

// slots is how many commits a have of the round can list: those of its seats, or
// the results of its cells.
func slots(seats []msg.Seat) int {
	if c := Cells(len(seats)); c > 0 {
		return c
	}
	return len(seats)
}

// assignCommittee lets few of very many seats witness: those of them that may,
// as the parent's CID draws them.
func assignCommittee(r *msg.Record) {
	if Cells(len(r.NextSeats)) == 0 {
		return
	}
	n := 0
	for _, i := range drawnOrder(committeeDomain, r.Parent, r.NextSeats) {
		s := &r.NextSeats[i]
		if !s.Trainee {
			n++
			s.Trainee = n > committeeSeats
		}
	}
}

// cellParent stands for the parent in a cell's own round: it gives the seats of
// the cell alone, and the standings that their deltas count by.
func (ru *Rules) cellParent(parent Link, cell uint32) Link {
	p := parent.Record
	r := &msg.Record{
		Version: p.Version, Run: p.Run, Round: p.Round, State: p.State, TrainedRounds: max(p.TrainedRounds, 1), Cell: cell,
		CodecBits: p.CodecBits, Standings: p.Standings,
	}
	may := ru.mayWitness(p.Standings, p)
	for _, i := range CellsOf(parent.ID, p.NextSeats)[cell-1] {
		s := p.NextSeats[i]
		s.Trainee = !may[i]
		r.NextSeats = append(r.NextSeats, s)
	}
	if Witnesses(r.NextSeats) == 0 { // as in a run in which all are new
		for i := range r.NextSeats {
			r.NextSeats[i].Trainee = false
		}
	}
	return Link{ID: parent.ID, Record: r}
}

// cellConsequence is what follows from the haves of a cell: which of its commits
// are in its mean, and which of its seats had part.
func (ru *Rules) cellConsequence(b Basis) *Consequence {
	parent := b.Parent.Record
	r := &msg.Record{
		Version: msg.RecordVersion, Run: ru.run, Round: parent.Round + 1, Parent: b.Parent.ID, Seats: parent.NextSeats,
		State: parent.State, Cell: parent.Cell,
	}
	for _, s := range b.Haves {
		r.Haves = append(r.Haves, s.Envelope)
	}
	c := &Consequence{Record: r, standings: parent.Standings}
	_, f := Quorum(Witnesses(r.Seats))
	counting := countingHaves(b.Haves, r.Seats)
	t := min(f+1, len(counting))
	opinions := tally(counting)
	if f == 0 && len(counting) > 1 {
		withoutOwn(opinions, counting, r.Seats, false)
	}
	ru.include(c, b, opinions, t)
	r.Tokens = creditedTokens(r.Contributions)
	r.CellAudits = ru.cellAudits(b.Haves, r.Seats)
	c.presence(b)
	return c
}

// presence says which of the seats of a cell had part, in NextSeats.
func (c *Consequence) presence(b Basis) {
	r := c.Record
	for i, s := range r.Seats {
		has := slices.ContainsFunc(b.Haves, func(h msg.Signed) bool { return h.From == s.Peer })
		in := slices.ContainsFunc(r.Contributions, func(e msg.Contribution) bool { return int(e.Seat) == i })
		s.Missed = 1
		if has || in {
			s.Missed = 0
		}
		s.Fresh = s.Fresh && !in
		r.NextSeats = append(r.NextSeats, s)
	}
}

// summaryOf is what others need to know of a cell's record.
func (ru *Rules) summaryOf(r *msg.Record, id cid.Cid) msg.CellSummary {
	n := (len(r.Seats) + 7) / 8
	s := msg.CellSummary{
		Run: r.Run, Round: r.Round, Head: r.Parent, Cell: r.Cell, Record: id, Aggregate: r.State, Tokens: r.Tokens,
		Fresh: true, Present: make([]byte, n), Included: make([]byte, n), Audits: r.CellAudits,
	}
	for i, e := range r.NextSeats {
		if e.Missed == 0 {
			msg.SetBit(s.Present, i)
		}
	}
	for _, e := range r.Contributions {
		msg.SetBit(s.Included, int(e.Seat))
		s.Weight += e.Weight
		if ru.manifest.Trust.Auditors > 0 {
			s.TokensEach = append(s.TokensEach, e.Tokens)
		}
		if e.Reason == msg.Held {
			s.Fresh = false
		}
	}
	s.Weight = min(s.Weight, msg.MaxTokens)
	return s
}

// verifyResult checks what is said of a cell of the round on parent: that a
// quorum of its seats voted for it. That it is true only they know.
func (ru *Rules) verifyResult(parent Link, res *msg.CellResult) error {
	s := &res.Summary
	seats := parent.Record.NextSeats
	if !s.Run.Equals(ru.run) || s.Round != parent.Record.Round+1 || !s.Head.Equals(parent.ID) || int(s.Cell) > Cells(len(seats)) {
		return fmt.Errorf("result of cell %d is not of this round", s.Cell)
	}
	members := ru.cellParent(parent, s.Cell).Record.NextSeats
	q, _ := Quorum(Witnesses(members))
	switch {
	case len(s.Present) != (len(members)+7)/8 || excess(s.Present, len(members)):
		return fmt.Errorf("result of cell %d is not of its %d seats", s.Cell, len(members))
	case (len(s.TokensEach) > 0) != (ru.manifest.Trust.Auditors > 0) || len(s.Audits) > 0 && int(s.Audits[len(s.Audits)-1].By) >= len(members):
		return fmt.Errorf("result of cell %d has not what the run's audits need", s.Cell)
	case len(res.Votes) < q:
		return fmt.Errorf("result of cell %d: %d votes, must be at least %d", s.Cell, len(res.Votes), q)
	case seatOf(members, res.Peer) < 0:
		return fmt.Errorf("result of cell %d is told by %v, who has no seat in it", s.Cell, res.Peer)
	}
	for _, v := range res.Votes {
		if int(v.Seat) >= len(members) || members[v.Seat].Trainee {
			return fmt.Errorf("result of cell %d: a vote of seat %d, which it has not or which does not witness", s.Cell, v.Seat)
		}
		e, err := s.Envelope(members[v.Seat].Peer, v.Signature)
		if err != nil {
			return err
		}
		if _, err := msg.Open(e); err != nil {
			return fmt.Errorf("result of cell %d: vote of seat %d: %w", s.Cell, v.Seat, err)
		}
	}
	return nil
}

// excess reports whether a bit at n or after is set.
func excess(bits []byte, n int) bool {
	for i := n; i < 8*len(bits); i++ {
		if msg.Has(bits, i) {
			return true
		}
	}
	return false
}

// contributeCell is contribute for the result of a cell.
func (ru *Rules) contributeCell(c *Consequence, b Basis, cell uint32, id cid.Cid) {
	s, ok := b.Find(id)
	res, is := s.Message.(*msg.CellResult)
	if !ok || !is || res.Summary.Cell != cell+1 || !res.Summary.CID().Equals(id) || b.result(ru, s.CID, res) != nil {
		c.Blocked = append(c.Blocked, id)
		return
	}
	sum := &res.Summary
	factor, reason := uint32(fold.FactorFull), msg.Held
	if sum.Fresh {
		factor, reason = fold.FactorFresh, msg.Fresh
	}
	r := c.Record
	r.Commits = append(r.Commits, s.Envelope)
	r.Contributions = append(r.Contributions, msg.Contribution{
		Seat: cell, Commit: id, Delta: sum.Aggregate, Tokens: min(sum.Tokens, msg.MaxTokens), Reason: reason,
	})
	c.Inputs = append(c.Inputs, Input{Peer: res.Peer, Delta: sum.Aggregate, Bits: fold.CellBits, Tokens: sum.Weight, FactorQ16: factor})
}

// result verifies a cell's result, unless that was done before.
func (b Basis) result(ru *Rules, envelope cid.Cid, res *msg.CellResult) error {
	if b.Verified != nil && b.Verified(envelope) {
		return nil
	}
	return ru.verifyResult(b.Parent, res)
}

// staying are the seats that keep their place after a round with cells. Of a
// cell that is not in the record nobody knows who was there.
func stayingOfCells(r *msg.Record, b Basis, present []bool) []msg.Seat {
	next := slices.Clone(r.Seats)
	known := make([]bool, len(next))
	cells := CellsOf(r.Parent, r.Seats)
	for _, e := range r.Contributions {
		s, _ := b.Find(e.Commit)
		sum := &s.Message.(*msg.CellResult).Summary
		for k, i := range cells[e.Seat] {
			known[i] = true
			present[i] = present[i] || msg.Has(sum.Present, k)
			next[i].Fresh = next[i].Fresh && !msg.Has(sum.Included, k)
		}
	}
	var stay []msg.Seat
	for i, s := range next {
		s.Missed++
		switch {
		case present[i]:
			s.Missed = 0
		case !known[i]:
			s.Missed = min(s.Missed, msg.MaxMissed)
		}
		if s.Missed <= msg.MaxMissed {
			stay = append(stay, s)
		}
	}
	return stay
}

// ofCell is the cell whose own round a message belongs to; 0: none, or it is a
// commit.
func ofCell(m msg.Message) uint32 {
	switch m := m.(type) {
	case *msg.Have:
		return m.Cell
	case *msg.Vote:
		return m.Cell
	case *msg.Proposal:
		if r, err := m.Decoded(); err == nil {
			return r.Cell
		}
	}
	return 0
}

// slotOf names what Self signs one message of each kind for: a head, or a head
// in a cell.
func slotOf(m msg.Message) (cid.Cid, msg.Round, bool) {
	head, round, ok := headOf(m)
	if ok && ofCell(m) > 0 {
		head = cellSlot(head)
	}
	return head, round, ok
}

func cellSlot(head cid.Cid) cid.Cid { return msg.RawCID(append([]byte(cellDomain), head.Bytes()...)) }

// Audience returns who a message is for: the seats of a cell, or nobody (nil) in
// particular.
func (m *Machine) Audience(s msg.Signed) []peer.ID {
	head, _, ok := headOf(s.Message)
	if !ok {
		return nil
	}
	h := m.cur
	if h == nil || !head.Equals(h.parent.ID) {
		h = m.prev
	}
	if h == nil || h.sub == nil || !head.Equals(h.parent.ID) {
		return nil
	}
	if _, commit := s.Message.(*msg.Commit); !commit && ofCell(s.Message) == 0 {
		return nil
	}
	var list []peer.ID
	for _, seat := range h.sub.seats {
		list = append(list, seat.Peer)
	}
	return list
}
