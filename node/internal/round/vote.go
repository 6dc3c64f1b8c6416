package round

import (
	"cmp"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

// vote votes once for each head, for the first record whose consequence this
// peer computed itself. Records of the fallback are not voted on.
func (m *Machine) vote(h *height) {
	mine := m.own.at(h.slot())
	if !h.witness || mine.vote != nil || mine.forgotten {
		return
	}
	for _, c := range h.candidates {
		if c.state != valid || c.record.Attempt == msg.MaxAttempt || c.omitted {
			continue
		}
		attempt := min(c.from.Message.(*msg.Proposal).Attempt, msg.MaxAttempt)
		if h.cell > 0 {
			attempt = 0 // else the votes of a cell could not be told in short
		}
		s, ok := m.send(&msg.Vote{
			Run: m.rules.run, Round: h.round, Head: h.parent.ID, Attempt: attempt, Record: c.id, Peer: m.cfg.Self, Cell: h.cell,
		})
		if ok {
			m.place(s)
		}
		return
	}
}

// certificate adopts a record that a quorum voted for and that this peer
// computed itself.
func (m *Machine) certificate(h *height) bool {
	for _, c := range h.candidates {
		if c.state != valid && !m.takesWord(h, c) {
			continue
		}
		if cert := h.certificateOf(c); cert != nil {
			m.adopt([]Link{{ID: c.id, Record: c.record, Certificate: cert, Certified: h.parent.Certified + 1}})
			return true
		}
	}
	return false
}

// maxFrauds bounds how many are remembered: it takes a quorum to make one.
const maxFrauds = 64

// exposeFraud tells of records that a quorum voted for though their states are
// wrong.
func (m *Machine) exposeFraud(h *height) {
	for _, c := range h.candidates {
		if c.state != bad || slices.ContainsFunc(m.frauds, c.id.Equals) || len(m.frauds) == maxFrauds {
			continue
		}
		if cert := h.certificateOf(c); cert != nil {
			m.frauds = append(m.frauds, c.id)
			m.emit(Fraud{Certificate: cert, Claimed: c.record.State, Computed: c.given.State})
		}
	}
}

// certificateOf returns the certificate of a record, with the votes of a quorum
// in the order of the seats; nil if there are too few.
func (h *height) certificateOf(c *candidate) *msg.Certificate {
	votes := h.votesFor(c.id)
	if len(votes) < h.q {
		return nil
	}
	cert := &msg.Certificate{Record: c.id}
	for _, s := range votes[:h.q] {
		cert.Votes = append(cert.Votes, s.Envelope)
	}
	return cert
}

// lateCertificate looks for a quorum on the height that the provisional head
// came from. It returns true if that gives another head.
func (m *Machine) lateCertificate() bool {
	h := m.prev
	if h == nil || m.head.Certificate != nil || !m.head.Record.Parent.Equals(h.parent.ID) {
		return false
	}
	for _, c := range h.candidates {
		if c.state != valid && !c.id.Equals(m.head.ID) {
			continue
		}
		cert := h.certificateOf(c)
		switch {
		case cert == nil:
		case c.id.Equals(m.head.ID):
			m.certify(cert)
			return false
		default:
			m.adopt([]Link{{ID: c.id, Record: c.record, Certificate: cert, Certified: h.parent.Certified + 1}})
			return true
		}
	}
	return false
}

// certify takes a valid certificate for a record of the chain.
func (m *Machine) certify(c *msg.Certificate) {
	l, ok := m.chain.link(c.Record)
	if !ok || l.Certificate != nil || l.Record.Round == 0 {
		return
	}
	m.emit(Certify{c})
	m.chain.certify(l, c)
	m.head, _ = m.chain.link(m.head.ID)
	for _, h := range []*height{m.cur, m.prev} {
		if h == nil {
			continue
		}
		if l, ok := m.chain.link(h.parent.ID); ok {
			h.parent = l
		}
	}
}

// fallback adopts the best valid proposal when no record gets a quorum.
func (m *Machine) fallback(h *height) bool {
	if h.t0.IsZero() || m.now.Before(m.attemptAt(h, msg.MaxAttempt)) {
		return false
	}
	if !h.inFallback {
		h.inFallback = true
		m.judge(h)
	}
	if m.now.Before(m.settledAt(h)) {
		return false
	}
	var best *candidate
	for _, c := range h.candidates {
		if c.state == valid && (best == nil || c.beats(h.parent.Record, best)) {
			best = c
		}
	}
	if best == nil {
		return false
	}
	m.adopt([]Link{{ID: best.id, Record: best.record, Certified: h.parent.Certified}})
	return true
}

// beats is the order in which the fallback chooses.
func (c *candidate) beats(parent *msg.Record, d *candidate) bool {
	return cmp.Or(
		cmp.Compare(voices(c.record), voices(d.record)),
		cmp.Compare(included(parent, c.record), included(parent, d.record)),
		compareCIDs(d.id, c.id),
	) > 0
}

// lackingRecord notes records with a quorum of votes that are not here, and
// returns a voter to ask for them, once it has been a while.
func (m *Machine) lackingRecord(h *height) (msg.Signed, bool) {
	if h == nil {
		return msg.Signed{}, false
	}
	for i := range h.votes {
		for _, s := range h.votes[i] {
			id := s.Message.(*msg.Vote).Record
			if h.closed && m.chain.has(id) || h.candidateValid(id) || len(h.votesFor(id)) < h.q {
				continue
			}
			if !slices.ContainsFunc(h.missing, func(l missingRecord) bool { return l.record.Equals(id) }) {
				h.missing = append(h.missing, missingRecord{record: id, askAt: m.now.Add(m.timing.Grace)})
			}
		}
	}
	for i := range h.missing {
		l := &h.missing[i]
		if h.candidateValid(l.record) || m.now.Before(l.askAt) {
			continue
		}
		voters := h.votesFor(l.record)
		voters = slices.DeleteFunc(voters, func(s msg.Signed) bool { return s.From == m.cfg.Self })
		if len(voters) == 0 {
			continue
		}
		s := voters[l.asked%len(voters)]
		l.asked++
		l.askAt = m.now.Add(m.timing.Attempt)
		return s, true
	}
	return msg.Signed{}, false
}

func (h *height) candidateValid(id cid.Cid) bool {
	c := h.candidate(id)
	return c != nil && c.state == valid
}

// settledAt is when the fallback adopts.
func (m *Machine) settledAt(h *height) time.Time {
	return m.attemptAt(h, msg.MaxAttempt).Add(m.timing.Settle)
}
