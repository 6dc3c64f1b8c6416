package round

import (
	"cmp"
	"crypto/sha256"
	"math/bits"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// In a run that is full, some seats go to peers that wait, now and then;
// proto/README.md section 6 has the rules.
const (
	rotationDomain = "moot rotation 1"
	rotatedPart    = 4 // a quarter of the seats at a time, at most
	unprovenPart   = 8 // an eighth of them for peers that owe audits
	unprovenShare  = 4 // whose weight is a quarter of the median
)

// rotates reports whether seats rotate in the record of a round.
func (ru *Rules) rotates(round msg.Round, trained uint64) bool {
	every := msg.Round(ru.manifest.RotateRounds)
	return every > 0 && trained > 0 && round%every == 0
}

// contender is who has a seat, or waits for one, and its ticket: the lowest
// ones win.
type contender struct {
	peer   peer.ID
	proven bool
	ticket uint64
	key    [sha256.Size]byte
}

func (c contender) compare(d contender) int {
	return cmp.Or(cmp.Compare(c.ticket, d.ticket), slices.Compare(c.key[:], d.key[:]))
}

// contend draws a ticket. Among many of one weight each wins as often, and who
// has twice the weight wins about twice as often: with u drawn from 0 to 1,
// tickets are -log2(u) / weight.
func contend(head cid.Cid, id peer.ID, weight uint64, proven bool) contender {
	c := contender{peer: id, proven: proven}
	c.key = sha256.Sum256(append(append([]byte(rotationDomain), head.Bytes()...), id...))
	var u uint64
	for _, b := range c.key[:8] {
		u = u<<8 | uint64(b)
	}
	u |= 1
	whole := bits.Len64(u) - 1
	log := uint64(whole)<<16 | u<<(63-whole)<<1>>48 // log2 of u in Q16, straight between powers of two
	hi, lo := bits.Mul64(64<<16-log, 1<<40)
	c.ticket, _ = bits.Div64(hi, lo, max(weight, hi+1))
	return c
}

// rotation weighs contenders by their audited work: the pace, up to twice the
// median of those with a seat.
type rotation struct {
	head      cid.Cid
	standings standings
	median    uint64
	audited   bool
	kept      int // seats that are empty, and not free
}

func (ru *Rules) newRotation(head cid.Cid, s standings, seats []msg.Seat) rotation {
	r := rotation{head: head, standings: s, audited: ru.manifest.Trust.Auditors > 0}
	var paces []uint64
	for _, seat := range seats {
		paces = append(paces, s.of(seat.Peer).Pace)
	}
	if len(paces) > 0 {
		r.median = medianOf(paces)
	}
	return r
}

func (r rotation) of(id peer.ID) contender {
	e := r.standings.of(id)
	proven := !r.audited || e.Owed == 0 && e.Work > 0
	// The weight of the usual seat is 2^20, so that a ticket has bits to differ in.
	weight := uint64(1 << 20)
	switch {
	case !r.audited || r.median == 0:
	case !proven:
		weight /= unprovenShare
	default:
		hi, lo := bits.Mul64(min(e.Pace, 2*r.median), 1<<20)
		weight, _ = bits.Div64(hi, lo, max(r.median, hi+1))
	}
	return contend(r.head, id, max(weight, 1), proven)
}

// rotate gives seats of a full run to peers that wait. It returns the seats and
// the requests that took effect.
func (ru *Rules) rotate(r rotation, seats []msg.Seat, waiting []msg.Signed, newcomer msg.Seat) ([]msg.Seat, []msg.Signed) {
	if len(seats)+r.kept < int(ru.manifest.Seats) {
		return seats, nil
	}
	var holders, askers []contender
	unproven := 0
	for _, s := range seats {
		c := r.of(s.Peer)
		late := s.Since == newcomer.Since // it was let in a moment ago
		switch {
		case late && !ru.newer():
		case !c.proven:
			unproven++ // it is to be proven first
		case !late:
			holders = append(holders, c)
		}
	}
	requests := make(map[peer.ID]msg.Signed)
	for _, s := range waiting {
		requests[s.From] = s
		askers = append(askers, r.of(s.From))
	}
	slices.SortFunc(holders, func(a, b contender) int { return b.compare(a) }) // the highest ticket goes first
	slices.SortFunc(askers, contender.compare)
	places := max(int(ru.manifest.Seats)/rotatedPart, 1)
	forUnproven := max(int(ru.manifest.Seats)/unprovenPart, 1)
	seats = slices.Clone(seats)
	var effective []msg.Signed
	for _, a := range askers {
		if len(effective) == places || len(holders) == 0 || a.compare(holders[0]) >= 0 {
			break
		}
		if !a.proven {
			if unproven >= forUnproven {
				continue
			}
			unproven++
		}
		i := seatOf(seats, holders[0].peer)
		seats, holders = slices.Delete(seats, i, i+1), holders[1:]
		newcomer.Peer = a.peer
		seats = insertSeat(seats, newcomer)
		effective = append(effective, requests[a.peer])
	}
	return seats, effective
}

// waitingOf are the requests of peers that have no seat.
func waitingOf(seats []msg.Seat, requests []msg.Signed) []msg.Signed {
	return slices.DeleteFunc(newestOfEach(requests), func(s msg.Signed) bool {
		return s.Message.(*msg.JoinRequest).Leave || seatOf(seats, s.From) >= 0
	})
}

// rotationOf is the rotation of the round under way, as far as can be told
// before its verdicts; not ok if there is none.
func (m *Machine) rotationOf(h *height) (rotation, bool) {
	p := h.parent.Record
	d := m.rules.newDoor(h.parent.ID, p.Standings)
	if !m.rules.rotates(h.round, p.TrainedRounds) || d.free(claimNone, len(h.seats)) > 0 {
		return rotation{}, false
	}
	return m.rules.newRotation(h.parent.ID, p.Standings, h.seats), true
}

// rotationWins reports whether an own request may win a seat of those that
// rotate.
func (m *Machine) rotationWins(h *height) bool {
	r, ok := m.rotationOf(h)
	if !ok {
		return false
	}
	own := r.of(m.cfg.Self)
	ahead := 0
	for _, id := range m.joins.peers {
		if id != m.cfg.Self && seatOf(h.seats, id) < 0 && !m.joins.byPeer[id].Message.(*msg.JoinRequest).Leave && r.of(id).compare(own) < 0 {
			ahead++
		}
	}
	loses := func(s msg.Seat) bool { return own.compare(r.of(s.Peer)) < 0 }
	return ahead < max(int(m.cfg.Manifest.Seats)/rotatedPart, 1)+spareRequests && slices.ContainsFunc(h.seats, loses)
}

// rotationJoins are the requests that a have lists for a rotation: those with
// the lowest tickets.
func (m *Machine) rotationJoins(h *height, requests []msg.Signed) []cid.Cid {
	r, ok := m.rotationOf(h)
	if !ok {
		return nil
	}
	type asking struct {
		contender
		id cid.Cid
	}
	var list []asking
	for _, s := range waitingOf(h.seats, requests) {
		list = append(list, asking{r.of(s.From), s.CID})
	}
	slices.SortFunc(list, func(a, b asking) int { return a.compare(b.contender) })
	var ids []cid.Cid
	for _, a := range list[:min(len(list), msg.MaxJoins/2)] {
		ids = append(ids, a.id)
	}
	return ids
}
