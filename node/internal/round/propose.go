package round

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

// attemptAt is when an attempt begins for this peer. A quorum of haves that comes
// late moves the attempts, for nobody can propose before: else the second
// proposer would begin while the first proposal is on its way, and split the
// votes.
func (m *Machine) attemptAt(h *height, attempt uint32) time.Time {
	from := h.t0
	if !from.IsZero() && h.quorumAt.After(from) && h.quorumAt.Before(from.Add(msg.MaxAttempt*m.timing.Attempt)) {
		from = h.quorumAt
	}
	return from.Add(time.Duration(attempt) * m.timing.Attempt)
}

// propose makes a proposal when it is Self's turn.
func (m *Machine) propose(h *height) {
	if h.self < 0 || h.t0.IsZero() {
		return
	}
	mine := m.own.at(h.slot())
	if mine.forgotten {
		return
	}
	for a := uint32(0); a < msg.MaxAttempt; a++ {
		if h.proposer(a, h.self) && mine.proposals[a] == nil && !m.now.Before(m.attemptAt(h, a)) {
			m.proposeIn(h, a)
			mine = m.own.at(h.slot())
		}
	}
	if h.fallsBack() && mine.proposals[msg.MaxAttempt] == nil && !m.now.Before(m.attemptAt(h, msg.MaxAttempt)) {
		m.proposeFallback(h)
	}
	m.finishDraft(h)
}

func (m *Machine) proposeIn(h *height, attempt uint32) {
	if c := h.proposed(); c != nil {
		// A second record could only split the votes.
		if c.record.Attempt < attempt {
			m.publishProposal(h, attempt, c.record)
		}
		return
	}
	if h.draft != nil {
		return
	}
	n := h.haveCount()
	ready := n >= h.q
	if attempt == 0 && n < Witnesses(h.seats) {
		ready = ready && !m.now.Before(h.quorumAt.Add(m.graceOf(h)))
	}
	if ready {
		m.makeDraft(h, attempt)
	}
}

// graceOf is how long the first proposer waits for more haves than it needs. In
// assembly nobody trains meanwhile, and who has a slow machine is to keep its seat; so
// is who missed one round and would lose its seat by this one.
func (m *Machine) graceOf(h *height) time.Duration {
	if h.assembly || h.atStake() {
		return max(m.timing.Grace, m.timing.Attempt/2)
	}
	return m.timing.Grace
}

// atStake reports whether a seat would go if the round ended as it is.
func (h *height) atStake() bool {
	if h.results != nil {
		return false // cells tell who is there
	}
	for i := range h.seats {
		if h.goes(i) && !h.held(i) {
			return true
		}
	}
	return false
}

// proposed returns the valid record that later attempts repeat: the one Self
// voted for, else the first.
func (h *height) proposed() *candidate {
	var first *candidate
	for _, c := range h.candidates {
		if c.state != valid || c.record.Attempt == msg.MaxAttempt || c.omitted {
			continue
		}
		if h.self >= 0 && len(h.votes[h.self]) > 0 && h.votes[h.self][0].Message.(*msg.Vote).Record.Equals(c.id) {
			return c
		}
		if first == nil {
			first = c
		}
	}
	return first
}

func (m *Machine) proposeFallback(h *height) {
	if h.draft != nil && h.draft.attempt == msg.MaxAttempt {
		return
	}
	h.draft = nil
	m.makeDraft(h, msg.MaxAttempt)
}

// makeDraft begins a record on as many haves as there are, at least a quorum but
// in the fallback. Haves that name what is not here are left out; it is tried again later if too
// few are left.
func (m *Machine) makeDraft(h *height, attempt uint32) {
	haves, proofs := h.firstHaves(), m.proofs.against(h.parent.Record)
	find := func(id cid.Cid) (msg.Signed, bool) {
		if s, ok := h.find(id); ok {
			return s, true
		}
		if s, ok := m.joins.find(id); ok {
			return s, true
		}
		return m.orders.find(id)
	}
	for len(haves) > 0 && (attempt == msg.MaxAttempt || len(ofWitnesses(haves, h.seats)) >= h.q) {
		c := m.rules.consequenceOf(Basis{Before: h.before, Parent: h.parent, Haves: haves, Find: find, Proofs: proofs, Report: h.report, Verified: h.verified, Fallback: attempt == msg.MaxAttempt})
		if h.cell > 0 && len(c.Inputs) == 0 {
			return // a cell without deltas has nothing to tell
		}
		lacks := c.Blocked
		if attempt < msg.MaxAttempt {
			lacks = append(lacks, c.Unknown...)
		}
		if len(lacks)+len(c.Missing) == 0 && m.fits(h, c) {
			h.draft = &draft{attempt: attempt, cons: c}
			if c.Folds() {
				h.draft.foldID = m.need(h.parent.Record, c)
			}
			return
		}
		i := m.worstHave(haves, lacks, c.Missing)
		if i < 0 {
			return
		}
		haves = slices.Delete(haves, i, i+1)
	}
}

