package round

import (
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

const (
	maxRequests = 256  // peers whose join request is kept
	maxEffects  = 1024 // peers whose last effective request is remembered

	// For how many rounds a request has an effect where it says so. A leave should have
	// it in the next one, and is what costs its peer a seat if somebody says it again.
	joinRounds  = 16
	leaveRounds = 4
)

// joinPool keeps the newest join request of each peer.
type joinPool struct {
	byPeer map[peer.ID]msg.Signed
	peers  []peer.ID // of byPeer, the least recently heard of first
	// took is the highest Seq of a peer that took effect. Older requests are
	// dropped, else a dead peer would be seated again by its own old one.
	took      map[peer.ID]uint64
	tookPeers []peer.ID // oldest first
	changes   int       // of what all returns
	// known, if not nil, says whose requests stay when there are too many.
	known func(peer.ID) bool
}

func newJoinPool() joinPool {
	return joinPool{byPeer: make(map[peer.ID]msg.Signed), took: make(map[peer.ID]uint64)}
}

func (p *joinPool) add(s msg.Signed) {
	seq := s.Message.(*msg.JoinRequest).Seq
	if took, ok := p.took[s.From]; ok && seq <= took {
		return
	}
	old, ok := p.byPeer[s.From]
	if !ok && len(p.peers) == maxRequests && !p.makeRoom(s.From) {
		return
	}
	if !ok || !old.CID.Equals(s.CID) {
		p.changes++
	}
	if ok {
		p.peers = slices.DeleteFunc(p.peers, func(id peer.ID) bool { return id == s.From })
		was := old.Message.(*msg.JoinRequest).Seq
		if was > seq || was == seq && compareCIDs(old.CID, s.CID) <= 0 {
			s = old
		}
	}
	p.byPeer[s.From] = s
	p.peers = append(p.peers, s.From)
}

// makeRoom drops a request: of peers that are not known the least recently heard
// of, if there are any. One of such a peer does not take the place of others.
func (p *joinPool) makeRoom(from peer.ID) bool {
	known := func(id peer.ID) bool { return p.known != nil && p.known(id) }
	i := slices.IndexFunc(p.peers, func(id peer.ID) bool { return !known(id) })
	if i < 0 && !known(from) {
		return false
	}
	i = max(i, 0)
	delete(p.byPeer, p.peers[i])
	p.peers = slices.Delete(p.peers, i, i+1)
	return true
}

// has reports whether there is a request of a peer.
func (p *joinPool) has(id peer.ID) bool {
	_, ok := p.byPeer[id]
	return ok
}

// effect notes that a request took effect.
func (p *joinPool) effect(s msg.Signed) {
	seq := s.Message.(*msg.JoinRequest).Seq
	if _, ok := p.took[s.From]; !ok {
		p.tookPeers = append(p.tookPeers, s.From)
		if len(p.tookPeers) > maxEffects {
			delete(p.took, p.tookPeers[0])
			p.tookPeers = p.tookPeers[1:]
		}
	}
	p.took[s.From] = max(p.took[s.From], seq)
	if old, ok := p.byPeer[s.From]; ok && old.Message.(*msg.JoinRequest).Seq <= seq {
		p.changes++
		delete(p.byPeer, s.From)
		p.peers = slices.DeleteFunc(p.peers, func(id peer.ID) bool { return id == s.From })
	}
}

// expire drops the requests that have no effect any more in a round.
func (p *joinPool) expire(round msg.Round) {
	n := len(p.peers)
	p.peers = slices.DeleteFunc(p.peers, func(id peer.ID) bool {
		until := p.byPeer[id].Message.(*msg.JoinRequest).Until
		if until == 0 || until >= round {
			return false
		}
		delete(p.byPeer, id)
		return true
	})
	if len(p.peers) < n {
		p.changes++
	}
}

// all returns the requests, the least recently heard of first.
func (p *joinPool) all() []msg.Signed {
	list := make([]msg.Signed, len(p.peers))
	for i, id := range p.peers {
		list[i] = p.byPeer[id]
	}
	return list
}

func (p *joinPool) find(id cid.Cid) (msg.Signed, bool) {
	for _, from := range p.peers {
		if s := p.byPeer[from]; s.CID.Equals(id) {
			return s, true
		}
	}
	return msg.Signed{}, false
}

// useful returns the requests that would have an effect in this round, as far
// as can be told, and the seats after it. A seat that is about to go for being
// absent makes room.
func (m *Machine) useful(h *height) (joins []cid.Cid, seats []msg.Seat) {
	stay := slices.Clone(h.seats)
	var requests []msg.Signed
	for _, s := range m.joins.all() {
		seated := seatOf(h.seats, s.From) >= 0
		if leave := s.Message.(*msg.JoinRequest).Leave; leave == seated && (!leave || len(h.seats) > 1) {
			requests = append(requests, s)
		}
	}
	d := m.doorOf(h)
	requests = m.fitting(h, d, requests)
	if len(requests) == 0 {
		return nil, stay
	}
	taken := h.taken()
	for _, s := range d.inOrder(requests) {
		leave := s.Message.(*msg.JoinRequest).Leave
		if leave {
			taken--
		}
		if (leave || d.free(d.claim(s.From), taken) > 0) && len(joins) < msg.MaxJoins {
			joins = append(joins, s.CID)
		}
	}
	for _, id := range m.rotationJoins(h, requests) {
		if len(joins) < msg.MaxJoins && !slices.ContainsFunc(joins, id.Equals) {
			joins = append(joins, id)
		}
	}
	slices.SortFunc(joins, compareCIDs)
	seats, _ = admit(&d, stay, requests, msg.Seat{Since: h.round + 1})
	return joins, seats
}

// request keeps Self's wish for a seat in front of the others.
func (m *Machine) request() {
	if m.cur == nil || m.want == wantUnknown {
		return
	}
	if m.wish != nil && m.fades(m.wish.Message.(*msg.JoinRequest)) {
		m.wish = nil // and ask again, if that is still wanted
	}
	seated := m.cur.self >= 0
	asks := m.wish != nil && !m.wish.Message.(*msg.JoinRequest).Leave
	leaves := m.wish != nil && !asks
	switch {
	case m.want == wantSeat && !seated && !asks:
		m.ask(false)
	case m.want == wantSeat && seated && leaves:
		m.ask(false) // takes the leave back
	case m.want == wantNone && (seated || asks) && !leaves:
		m.ask(true)
	case m.wish != nil && (seated == leaves || seated && m.rules.manifest.DatedRequests) && !m.now.Before(m.wishAt):
		// If seated and not to leave, one that takes a leave back: it may be lost, and ends by fades.
		m.publishWish()
		m.joins.add(*m.wish)
		m.wishAt = m.now.Add(m.wishWait)
	}
}

// fades reports whether a request will soon be, or is, without effect.
func (m *Machine) fades(j *msg.JoinRequest) bool { return j.Until > 0 && j.Until <= m.cur.round }

func (m *Machine) ask(leave bool) {
	seq := max(m.millis(), m.lastSeq+1)
	v := &msg.JoinRequest{Run: m.rules.run, Peer: m.cfg.Self, Seq: seq, Leave: leave}
	if c := m.cfg.Credentials; !leave {
		v.Invite, v.Proof, v.Nonce = c.Invite, c.Proof, c.Nonce
	}
	if m.rules.manifest.DatedRequests {
		v.Until = min(m.cur.round+joinRounds, msg.MaxRound)
		if leave {
			v.Until = min(m.cur.round+leaveRounds, msg.MaxRound)
		}
	}
	s, err := m.cfg.Sign(v)
	if err != nil {
		return
	}
	m.emit(Store{s})
	m.lastSeq, m.wish, m.wishSaid, m.wishAt, m.wishWait = seq, &s, false, m.now.Add(m.timing.Repeat), m.timing.Repeat
	m.publishWish()
	m.joins.add(s)
}

// millis is the time as sequence numbers have it.
func (m *Machine) millis() uint64 { return uint64(max(m.now.UnixMilli(), 1)) }

// recallJoins notes which requests took effect, in the last records and in those that
// gave the seats there are: else who says old ones again, to nodes that were restarted, takes a
// peer's seat away, by a leave after which it came back, or gives one to who is gone. A leave that was
// taken back before it took effect is in no record, nor is a request of who went long ago; in runs
// whose requests are dated they are void after some rounds.
func (m *Machine) recallJoins() {
	var rounds []msg.Round
	for _, s := range m.head.Record.NextSeats {
		// Also of late: after a jump the records before the head are not all there.
		if s.Since > 1 && m.cfg.At != nil {
			rounds = append(rounds, s.Since-1)
		}
	}
	slices.Sort(rounds)
	for _, r := range slices.Compact(rounds) {
		if l, ok := m.cfg.At(r); ok {
			m.tookEffect(l.Record)
		}
	}
	last := []Link{m.head}
	for l := m.head; len(last) < rememberDeltas && l.Record.Round > 0; last = append(last, l) {
		var ok bool
		if l, ok = m.cfg.Chain.Link(l.Record.Parent); !ok {
			break
		}
	}
	for _, l := range slices.Backward(last) {
		m.tookEffect(l.Record)
	}
}

// tookEffect notes the join requests of a record that was adopted.
func (m *Machine) tookEffect(r *msg.Record) {
	for _, e := range r.Joins {
		s, err := m.open(e)
		if err != nil {
			continue // checked before
		}
		if _, ok := s.Message.(*msg.JoinRequest); !ok {
			continue
		}
		m.joins.effect(s)
		if m.wish != nil && s.From == m.cfg.Self && s.Message.(*msg.JoinRequest).Seq >= m.wish.Message.(*msg.JoinRequest).Seq {
			m.wish = nil
		}
	}
}
