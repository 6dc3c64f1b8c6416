package round

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// What a cell's deltas are audited by. Only the seats of a cell have its deltas,
// so they are who can be drawn; in the round after it they sit in other cells,
// say there what they measured, and each cell passes on what its seats said.

// finding is what one auditor with a seat says.
type finding struct {
	by       peer.ID
	audits   []msg.Audit
	retraces []msg.Retrace
}

// findingsOf are those of haves.
func findingsOf(haves []msg.Signed) []finding {
	var list []finding
	for _, s := range haves {
		h := s.Message.(*msg.Have)
		list = append(list, finding{s.From, h.Audits, h.Retraces})
	}
	return list
}

// rounded lets findings say what a cell would pass on of them.
func rounded(list []finding) []finding {
	for i := range list {
		f := &list[i]
		f.audits = slices.Clone(f.audits)
		for k, a := range f.audits {
			told := msg.CellAuditOf(0, a)
			f.audits[k] = told.Audit()
		}
	}
	return list
}

// cellFindings are those of the results that entered a round with cells; nil if
// none did.
func (c *Consequence) cellFindings(b Basis) []finding {
	var list []finding
	r := c.Record
	cells := CellsOf(r.Parent, r.Seats)
	for _, e := range r.Contributions {
		s, _ := b.Find(e.Commit)
		members, last := cells[e.Seat], -1
		for _, a := range s.Message.(*msg.CellResult).Summary.Audits {
			if int(a.By) >= len(members) {
				break // what was verified has none
			}
			if int(a.By) != last {
				last = int(a.By)
				list = append(list, finding{by: r.Seats[members[last]].Peer})
			}
			f := &list[len(list)-1]
			f.audits = append(f.audits, a.Audit())
		}
	}
	return list
}

// cellAudits are what the haves of a cell say of the round before.
func (ru *Rules) cellAudits(haves []msg.Signed, seats []msg.Seat) []msg.CellAudit {
	if ru.manifest.Trust.Auditors == 0 {
		return nil
	}
	var list []msg.CellAudit
	for _, s := range haves { // in the order of their seats
		by := seatOf(seats, s.From)
		for _, a := range s.Message.(*msg.Have).Audits {
			list = append(list, msg.CellAuditOf(uint32(by), a))
		}
	}
	return list
}

// entered is a delta of the round before.
type entered struct {
	seat     uint32
	maker    peer.ID
	tokens   uint64
	weight   uint64 // 0: it counted for nothing
	auditors []peer.ID
	few      int // of them, who come first, retrace it
	inDoubt  bool
}

// entered returns the deltas of the parent, in the order of their seats.
func (ru *Rules) entered(b Basis) []entered {
	parent := b.Parent.Record
	if Cells(len(parent.Seats)) > 0 {
		return ru.enteredInCells(b)
	}
	var list []entered
	for _, c := range parent.Contributions {
		list = append(list, entered{seat: c.Seat, maker: parent.Seats[c.Seat].Peer, tokens: c.Tokens, weight: c.Weight})
	}
	ru.draw(b.Parent, newAuditRing(b.Parent.ID, parent.NextSeats), list)
	return list
}

// draw says who of a ring audits each delta.
func (ru *Rules) draw(parent Link, ring auditRing, list []entered) {
	var makers []peer.ID
	for _, e := range list {
		makers = append(makers, e.maker)
	}
	p := ru.newPanel(parent, ring, makers)
	for i := range list {
		e := &list[i]
		e.auditors, e.few = p.of(e.maker)
		e.inDoubt = p.inDoubt(e.maker)
	}
}

func (ru *Rules) enteredInCells(b Basis) []entered {
	parent := b.Parent.Record
	before := &msg.Record{} // that the cells went by
	if b.Before.Record != nil {
		before = b.Before.Record
	}
	cells := CellsOf(parent.Parent, parent.Seats)
	shares := ru.Shares(before, parent)
	var list []entered
	for _, c := range parent.Contributions {
		first := len(list)
		for _, s := range shares {
			if s.Cell != c.Seat+1 {
				continue
			}
			e := entered{seat: s.Seat, maker: parent.Seats[s.Seat].Peer, tokens: s.Tokens}
			if s.Reason == msg.Held {
				e.weight = 1
			}
			list = append(list, e)
		}
		ru.draw(b.Parent, ru.cellRing(b.Parent, cells[c.Seat]), list[first:])
	}
	slices.SortFunc(list, func(a, b entered) int { return int(a.seat) - int(b.seat) })
	return list
}