// worstHave returns the have, not Self's, that names the most of what is
// lacking; if nothing is, the record is too large, and it is the longest.
func (m *Machine) worstHave(haves []msg.Signed, lacks []cid.Cid, missing []int) int {
	worst, most := -1, 0
	for i, s := range haves {
		if s.From == m.cfg.Self {
			continue
		}
		n := len(s.Envelope)
		if len(lacks)+len(missing) > 0 {
			n = naming(s.Message.(*msg.Have), lacks, missing)
		}
		if n >= most && n > 0 {
			worst, most = i, n
		}
	}
	return worst
}

func naming(v *msg.Have, ids []cid.Cid, reports []int) int {
	n := 0
	for _, i := range reports {
		if hasReport(v, i) {
			n++
		}
	}
	for _, id := range ids {
		held := func(e msg.HaveEntry) bool { return e.Reason == msg.Held && e.Commit.Equals(id) }
		if slices.ContainsFunc(v.Entries, held) || slices.ContainsFunc(v.Joins, id.Equals) || slices.ContainsFunc(v.Orders, id.Equals) {
			n++
		}
	}
	return n
}

// fits reports whether the record can be encoded, whatever the fold gives.
func (m *Machine) fits(h *height, c *Consequence) bool {
	r := *c.Record
	m.complete(h, &r, 0)
	r.Contributions = slices.Clone(r.Contributions)
	for i := range r.Contributions {
		r.Contributions[i].Weight, r.Contributions[i].ClipQ16 = msg.MaxTokens, 1<<16
	}
	_, err := r.Encode()
	return err == nil
}

// complete adds to a record what is the proposer's.
func (m *Machine) complete(h *height, r *msg.Record, attempt uint32) {
	r.Proposer, r.Attempt, r.ParentCertificate = m.cfg.Self, attempt, nil
	if h.parent.Record.Round > 0 {
		r.ParentCertificate = h.parent.Certificate
	}
}

// finishDraft publishes the draft when its fold is there.
func (m *Machine) finishDraft(h *height) {
	d := h.draft
	if d == nil {
		return
	}
	r := d.cons.Record
	if d.cons.Folds() {
		f, ok := m.folds.result(d.foldID)
		if !ok {
			return
		}
		if len(f.Applied) != len(r.Contributions) {
			h.draft = nil // not the fold that was asked for
			return
		}
		r = d.cons.weigh(f)
	}
	h.draft = nil
	m.judge(h)
	if d.attempt < msg.MaxAttempt && h.proposed() != nil {
		m.proposeIn(h, d.attempt)
		return
	}
	m.complete(h, r, d.attempt)
	m.publishProposal(h, d.attempt, r)
}

func (m *Machine) publishProposal(h *height, attempt uint32, r *msg.Record) {
	if mine := m.own.at(h.slot()); mine.forgotten || mine.proposals[attempt] != nil {
		return // what was proposed became known while the fold ran
	}
	b, err := r.Encode()
	if err != nil {
		return
	}
	p := &msg.Proposal{Run: m.rules.run, Round: h.round, Attempt: attempt, Peer: m.cfg.Self, Record: b}
	if m.rules.manifest.Pledges {
		if err := p.Promise(m.cfg.Sign); err != nil {
			return
		}
	}
	if s, ok := m.send(p); ok {
		m.place(s)
	}
}

// addProposal takes a proposal, the first of a seat for an attempt. What it
// rests on is kept as if it had been received.
func (m *Machine) addProposal(h *height, s msg.Signed) {
	p := s.Message.(*msg.Proposal)
	seat := seatOf(h.seats, p.Peer)
	if seat < 0 || p.Attempt > msg.MaxAttempt || !h.proposer(p.Attempt, seat) {
		return
	}
	if pledged := len(p.Pledge) > 0; pledged != m.rules.manifest.Pledges {
		m.emit(Misbehaved{Peer: s.From, Err: fmt.Errorf("proposal: with a pledge is %v, must be %v in this run", pledged, !pledged)})
		return
	}
	slot := &h.proposals[p.Attempt][seat]
	if slot.signed.Message != nil {
		if !slot.told && !slot.signed.CID.Equals(s.CID) {
			slot.told = m.proposedTwice(slot.signed, s)
		}
		return
	}
	slot.signed = s
	r, err := p.Decoded()
	if err != nil {
		return // Open decoded it
	}
	if h.cell > 0 && len(r.NextSeats) != len(r.Seats) { // its summary has a bit for each
		m.emit(Misbehaved{Peer: s.From, Err: fmt.Errorf("proposal: a cell's record has %d next seats, must have its %d seats", len(r.NextSeats), len(r.Seats))})
		return
	}
	encoded := msg.RawCID(p.Record)
	id := m.idOf(h, r, encoded)
	if h.candidate(id) != nil || h.closed && m.head.Certificate != nil || h.cell > 0 && len(r.Contributions) == 0 {
		return
	}
	v, err := m.verifyProposed(h, encoded, r)
	if err != nil {
		m.emit(Misbehaved{Peer: s.From, Err: err})
		return
	}
	if r.ParentCertificate != nil && !h.closed {
		m.certify(r.ParentCertificate)
		m.addVotesOf(m.prev, r.ParentCertificate)
	}
	for _, x := range v.haves {
		m.recall(x)
		m.addHave(h, x)
	}
	for _, x := range v.commits {
		m.recall(x)
		if _, ok := x.Message.(*msg.CellResult); ok {
			m.addResult(h, x)
			continue
		}
		m.addCommit(h, x, h.self >= 0 && m.own.at(h.slot()).have == nil)
	}
	for _, x := range v.joins {
		m.joins.add(x)
	}
	for _, x := range v.reports {
		m.addReport(h, x)
	}
	for _, x := range v.orders {
		m.addOrder(x)
	}
	for _, x := range v.proofs {
		m.proofs.add(x.first, x.second, m.head.Record)
	}
	c := &candidate{id: id, encoded: encoded, record: r, cons: v.Consequence, proofs: v.proofs, from: s}
	h.candidates = append(h.candidates, c)
}

