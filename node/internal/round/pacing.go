package round

import (
	"crypto/sha256"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// What peers say that nobody waits for is bounded by the round, not by how many
// they are: each message reaches everybody, and each peer pays for all.
const (
	heartbeatsPerPeriod = 32 // of all whose heartbeats are passed on
	quietDivisor        = 4  // heartbeats in a period of a peer that only its neighbours hear
	// oneCell is up to how many seats all hear all.
	oneCell = 48
	// fewMembers is up to how many peers the heartbeats of all are passed on.
	fewMembers = 32
	// commitPatience is how much rarer than other messages a commit is
	// published again as long as nobody gives haves.
	commitPatience = 2
	restPatience   = 4 // of how much rarer all becomes
	maxPatience    = 16
	spareRequests  = 2 // more than there are seats for: their peers may have gone
	// eager is how often other messages are published again before that becomes
	// rarer: with them a round stands or falls.
	eager = 5
)

// audible reports whether the heartbeats of a peer are passed on to everybody:
// those of seats; with more seats than one cell has, of witnesses; and of all
// as long as there are few peers. Who is not heard by all is heard by those who
// are connected to it.
func audible(seats []msg.Seat, id peer.ID, members int) bool {
	if members < fewMembers {
		return true
	}
	i := seatOf(seats, id)
	return i >= 0 && (len(seats) <= oneCell || !seats[i].Trainee)
}

func (m *Machine) audible(id peer.ID) bool {
	return audible(m.head.Record.NextSeats, id, len(m.members.peers))
}

// PassesOn reports whether a message is of use to others: heartbeats of peers
// that all should hear, and what is not of a round that was certified.
func (m *Machine) PassesOn(s msg.Signed) bool { return passesOn(m.head, len(m.members.peers), s) }

// PassesOn is what Machine.PassesOn says, for who has only the view.
func (v *View) PassesOn(s msg.Signed) bool { return passesOn(v.Head, len(v.Members), s) }

func passesOn(head Link, members int, s msg.Signed) bool {
	switch s.Message.(type) {
	case *msg.Status:
		return audible(head.Record.NextSeats, s.From, members)
	case *msg.Invite, *msg.Pledge:
		return false // they are parts of other messages
	}
	at, round, ok := headOf(s.Message)
	if p, is := s.Message.(*msg.Proposal); is {
		round, ok = p.Round, true
	}
	if _, commit := s.Message.(*msg.Commit); ofCell(s.Message) > 0 || commit && at.Equals(head.ID) && Cells(len(head.Record.NextSeats)) > 0 {
		return false // it is for the seats of a cell, who are told by its author
	}
	return !ok || round > head.Record.Round || round == head.Record.Round && head.Certificate == nil
}

// heartbeatEvery is how often a peer says where it is: all that everybody hears
// share what there is for a period.
func (m *Machine) heartbeatEvery(id peer.ID) time.Duration {
	period := m.timing.Deadline
	if !m.audible(id) {
		return max(m.timing.Status, period/quietDivisor)
	}
	n := len(m.head.Record.NextSeats)
	if n > oneCell {
		n = Witnesses(m.head.Record.NextSeats)
	}
	if few := len(m.members.peers) + 1; few <= fewMembers {
		n = max(n, few)
	}
	return max(m.timing.Status, time.Duration(n)*period/heartbeatsPerPeriod)
}

// Silent is after which time a peer that is not heard of seems to be gone.
func (m *Machine) silent(id peer.ID) time.Duration { return 4 * m.heartbeatEvery(id) }

// heartbeatSoon moves the next heartbeat of a peer with a new head to its turn
// among all that have one.
func (m *Machine) heartbeatSoon() {
	every := m.heartbeatEvery(m.cfg.Self)
	if !m.audible(m.cfg.Self) {
		return
	}
	if every <= m.timing.Status {
		m.statusAt = m.now
		return
	}
	turn := m.now.Add(part(every, m.head.ID, m.cfg.Self))
	if latest := m.saidStatus.Add(2 * every); turn.After(latest) {
		turn = latest
	}
	m.statusAt = turn
}

// part is a part of d that a head and a peer draw.
func part(d time.Duration, head cid.Cid, id peer.ID) time.Duration {
	h := sha256.Sum256(append(append([]byte("moot turn 1"), head.Bytes()...), id...))
	return fraction(d, h)
}

// fraction is d times the first bits of a hash.
func fraction(d time.Duration, h [sha256.Size]byte) time.Duration {
	return d >> 16 * (time.Duration(h[0])<<8 | time.Duration(h[1]))
}

// repetition is when an own message of the round is published again.
type repetition struct {
	id   cid.Cid
	at   time.Time
	wait time.Duration
	most time.Duration
	left int  // times that are left before it becomes rarer
	due  bool // of a commit: others wait for it with their haves
}

// repetitionOf returns that of s, which begins when it is asked for first.
func (m *Machine) repetitionOf(s msg.Signed) *repetition {
	i := slices.IndexFunc(m.repeats, func(r repetition) bool { return r.id.Equals(s.CID) })
	if i < 0 {
		r := repetition{id: s.CID, wait: m.timing.Repeat, most: restPatience * m.timing.Repeat, left: eager}
		if _, ok := s.Message.(*msg.Commit); ok {
			r.wait, r.most, r.left = commitPatience*m.timing.Repeat, maxPatience*m.timing.Repeat, 0
		}
		r.at = m.now.Add(r.wait)
		m.repeats = append(m.repeats, r)
		i = len(m.repeats) - 1
	}
	return &m.repeats[i]
}

// repeat publishes again what belongs to the round and is not known to have
// been heard, ever more rarely.
func (m *Machine) repeat() {
	if m.cur == nil {
		return
	}
	for _, h := range []*height{m.cur, m.cur.sub} {
		if h == nil {
			continue
		}
		for _, s := range m.own.at(h.slot()).all() {
			m.repeatIn(h, s)
		}
	}
}

// ownOf is what Self signed for a round, in its cell and for all.
func (m *Machine) ownOf(h *height) []msg.Signed {
	list := m.own.at(h.slot()).all()
	if h.sub != nil {
		list = append(list, m.own.at(h.sub.slot()).all()...)
	}
	return list
}

func (m *Machine) repeatIn(h *height, s msg.Signed) {
	r := m.repetitionOf(s)
	_, commit := s.Message.(*msg.Commit)
	if commit && h.sub != nil {
		h = h.sub // what its seats do says whether it was heard
	}
	if commit && !r.due && !h.t0.IsZero() {
		r.due, r.left, r.wait, r.most = true, eager, m.timing.Repeat, restPatience*m.timing.Repeat
		if soon := m.now.Add(r.wait); soon.Before(r.at) {
			r.at = soon
		}
	}
	if m.now.Before(r.at) {
		return
	}
	if !h.heard(s) {
		m.emit(Publish{s})
	}
	if r.left--; r.left < 0 {
		r.wait = min(2*r.wait, r.most)
	}
	r.at = m.now.Add(r.wait)
}

// heard reports whether others show that they have an own message: as many as
// matter.
func (h *height) heard(s msg.Signed) bool {
	switch v := s.Message.(type) {
	case *msg.Commit:
		// Who gave no have yet may wait for it.
		return h.haveCount() == Witnesses(h.seats) || len(h.candidates) > 0
	case *msg.Have:
		// Whoever proposes now has it from that proposal.
		for _, c := range h.candidates {
			if slices.ContainsFunc(c.record.Haves, func(b []byte) bool { return msg.RawCID(b).Equals(s.CID) }) {
				return true
			}
		}
	case *msg.Vote:
		return len(h.votesFor(v.Record)) >= h.q
	case *msg.Proposal:
		for _, c := range h.candidates {
			if c.encoded.Equals(msg.RawCID(v.Record)) {
				return len(h.votesFor(c.id)) >= h.q
			}
		}
	}
	return false
}

// wishSoon lets a request that nobody was told of yet have its turn with a new
// head: those that take effect first are published first.
func (m *Machine) wishSoon() {
	if m.wish == nil || m.wishSaid {
		return
	}
	m.wishAt = m.now.Add(fraction(min(m.timing.Train/4, restPatience*m.timing.Repeat), rank(m.head.ID, m.cfg.Self)))
}

// publishWish publishes the own request if that is of use. One for the seat that Self has
// takes a leave back.
func (m *Machine) publishWish() {
	if !m.wish.Message.(*msg.JoinRequest).Leave && m.cur.self < 0 && !m.wins(m.cur) {
		return
	}
	m.emit(Publish{*m.wish})
	m.wishSaid, m.wishWait = true, min(2*m.wishWait, maxPatience*m.timing.Repeat)
}

// wins reports whether an own request for a seat may have an effect in this
// round, as far as is known: those take effect first that the head and what they
// have worked put first, so the others need not be published.
func (m *Machine) wins(h *height) bool {
	d := m.doorOf(h)
	own, claim := rank(h.parent.ID, m.cfg.Self), d.claim(m.cfg.Self)
	ahead := 0
	for _, id := range m.joins.peers {
		if id == m.cfg.Self || m.joins.byPeer[id].Message.(*msg.JoinRequest).Leave || seatOf(h.seats, id) >= 0 {
			continue
		}
		r := rank(h.parent.ID, id)
		// Whoever a seat is kept for takes none from others, up to a quarter of the seats.
		if c := d.claim(id); c == claim && string(r[:]) < string(own[:]) || c < claim && c != claimKept {
			ahead++
		}
	}
	room := d.free(claim, h.taken())
	return room > 0 && ahead < room+spareRequests || m.rotationWins(h)
}
