package round

import (
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

// height is the round that follows one head: what was received for it and how
// far it is.
//
// What peers can put into it is bounded: per seat two commits, haves and votes,
// and a proposal for each attempt that it may propose in.
type height struct {
	// constant after newHeight
	before   Link // the parent's parent
	parent   Link
	round    msg.Round
	seats    []msg.Seat
	witness  bool // Self witnesses
	audits   []AuditItem
	retraces []RetraceItem
	outside  []outsider // that audit without a seat
	q        int
	f        int
	self     int  // Self's seat, -1: none
	assembly bool // nothing is trained: it lets peers in, or the run is paused
	paused   bool
	order    []int // seats as they propose
	began    time.Time

	t0          time.Time // attempts are counted from here; zero: not yet
	quorumAt    time.Time // when q haves were there
	lateAt      time.Time // when more than f others had given haves that lack something; zero: not yet
	assembled   time.Time // when enough join requests were there; zero: not yet
	projected   int       // seats after assembly, with the requests that are there
	projectedAt int       // joinPool.changes for that, plus one
	closed      bool      // the next round has begun
	audited     bool      // what there is to audit was measured
	gains       []msg.Audit
	measures    bool // Self tells the held-out loss in its have
	measured    bool
	lossMicro   uint64
	compares    bool // Self tells kappa in its have
	compared    bool
	kappaPPM    uint32
	retraced    []msg.Retrace
	inFallback  bool

	commits    [][]*commitEntry // by seat, in order of arrival
	haves      [][]msg.Signed   // by seat; the first counts
	votes      [][]msg.Signed   // by seat
	reports    []msg.Signed     // by outsider; without a message if there is none
	proposals  [msg.MaxAttempt + 1][]proposalSlot
	candidates []*candidate // in order of arrival
	byCID      map[cid.Cid]msg.Signed
	draft      *draft
	missing    []missingRecord

	cellsOfHeight
}

type commitEntry struct {
	signed  msg.Signed
	commit  *msg.Commit
	decided bool
	checks  bool // a Check was asked for
	reason  msg.Reason
	at      time.Time // when it was decided
}

// proposalSlot is the first proposal of a seat for an attempt.
type proposalSlot struct {
	signed msg.Signed
	told   bool // of a second one
}

// candidate is a record that was proposed and keeps the rules, as far as can be
// told without the fold.
type candidate struct {
	id      cid.Cid // that votes name: the record's, or in a cell its summary's
	encoded cid.Cid // of the record
	record  *msg.Record
	cons    *Consequence
	proofs  []proof
	from    msg.Signed // the proposal that brought it
	foldID  FoldID
	state   candidateState
	given   Folded // what the fold gave, if bad
	omitted bool   // leaves out a join request that we know
}

type candidateState int

const (
	unfolded candidateState = iota // its fold has not been asked for
	folding
	valid
	bad
)

// draft is an own record whose fold is under way.
type draft struct {
	attempt uint32
	cons    *Consequence
	foldID  FoldID
}

// missingRecord is a record with a quorum of votes that we do not have.
type missingRecord struct {
	record cid.Cid
	askAt  time.Time
	asked  int
}

func (m *Machine) newHeight(parent Link) *height {
	r := parent.Record
	n := len(r.NextSeats)
	h := &height{
		before: m.before(parent), parent: parent, round: r.Round + 1, seats: r.NextSeats,
		self: seatOf(r.NextSeats, m.cfg.Self), assembly: m.rules.Assembly(r), paused: Paused(r),
		order: Proposers(parent.ID, r.NextSeats), began: m.now,
		commits: make([][]*commitEntry, n), haves: make([][]msg.Signed, n), votes: make([][]msg.Signed, n),
		byCID: make(map[cid.Cid]msg.Signed),
	}
	h.q, h.f = Quorum(Witnesses(h.seats))
	h.witness = h.self >= 0 && !h.seats[h.self].Trainee
	if h.witness {
		h.audits = m.rules.Audits(parent, m.cfg.Self)
		h.compares = m.rules.comparable(r) && h.before.Record != nil
		h.measures = m.rules.Evaluates(parent, m.cfg.Self)
		h.retraces = m.rules.Retraces(parent, h.audits, m.chain.link)
	}
	if h.self >= 0 && Cells(len(r.Seats)) > 0 {
		h.audits = m.auditsInCell(parent)
	}
	h.outside = m.rules.outsiders(parent)
	h.reports = make([]msg.Signed, len(h.outside))
	if h.self < 0 {
		h.audits = m.rules.OutsideAudits(parent, m.cfg.Self)
		h.retraces = m.rules.Retraces(parent, h.audits, m.chain.link)
	}
	for a := range h.proposals {
		h.proposals[a] = make([]proposalSlot, n)
	}
	m.addCells(h)
	return h
}

// accepts reports whether a message is one for this round on this head.
func (h *height) accepts(round msg.Round, head cid.Cid) bool {
	return round == h.round && head.Equals(h.parent.ID)
}

// note adds s to the messages of a seat; two are kept, and are Evidence.
func (m *Machine) note(h *height, list []msg.Signed, s msg.Signed) []msg.Signed {
	for _, old := range list {
		if old.CID.Equals(s.CID) {
			return list
		}
	}
	if len(list) == 2 {
		return list
	}
	if len(list) == 1 {
		m.contradicted(list[0], s)
	}
	h.byCID[s.CID] = s
	return append(list, s)
}

// contradicted tells of two messages that no honest peer signs both of, and
// keeps them for a record.
func (m *Machine) contradicted(a, b msg.Signed) {
	m.emit(Evidence{a, b})
	m.proofs.add(a, b, m.head.Record)
}

// addCommit takes a commit. With check its delta is pulled.
func (m *Machine) addCommit(h *height, s msg.Signed, check bool) {
	c := s.Message.(*msg.Commit)
	seat := seatOf(h.seats, c.Peer)
	if seat < 0 || h.assembly || !h.accepts(c.Round, c.Head) {
		return
	}
	list := h.commits[seat]
	for _, e := range list {
		if e.signed.CID.Equals(s.CID) {
			return
		}
	}
	if len(list) == 2 {
		return
	}
	e := &commitEntry{signed: s, commit: c}
	h.byCID[s.CID] = s
	h.commits[seat] = append(list, e)
	if len(list) == 1 {
		m.contradicted(list[0].signed, s)
		return
	}
	if reason := m.rules.fault(c, h.round, h.parent.ID, m.rules.codecAfter(h.parent.Record)); reason != msg.Held {
		e.decided, e.reason = true, reason
		return
	}
	e.at = m.now
	if seat == h.self {
		e.decided, e.reason = true, msg.Held
		return
	}
	if reason := m.taken(h, seat, c); reason != msg.Held {
		e.decided, e.reason = true, reason
		return
	}
	if check && !h.closed && m.computes(h) {
		e.checks = true
		m.emit(Check{Round: h.round, Commit: c, CID: s.CID})
	}
}

// addHave takes a have. One with an entry for a seat that does not exist counts
// for nothing.
func (m *Machine) addHave(h *height, s msg.Signed) {
	v := s.Message.(*msg.Have)
	seat := seatOf(h.seats, v.Peer)
	if seat < 0 || !m.rules.isHave(v, h.round, h.parent.ID, h.slotCount(), h.cell) {
		return
	}
	h.haves[seat] = m.note(h, h.haves[seat], s)
	if h.quorumAt.IsZero() && h.haveCount() >= h.q {
		h.quorumAt = m.now
	}
	if h.lateAt.IsZero() && h.othersLate() > h.f {
		h.lateAt = m.now
	}
}

// othersLate counts the witnesses, without Self, that did not wait for all
// commits with their haves: for whom the time was up, if they are honest.
func (h *height) othersLate() int {
	n := 0
	for i, list := range h.haves {
		if len(list) == 0 || i == h.self || h.seats[i].Trainee {
			continue
		}
		all := 0
		for _, e := range list[0].Message.(*msg.Have).Entries {
			if e.Reason == msg.Held {
				all++
			}
		}
		if all < h.slotCount() {
			n++
		}
	}
	return n
}

func (m *Machine) addVote(h *height, s msg.Signed) {
	v := s.Message.(*msg.Vote)
	if seat := seatOf(h.seats, v.Peer); seat >= 0 && h.accepts(v.Round, v.Head) {
		h.votes[seat] = m.note(h, h.votes[seat], s)
	}
}

// addVotesOf notes the votes of the certificate of h's record that somebody else
// has: what a seat said to others, and not here, shows that it said two things.
func (m *Machine) addVotesOf(h *height, c *msg.Certificate) {
	if h == nil {
		return
	}
	for _, e := range c.Votes {
		if s, err := m.open(e); err == nil {
			m.recall(s)
			m.addVote(h, s)
		}
	}
}

// haveCount counts the haves of witnesses.
func (h *height) haveCount() int {
	n := 0
	for i, list := range h.haves {
		if len(list) > 0 && !h.seats[i].Trainee {
			n++
		}
	}
	return n
}

// firstHaves are the haves that count, by seat.
func (h *height) firstHaves() []msg.Signed {
	var list []msg.Signed
	for _, l := range h.haves {
		if len(l) > 0 {
			list = append(list, l[0])
		}
	}
	return list
}

// votesFor returns the votes of witnesses for a record, by seat.
func (h *height) votesFor(id cid.Cid) []msg.Signed {
	var list []msg.Signed
	for i, l := range h.votes {
		if h.seats[i].Trainee {
			continue
		}
		for _, s := range l {
			if s.Message.(*msg.Vote).Record.Equals(id) {
				list = append(list, s)
				break
			}
		}
	}
	return list
}

// entry is what a have says of the commits of one seat.
func (h *height) entry(seat int) (msg.HaveEntry, bool) {
	if h.results != nil {
		return h.resultEntryOf(seat)
	}
	list := h.commits[seat]
	if len(list) == 0 {
		return msg.HaveEntry{}, false
	}
	e := list[0]
	out := msg.HaveEntry{Seat: uint32(seat), Commit: e.signed.CID, Reason: e.reason}
	switch {
	case len(list) > 1:
		// The same one for everybody who knows both.
		if compareCIDs(list[1].signed.CID, out.Commit) < 0 {
			out.Commit = list[1].signed.CID
		}
		out.Reason = msg.Equivocation
	case !e.decided:
		out.Reason = msg.Timeout
	}
	return out, true
}

func (h *height) held(seat int) bool {
	list := h.commits[seat]
	return len(list) == 1 && list[0].decided && list[0].reason == msg.Held
}

func (h *height) allHeld() bool {
	if h.results != nil {
		return h.allResults()
	}
	for i := range h.seats {
		if !h.held(i) {
			return false
		}
	}
	return true
}

func (h *height) candidate(id cid.Cid) *candidate {
	for _, c := range h.candidates {
		if c.id.Equals(id) {
			return c
		}
	}
	return nil
}

// proposer reports whether a seat may propose in an attempt; in the fallback
// all do, since the witnesses may be gone.
func (h *height) proposer(attempt uint32, seat int) bool {
	return attempt == msg.MaxAttempt || h.order[int(attempt)%len(h.order)] == seat
}

func (h *height) find(id cid.Cid) (msg.Signed, bool) {
	s, ok := h.byCID[id]
	return s, ok
}