// Share is what a seat gave to its cell, as far as that is known to all.
type Share struct {
	Seat      uint32
	Cell      uint32 // from 1
	Tokens    uint64
	Counted   uint64 // of them, for its weight
	FactorQ16 uint32
	Reason    msg.Reason // why it counts for nothing, Held: it counts
}

// Shares returns what the seats of a round with cells gave, cell by cell; nothing
// in a run without audits, in which only the seats of a cell know. before is the
// record that r follows.
func (ru *Rules) Shares(before, r *msg.Record) []Share {
	cells := CellsOf(r.Parent, r.Seats)
	var list []Share
	for i, c := range r.Contributions {
		sum, ok := summaryIn(r, i)
		if !ok || int(c.Seat) >= len(cells) {
			continue // the record was verified
		}
		each := sum.TokensEach
		for k, seat := range cells[c.Seat] {
			if !msg.Has(sum.Included, k) || len(each) == 0 {
				continue
			}
			e := Share{Seat: uint32(seat), Cell: c.Seat + 1, Tokens: each[0]}
			each = each[1:]
			e.FactorQ16, e.Counted, e.Reason = ru.counts(before.Standings, r.Seats[seat], e.Tokens)
			list = append(list, e)
		}
	}
	return list
}

// summaryIn is what the i-th contribution of a record with cells came from.
func summaryIn(r *msg.Record, i int) (*msg.CellSummary, bool) {
	if i >= len(r.Commits) {
		return nil, false
	}
	res, _, err := msg.OpenAs[*msg.CellResult](r.Commits[i])
	if err != nil {
		return nil, false
	}
	return &res.Summary, true
}

// cellRing is the ring of those that can audit what a cell of the record parent
// did: its seats that are still there and may witness, or all if none may.
func (ru *Rules) cellRing(parent Link, members []int) auditRing {
	p := parent.Record
	may := ru.mayWitness(p.Standings, p)
	var trusted, all []msg.Seat
	for _, i := range members {
		k := seatOf(p.NextSeats, p.Seats[i].Peer)
		if k < 0 {
			continue
		}
		s := p.NextSeats[k]
		s.Trainee = false
		all = append(all, s)
		if may[k] {
			trusted = append(trusted, s)
		}
	}
	if len(trusted) == 0 {
		trusted = all
	}
	return newAuditRing(parent.ID, trusted)
}

// auditsInCell returns what Self audits of the record parent, which was made in
// cells: contributions of the cell in which it sat. Who does not know the cell's
// record, after a restart say, audits nothing.
func (m *Machine) auditsInCell(parent Link) []AuditItem {
	h, p := m.prev, parent.Record
	if m.rules.manifest.Trust.Auditors == 0 || h == nil || h.sub == nil || !h.parent.ID.Equals(p.Parent) {
		return nil
	}
	i := slices.IndexFunc(p.Contributions, func(c msg.Contribution) bool { return c.Seat+1 == h.sub.cell })
	if i < 0 {
		return nil
	}
	c := h.sub.candidate(p.Contributions[i].Commit)
	if c == nil || c.state == bad {
		return nil
	}
	members := CellsOf(p.Parent, p.Seats)[p.Contributions[i].Seat]
	var makers []peer.ID
	var items []AuditItem
	for _, e := range c.record.Contributions {
		maker := c.record.Seats[e.Seat].Peer
		makers = append(makers, maker)
		items = append(items, AuditItem{Seat: uint32(members[e.Seat]), Maker: maker, Delta: e.Delta, ClipQ16: e.ClipQ16})
	}
	return m.rules.newPanel(parent, m.rules.cellRing(parent, members), makers).items(m.cfg.Self, items)
}