// proposedTwice tells of two proposals of a peer for one attempt, by their pledges
// if the run has them. It returns false if they do not contradict each other.
func (m *Machine) proposedTwice(a, b msg.Signed) bool {
	if !m.rules.manifest.Pledges {
		m.contradicted(a, b)
		return true
	}
	p, q := a.Message.(*msg.Proposal), b.Message.(*msg.Proposal)
	if bytes.Equal(p.Record, q.Record) {
		return false
	}
	x, err := p.Pledged()
	if err != nil {
		return false
	}
	y, err := q.Pledged()
	if err != nil {
		return false
	}
	m.contradicted(x, y)
	return true
}

// repeats reports whether s is a proposal that is here. They are published
// again and again, and are long.
func (h *height) repeats(s msg.Signed) bool {
	p, ok := s.Message.(*msg.Proposal)
	if h == nil || !ok || p.Attempt > msg.MaxAttempt {
		return false
	}
	seat := seatOf(h.seats, p.Peer)
	return seat >= 0 && h.proposals[p.Attempt][seat].signed.CID.Equals(s.CID)
}

// omits reports whether a record leaves out a join request or order that counts and that
// we know. Only our vote depends on it: others cannot tell.
func (m *Machine) omits(h *height, c *candidate) bool {
	if len(c.cons.Unknown) == 0 {
		return false
	}
	known := make(map[cid.Cid]msg.Signed, len(c.record.Joins)+len(c.record.Commits)+len(c.record.Orders))
	for _, list := range [][][]byte{c.record.Joins, c.record.Commits, c.record.Orders} {
		for _, e := range list {
			if s, err := m.open(e); err == nil {
				known[s.CID] = s
				if res, ok := s.Message.(*msg.CellResult); ok {
					known[res.Summary.CID()] = s
				}
			}
		}
	}
	var haves []msg.Signed
	for _, e := range c.record.Haves {
		s, err := m.open(e)
		if err != nil {
			return false
		}
		haves = append(haves, s)
	}
	var reports []msg.Signed
	for _, e := range c.record.Reports {
		if s, err := m.open(e); err == nil {
			reports = append(reports, s)
		}
	}
	full := m.rules.Consequence(Basis{Before: h.before, Parent: h.parent, Haves: haves, Proofs: c.proofs, Report: reportIn(reports), Fallback: c.record.Attempt == msg.MaxAttempt, Find: func(id cid.Cid) (msg.Signed, bool) {
		if s, ok := known[id]; ok {
			return s, true
		}
		if s, ok := m.joins.find(id); ok {
			return s, true
		}
		return m.orders.find(id)
	}})
	return !slices.EqualFunc(full.Record.Joins, c.record.Joins, bytes.Equal) ||
		!slices.EqualFunc(full.Record.Orders, c.record.Orders, bytes.Equal)
}

// judge folds the candidates and compares.
func (m *Machine) judge(h *height) {
	for _, c := range h.candidates {
		if c.state == unfolded && (c.record.Attempt < msg.MaxAttempt || h.inFallback || c.from.From == m.cfg.Self) && !h.closed && m.computes(h) {
			c.state = folding
			if !c.cons.Folds() {
				c.state = valid // the state is the parent's, which Verify saw
			} else {
				c.foldID = m.need(h.parent.Record, c.cons)
			}
			c.omitted = m.omits(h, c)
		}
		if c.state != folding {
			continue
		}
		f, ok := m.folds.result(c.foldID)
		if !ok {
			continue
		}
		c.state = valid
		if err := Weigh(c.record, f); err != nil {
			c.state, c.given = bad, f
			// Not of the record's proposer: somebody else may propose what it never said.
			m.emit(Misbehaved{Peer: c.from.From, Err: fmt.Errorf("proposal of %v: %w", c.from.From, err)})
		}
	}
}
