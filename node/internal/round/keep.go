package round

import (
	"cmp"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// In a run that keeps seats, who has worked and was away for a few rounds finds its
// seat free, however many strangers ask for one: identities cost nothing, audited
// work does. proto/README.md section 6 has the rules.

// keptPart of the seats are kept, at most: else a run half of which is gone for
// good would stand still at half of its size for long.
const keptPart = 4

// claim is what a peer that asks for a seat has to show for it; the lowest come
// first.
type claim int

const (
	claimLeave  claim = iota // it wants none
	claimKept                // a seat is kept for it
	claimProven              // it has worked, and owes no audits
	claimNone
)

// door says in which order requests take effect, and who gets a seat that is free.
type door struct {
	head      cid.Cid
	seats     int // that there are at most
	keeps     bool
	standings standings
	owners    int // peers for which a seat is kept
	worthless func(msg.Standing) bool
}

func (ru *Rules) newDoor(head cid.Cid, s standings) door {
	d := door{head: head, seats: int(ru.manifest.Seats), keeps: ru.manifest.KeepRounds > 0, standings: s, worthless: ru.worthless}
	for _, e := range s {
		if d.keeps && e.Kept > 0 {
			d.owners++
		}
	}
	return d
}

// proven reports whether a standing shows work and nothing that speaks against it.
func (d *door) proven(e msg.Standing) bool {
	return e.Owed == 0 && e.Work > 0 && e.Until == 0 && !d.worthless(e)
}

func (d *door) claim(id peer.ID) claim {
	if !d.keeps {
		return claimNone
	}
	switch e := d.standings.of(id); {
	case e.Kept > 0:
		return claimKept
	case d.proven(e):
		return claimProven
	}
	return claimNone
}

func (d *door) claimOf(s msg.Signed) claim {
	if d.keeps && s.Message.(*msg.JoinRequest).Leave {
		return claimLeave
	}
	return d.claim(s.From)
}

// inOrder returns the requests, of different peers, in the order in which they
// take effect.
func (d *door) inOrder(requests []msg.Signed) []msg.Signed {
	list := inRankOrder(d.head, requests)
	slices.SortStableFunc(list, func(a, b msg.Signed) int { return cmp.Compare(d.claimOf(a), d.claimOf(b)) })
	return list
}

// kept is how many seats are kept, so many that have none.
func (d *door) kept() int { return min(d.owners, max(d.seats/keptPart, 1)) }

// free is how many seats a peer with a claim finds free where so many are taken.
func (d *door) free(c claim, taken int) int {
	if c == claimKept {
		return d.seats - taken
	}
	return d.seats - taken - d.kept()
}

// entered notes that a peer got a seat.
func (d *door) entered(id peer.ID) {
	if d.claim(id) == claimKept {
		d.owners--
	}
}

// keep notes for whom seats are kept after a round: those that have worked, and
// lose theirs for being absent. A fresh seat is not kept: since it came back its
// peer has not contributed.
func (ru *Rules) keep(s *standings, r *msg.Record, stay []msg.Seat) {
	if ru.manifest.KeepRounds == 0 {
		return
	}
	d := ru.newDoor(r.Parent, *s)
	for _, seat := range r.Seats {
		if e := s.of(seat.Peer); !seat.Fresh && d.proven(e) && seatOf(stay, seat.Peer) < 0 {
			s.at(seat.Peer).Kept = r.Round + msg.Round(ru.manifest.KeepRounds)
		}
	}
	for i := range *s { // what its audits said of the last one that it sent
		if e := &(*s)[i]; e.Kept > 0 && !d.proven(*e) {
			e.Kept = 0
		}
	}
}

// release ends the time for which seats are kept.
func (s standings) release(r *msg.Record) {
	for i := range s {
		if e := &s[i]; e.Kept > 0 && (e.Kept <= r.Round || seatOf(r.NextSeats, e.Peer) >= 0) {
			e.Kept = 0
		}
	}
}

// doorOf is the door of the round under way, as far as can be told before it is
// decided: seats that are about to go are kept, too.
func (m *Machine) doorOf(h *height) door {
	d := m.rules.newDoor(h.parent.ID, h.parent.Record.Standings)
	for i, s := range h.seats {
		if d.keeps && h.goes(i) && !s.Fresh && d.proven(d.standings.of(s.Peer)) {
			d.owners++
		}
	}
	return d
}

// goes reports whether a seat is about to go, since its peer is absent.
func (h *height) goes(i int) bool {
	return h.seats[i].Missed == msg.MaxMissed && len(h.haves[i]) == 0
}

// taken is how many seats stay, as far as can be told.
func (h *height) taken() int {
	n := len(h.seats)
	for i := range h.seats {
		if h.goes(i) {
			n--
		}
	}
	return n
}

// works reports whether a peer has worked for the run, and owes no audits.
func (m *Machine) works(id peer.ID) bool {
	d := door{worthless: m.rules.worthless}
	return d.proven(standings(m.head.Record.Standings).of(id))
}
