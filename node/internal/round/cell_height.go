package round

import (
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

// cellsOfHeight is what a round with cells has besides what every round has.
type cellsOfHeight struct {
	cells   int              // 0: it has none
	results [][]*resultEntry // by cell, in order of arrival; two are kept
	sub     *height          // the own cell's round; nil: none
	// cell is the number of the cell whose own round this is; 0: it is of all.
	cell uint32
	// told is when the result of the own cell is told to everybody by Self; zero:
	// there is none, or it was told.
	tellAt time.Time
	told   bool
}

// resultEntry is what was said of a cell.
type resultEntry struct {
	signed  msg.Signed
	id      cid.Cid // of the summary
	summary *msg.CellSummary
	decided bool
	reason  msg.Reason
}

// addCells gives a height what it needs for cells, if its round has any.
func (m *Machine) addCells(h *height) {
	h.cells = Cells(len(h.seats))
	if h.cells == 0 || h.assembly {
		return
	}
	h.results = make([][]*resultEntry, h.cells)
	if h.self < 0 {
		return
	}
	for k, members := range CellsOf(h.parent.ID, h.seats) {
		if !slices.Contains(members, h.self) {
			continue
		}
		p := m.rules.cellParent(h.parent, uint32(k+1))
		n := len(p.Record.NextSeats)
		s := &height{
			parent: p, round: h.round, seats: p.Record.NextSeats, self: seatOf(p.Record.NextSeats, m.cfg.Self),
			order: Proposers(p.ID, p.Record.NextSeats), began: h.began, byCID: h.byCID, cellsOfHeight: cellsOfHeight{cell: uint32(k + 1)},
			commits: make([][]*commitEntry, n), haves: make([][]msg.Signed, n), votes: make([][]msg.Signed, n),
		}
		s.q, s.f = Quorum(Witnesses(s.seats))
		s.witness = !s.seats[s.self].Trainee
		for a := range s.proposals {
			s.proposals[a] = make([]proposalSlot, n)
		}
		h.sub = s
	}
}

// slot names what Self signs for in this round.
func (h *height) slot() cid.Cid {
	if h.cell > 0 {
		return cellSlot(h.parent.ID)
	}
	return h.parent.ID
}

// idOf is what votes for a record name: in a cell, its summary.
func (m *Machine) idOf(h *height, r *msg.Record, encoded cid.Cid) cid.Cid {
	if h.cell > 0 {
		s := m.rules.summaryOf(r, encoded)
		return s.CID()
	}
	return encoded
}

// within returns the height of a round that a message belongs to: the round's,
// or the own cell's; nil: that of another cell.
func (h *height) within(s msg.Signed) *height {
	if h == nil || h.cells == 0 || h.assembly {
		return h
	}
	cell := ofCell(s.Message)
	if _, commit := s.Message.(*msg.Commit); !commit && cell == 0 {
		return h
	}
	if h.sub == nil || cell > 0 && cell != h.sub.cell {
		return nil
	}
	return h.sub
}

// advanceCell does what is due in the own cell's round.
func (m *Machine) advanceCell(h *height) {
	s := h.sub
	if s == nil || h.closed {
		return
	}
	m.judge(s)
	m.giveCellHave(h)
	m.propose(s)
	m.judge(s)
	m.vote(s)
	m.exposeFraud(s)
	m.tellResult(h)
}

// giveCellHave says once which deltas of its cell Self holds, and what it
// measured of the round before.
func (m *Machine) giveCellHave(h *height) {
	s := h.sub
	mine := m.own.at(s.slot())
	ready := s.allHeld() && (h.audited || len(h.audits) == 0)
	if late := m.lateHaveAt(s); !late.IsZero() && !m.now.Before(late) {
		ready = true
	}
	if mine.have != nil || mine.forgotten || !ready && m.now.Before(s.began.Add(m.timing.Deadline)) {
		return
	}
	v := &msg.Have{Run: m.rules.run, Round: s.round, Head: s.parent.ID, Peer: m.cfg.Self, Cell: s.cell, Audits: h.gains}
	for i := range s.seats {
		if e, ok := s.entry(i); ok {
			v.Entries = append(v.Entries, e)
		}
	}
	if out, ok := m.send(v); ok {
		m.place(out)
		s.t0 = m.now
	}
}

// tellResult tells everybody what the own cell came to, one seat after the other
// until it is heard.
func (m *Machine) tellResult(h *height) {
	s := h.sub
	if h.told || len(h.results[s.cell-1]) > 0 {
		return
	}
	for _, c := range s.candidates {
		cert := s.certificateOf(c)
		if c.state != valid || cert == nil {
			continue
		}
		if h.tellAt.IsZero() {
			turn := slices.Index(s.order, s.self)
			if turn < 0 {
				turn = len(s.order)
			}
			h.tellAt = m.now.Add(time.Duration(turn) * m.timing.Grace)
		}
		if m.now.Before(h.tellAt) {
			return
		}
		v := &msg.CellResult{Summary: m.rules.summaryOf(c.record, c.encoded), Peer: m.cfg.Self}
		for _, e := range cert.Votes {
			vote, err := m.open(e)
			if err != nil {
				return
			}
			cv, err := msg.CellVoteOf(vote, uint32(seatOf(s.seats, vote.From)))
			if err != nil {
				return
			}
			v.Votes = append(v.Votes, cv)
		}
		h.told = true
		if out, err := m.cfg.Sign(v); err == nil {
			m.emit(Publish{out})
			m.addResult(h, out)
		}
		return
	}
}

// addResult takes what a seat says of its cell.
func (m *Machine) addResult(h *height, s msg.Signed) {
	res := s.Message.(*msg.CellResult)
	sum := &res.Summary
	if h.results == nil || sum.Round != h.round || !sum.Head.Equals(h.parent.ID) || int(sum.Cell) > h.cells {
		return
	}
	list := h.results[sum.Cell-1]
	id := sum.CID()
	if len(list) == 2 || slices.ContainsFunc(list, func(e *resultEntry) bool { return e.id.Equals(id) }) {
		return
	}
	if err := m.rules.verifyResult(h.parent, res); err != nil {
		m.emit(Misbehaved{Peer: s.From, Err: err})
		return
	}
	e := &resultEntry{signed: s, id: id, summary: sum}
	h.byCID[id], h.byCID[s.CID] = s, s
	h.results[sum.Cell-1] = append(list, e)
	if h.self >= 0 && !h.closed {
		m.emit(Pull{Round: h.round, Commit: id, Aggregate: sum.Aggregate, From: s.From})
	}
}

// pulled takes the answer to a Pull.
func (h *height) pulled(ev Checked) {
	for _, list := range h.results {
		for _, e := range list {
			if e.id.Equals(ev.Commit) && !e.decided {
				e.decided, e.reason = true, ev.Reason
			}
		}
	}
}

// resultEntryOf is what a have says of a cell.
func (h *height) resultEntryOf(cell int) (msg.HaveEntry, bool) {
	list := h.results[cell]
	if len(list) == 0 {
		return msg.HaveEntry{}, false
	}
	e := list[0]
	out := msg.HaveEntry{Seat: uint32(cell), Commit: e.id, Reason: e.reason}
	switch {
	case len(list) > 1:
		// A cell that came to two things has more liars than it can bear.
		if compareCIDs(list[1].id, out.Commit) < 0 {
			out.Commit = list[1].id
		}
		out.Reason = msg.Equivocation
	case !e.decided:
		out.Reason = msg.Timeout
	}
	return out, true
}

// allResults reports whether the results of all cells are held.
func (h *height) allResults() bool {
	for _, list := range h.results {
		if len(list) != 1 || !list[0].decided || list[0].reason != msg.Held {
			return false
		}
	}
	return true
}

// verified reports whether an envelope is that of a result that was verified.
func (h *height) verified(envelope cid.Cid) bool {
	for _, list := range h.results {
		for _, e := range list {
			if e.signed.CID.Equals(envelope) {
				return true
			}
		}
	}
	return false
}

// slotCount is how many entries a have of this round can have.
func (h *height) slotCount() int {
	if h.cells > 0 {
		return h.cells
	}
	return len(h.seats)
}

// fallsBack reports whether Self may propose in the fallback: with cells only
// witnesses do, else the proposals would be too many; in a cell nobody does, for
// without a result it is left out.
func (h *height) fallsBack() bool { return h.cell == 0 && (h.cells == 0 || h.witness) }

// cellDeadlines gives the times at which there is something to do in cells.
func (m *Machine) cellDeadlines(h *height, at func(time.Time)) {
	if h.results == nil {
		return
	}
	at(m.haveDeadline(h))
	if !h.told {
		at(h.tellAt)
	}
	s := h.sub
	if s == nil {
		return
	}
	at(s.began.Add(m.timing.Deadline))
	at(m.lateHaveAt(s))
	if !s.quorumAt.IsZero() {
		at(s.quorumAt.Add(m.timing.Grace))
	}
	for a := uint32(1); !s.t0.IsZero() && a <= msg.MaxAttempt; a++ {
		at(m.attemptAt(s, a))
	}
}
