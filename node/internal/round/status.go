package round

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// aboutSelf is what a heartbeat tells people.
type aboutSelf struct {
	agent, device     string
	tokensPerSecMilli uint64
}

// SetStatus sets what Self's heartbeats tell people: program and version, what
// it trains on, and how fast. What is not of form is left out.
func (m *Machine) SetStatus(agent, device string, tokensPerSecMilli uint64) {
	m.about = aboutSelf{agent, device, tokensPerSecMilli}
}

// heartbeat publishes a status when it is time.
func (m *Machine) heartbeat() {
	if m.now.Before(m.statusAt) {
		return
	}
	m.members.forget(m)
	m.saidStatus, m.statusAt = m.now, m.now.Add(m.heartbeatEvery(m.cfg.Self))
	m.statusSeq = max(m.millis(), m.statusSeq+1)
	v := &msg.Status{
		Run: m.rules.run, Peer: m.cfg.Self, Seq: m.statusSeq,
		Head: m.head.ID, Round: m.head.Record.Round + 1, Certified: m.head.Certified, Tokens: m.head.Record.Tokens,
		Phase: m.phase(), TokensPerSecMilli: m.about.tokensPerSecMilli, Agent: m.about.agent, Device: m.about.device,
	}
	v.Lost = m.lostHead()
	if v.Validate() != nil {
		v.Agent, v.Device, v.TokensPerSecMilli = "", "", 0
	}
	if s, err := m.cfg.Sign(v); err == nil {
		m.emit(Publish{s})
	}
}

func (m *Machine) phase() msg.Phase {
	h := m.cur
	switch {
	case h == nil:
		return msg.PhaseDone
	case h.assembly && (h.self >= 0 || m.want == wantSeat):
		return msg.PhaseAssembly
	case h.self < 0:
		return msg.PhaseIdle
	case !h.t0.IsZero():
		return msg.PhaseVote
	case m.training:
		return msg.PhaseTrain
	}
	return msg.PhaseExchange
}

const maxMembers = 1024

// members are the newest heartbeats.
type members struct {
	byPeer map[peer.ID]*member
	peers  []peer.ID // of byPeer, the least recently heard of first
}

type member struct {
	status *msg.Status
	seen   time.Time
	// since is when it was first seen at its head.
	since time.Time
	// askAt is when it may be asked again, and wait how long that was put off.
	askAt time.Time
	wait  time.Duration
}

func newMembers() members { return members{byPeer: make(map[peer.ID]*member)} }

func (p *members) add(m *Machine, s *msg.Status) {
	if s.Peer == m.cfg.Self {
		return
	}
	e := p.byPeer[s.Peer]
	switch {
	case e == nil:
		if len(p.peers) == maxMembers {
			p.evict(m)
		}
		e = &member{since: m.now}
		p.byPeer[s.Peer] = e
	case s.Seq <= e.status.Seq:
		return
	default:
		p.peers = slices.DeleteFunc(p.peers, func(id peer.ID) bool { return id == s.Peer })
		if !s.Head.Equals(e.status.Head) {
			e.since = m.now
		}
	}
	p.peers = append(p.peers, s.Peer)
	e.status, e.seen = s, m.now
}

// evict removes the peer that was not heard of for the longest time, one
// without a seat if there is one.
func (p *members) evict(m *Machine) {
	i := slices.IndexFunc(p.peers, func(id peer.ID) bool { return seatOf(m.head.Record.NextSeats, id) < 0 })
	i = max(i, 0)
	delete(p.byPeer, p.peers[i])
	p.peers = slices.Delete(p.peers, i, i+1)
}

// forget drops peers that seem to be gone for long.
func (p *members) forget(m *Machine) {
	p.peers = slices.DeleteFunc(p.peers, func(id peer.ID) bool {
		gone := m.now.After(p.byPeer[id].seen.Add(2 * m.silent(id)))
		if gone {
			delete(p.byPeer, id)
		}
		return gone
	})
}

const maxBackoff = 16

// asked makes the next question to a peer wait longer, as long as no answer was
// of use.
func (p *members) asked(m *Machine, id peer.ID) {
	if e := p.byPeer[id]; e != nil {
		e.wait = min(max(2*e.wait, m.timing.Status), maxBackoff*m.timing.Status)
		e.askAt = m.now.Add(e.wait)
	}
}

func (p *members) useful(m *Machine, id peer.ID) {
	if e := p.byPeer[id]; e != nil {
		e.wait, e.askAt = 0, m.now
	}
}

// askDue is when a peer at a head that we do not have should be asked for it;
// zero: never. One that is just one record further, which we are about to reach
// ourselves, is left alone for a while.
func (m *Machine) askDue(e *member) time.Time {
	if e.status.Head == m.head.ID || m.chain.has(e.status.Head) || m.now.After(e.seen.Add(m.silent(e.status.Peer))) {
		return time.Time{}
	}
	due := e.since
	if m.cur != nil && e.status.Round == m.cur.round+1 {
		due = due.Add(m.timing.Attempt)
	}
	if due.Before(e.askAt) {
		due = e.askAt
	}
	return due
}

// synchronize asks one peer for the records after ours if there seem to be any.
func (m *Machine) synchronize() {
	if m.now.Before(m.syncBefore) {
		return
	}
	for _, h := range []*height{m.cur, m.prev} {
		if h != nil && h.closed && m.head.Certificate != nil {
			continue
		}
		if s, ok := m.lackingRecord(h); ok {
			m.askPeer(s.From)
			return
		}
	}
	if m.askLost() {
		return
	}
	if e := m.mostPromising(); e != nil {
		m.askPeer(e.status.Peer)
	}
}

// mostPromising is whom to ask for the records after ours. What peers say of their
// heads costs nothing, nor do identities: those that were asked in vain come after
// the others, and after somebody without a seat comes one that has one.
func (m *Machine) mostPromising() *member {
	var best, seated *member
	for _, id := range m.members.peers {
		e := m.members.byPeer[id]
		if due := m.askDue(e); due.IsZero() || m.now.Before(due) {
			continue
		}
		if best == nil || compareMembers(e, best) < 0 {
			best = e
		}
		if seatOf(m.head.Record.NextSeats, id) >= 0 && (seated == nil || compareMembers(e, seated) < 0) {
			seated = e
		}
	}
	if m.askedStranger && seated != nil {
		best = seated
	}
	if best != nil {
		m.askedStranger = best != seated
	}
	return best
}

func compareMembers(a, b *member) int {
	return cmp.Or(cmp.Compare(a.wait, b.wait), compareStatus(a.status, b.status))
}

// compareStatus orders heads by the fork choice, as far as their peers say.
func compareStatus(a, b *msg.Status) int {
	if c := cmp.Or(cmp.Compare(b.Certified, a.Certified), cmp.Compare(b.Tokens, a.Tokens), compareCIDs(a.Head, b.Head)); c != 0 {
		return c
	}
	return cmp.Compare(a.Peer, b.Peer)
}

func (m *Machine) askPeer(id peer.ID) {
	m.emit(Sync{From: id, After: m.partialOf(id)})
	m.syncBefore = m.now.Add(m.timing.Status)
	m.members.asked(m, id)
}

// seatsAhead counts the other seats of the round that are in a later one, on a
// head that we do not have.
func (m *Machine) seatsAhead(h *height) int {
	n := 0
	for _, s := range h.seats {
		e := m.members.byPeer[s.Peer]
		if e != nil && !s.Trainee && e.status.Round > h.round && !m.chain.has(e.status.Head) {
			n++
		}
	}
	return n
}
