package round

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

// What standings change by; proto/README.md section 6.
const (
	strikeQ8    = 1 << 8 // one damaging delta
	banQ8       = 3 << 8 // strikes that bring a ban
	banRounds   = 200
	fadeShift   = 4 // strikes lose a sixteenth with each round, so half in ten or eleven
	paceShift   = 3 // the pace moves an eighth
	lackShift   = 2 // the lack moves a quarter
	maxPaceUp   = 4 // a delta counts with at most as many times its maker's pace
	minFactor   = 1 << 10
	leastQuorum = 4 // witnesses that there are if so many are trusted, however slow
)

// standings are what is remembered of peers, sorted.
type standings []msg.Standing

func (s standings) find(id peer.ID) (int, bool) {
	return slices.BinarySearchFunc(s, id, func(e msg.Standing, id peer.ID) int { return bytes.Compare([]byte(e.Peer), []byte(id)) })
}

// of returns the standing of a peer, zeros if there is none.
func (s standings) of(id peer.ID) msg.Standing {
	if i, ok := s.find(id); ok {
		return s[i]
	}
	return msg.Standing{Peer: id}
}

// at returns the standing of a peer to be changed.
func (s *standings) at(id peer.ID) *msg.Standing {
	i, ok := s.find(id)
	if !ok {
		*s = slices.Insert(*s, i, msg.Standing{Peer: id})
	}
	return &(*s)[i]
}

// standingsAfter are the parent's, one round later, with what the audits say.
func (ru *Rules) standingsAfter(parent *msg.Record, round msg.Round, list []measured) standings {
	out := standings(slices.Clone(parent.Standings))
	for i := range out {
		e := &out[i]
		e.StrikesQ8 -= (e.StrikesQ8 + 1<<fadeShift - 1) >> fadeShift
		if e.Until != 0 && e.Until <= round {
			e.Until, e.Reason = 0, msg.Held
			e.Owed = max(e.Owed, ru.manifest.Trust.Probation)
		}
	}
	var tokens []uint64
	for _, e := range references(list) {
		tokens = append(tokens, e.tokens)
	}
	bound := uint64(0) // without any, nothing was found useful
	if len(tokens) > 0 {
		bound = 2 * medianOf(tokens)
	}
	for _, m := range list {
		if m.judgement.Verdict != msg.Unaudited {
			ru.settle(out.at(m.maker), m, bound, round)
		}
	}
	return out
}

// settle changes the standing of the maker of a delta by its verdict.
func (ru *Rules) settle(e *msg.Standing, m measured, bound uint64, round msg.Round) {
	worth := uint64(m.judgement.WorthQ16)
	work := min(m.tokens, bound) * worth >> 16
	e.Pace = (e.Pace*(1<<paceShift-1) + work) >> paceShift
	switch {
	case ru.newest() && m.accused && !m.withheld && m.jury == 0:
		// It is by few, and not decided yet: what it is worth all will say of its next one.
	case m.unclear && m.judgement.Verdict != msg.Damaging && !m.accused && !m.withheld:
		e.LackQ16 = ru.faded(*e, m)
	case ru.newer() && worth == 0:
		e.LackQ16 += (fold.One - e.LackQ16) >> noWorthShift
	default:
		e.LackQ16 = (e.LackQ16*(1<<lackShift-1) + fold.One - uint32(worth)) >> lackShift
	}
	e.Work = min(e.Work+work, msg.MaxRunTokens)
	switch m.judgement.Verdict {
	case msg.Useful:
		e.Owed = max(e.Owed, 1) - 1
	case msg.Damaging:
		e.StrikesQ8 += strikeQ8
		e.Owed = min(e.Owed+(e.StrikesQ8+strikeQ8-1)/strikeQ8, msg.MaxOwed)
	case msg.Useless:
		if m.withheld { // it may have gone away: what it sends from now on is retraced
			e.StrikesQ8 += suspectQ8
		} else if m.accused && m.jury == 0 { // all will audit it now
			e.StrikesQ8 += accusedQ8
		}
	}
	if m.open {
		e.StrikesQ8 = max(e.StrikesQ8, openQ8)
	}
	if e.StrikesQ8 >= banQ8 {
		e.StrikesQ8 = 0
		e.Until, e.Reason = max(e.Until, round+1+banRounds), msg.Harmful
	}
}

// faded is a lack after audits that tell nothing.
func (ru *Rules) faded(e msg.Standing, m measured) uint32 {
	lack := e.LackQ16 - e.LackQ16>>fadeLackShift
	switch {
	case !ru.worthless(e):
		return lack
	case ru.newest() && m.sign > 0:
		return e.LackQ16 - signQ16
	case ru.newest() && m.sign < 0:
		return min(e.LackQ16+signQ16, fold.One)
	}
	return max(lack, worthlessQ16)
}

// counts says how the delta of a seat enters the fold: with which factor, with
// how many tokens, and why with none.
func (ru *Rules) counts(s standings, seat msg.Seat, tokens uint64) (factor uint32, counted uint64, reason msg.Reason) {
	e := s.of(seat.Peer)
	counted = tokens
	if e.Pace > 0 {
		counted = min(tokens, maxPaceUp*e.Pace)
	}
	switch {
	case e.Until != 0:
		return fold.FactorFresh, counted, msg.Banned
	case e.Owed > 0 && e.StrikesQ8 > 0:
		return fold.FactorFresh, counted, msg.Harmful
	case e.Owed > 0:
		return fold.FactorFresh, counted, msg.Probation
	case ru.worthless(e):
		return fold.FactorFresh, counted, msg.Worthless
	case seat.Fresh:
		return fold.FactorFresh, counted, msg.Fresh
	}
	return max(min(2*(fold.One-e.LackQ16), fold.FactorFull), minFactor), counted, msg.Held
}

// banned reports whether a peer may not have a seat.
func (s standings) banned(id peer.ID) bool { return s.of(id).Until != 0 }

// remove takes the seats of banned peers away, but for the last one.
func (s standings) remove(seats []msg.Seat) []msg.Seat {
	var out []msg.Seat
	for i, seat := range seats {
		if !s.banned(seat.Peer) || len(out) == 0 && i == len(seats)-1 {
			out = append(out, seat)
		}
	}
	return out
}

// newcomers makes those owe audits that are new, once the run has trained.
func (ru *Rules) newcomers(s *standings, r *msg.Record) {
	if r.TrainedRounds == 0 || ru.manifest.Trust.Probation == 0 {
		return
	}
	for _, seat := range r.NextSeats {
		if _, known := s.find(seat.Peer); !known && seatOf(r.Seats, seat.Peer) < 0 {
			s.at(seat.Peer).Owed = ru.manifest.Trust.Probation
		}
	}
}

// kept are the standings that a record has room for: those of seats, then those
// of who worked most.
func (s standings) kept(seats []msg.Seat) []msg.Standing {
	var out, others []msg.Standing
	for _, e := range s {
		switch {
		case e == (msg.Standing{Peer: e.Peer}):
		case seatOf(seats, e.Peer) >= 0:
			out = append(out, e)
		case e.Work > 0 || e.StrikesQ8 > 0 || e.Until > 0:
			others = append(others, e)
		}
	}
	slices.SortStableFunc(others, func(a, b msg.Standing) int {
		return cmp.Or(cmp.Compare(b.Work, a.Work), cmp.Compare(b.Until, a.Until))
	})
	room := msg.StandingsKept(len(seats))
	if len(seats) <= msg.MaxSeats {
		room -= len(out)
	}
	out = append(out, others[:min(len(others), room)]...)
	slices.SortFunc(out, func(a, b msg.Standing) int { return bytes.Compare([]byte(a.Peer), []byte(b.Peer)) })
	return out
}

// assignWitnesses says which of the next seats only train.
func (ru *Rules) assignWitnesses(s standings, r *msg.Record) {
	for i, may := range ru.mayWitness(s, r) {
		r.NextSeats[i].Trainee = !may
	}
}

// mayWitness says which of the next seats do not only train: all but those that
// owe audits, those whose deltas are worth nothing, and those that work less than
// half as much as the others.
func (ru *Rules) mayWitness(s standings, r *msg.Record) []bool {
	witness := make([]bool, len(r.NextSeats))
	type trusted struct {
		seat int
		pace uint64
	}
	var list []trusted
	var paces []uint64
	for i, seat := range r.NextSeats {
		if e := s.of(seat.Peer); e.Owed == 0 && e.Until == 0 && !ru.worthless(e) {
			list = append(list, trusted{i, e.Pace})
			paces = append(paces, e.Pace)
		}
	}
	if r.TrainedRounds == 0 || ru.manifest.Trust.Auditors == 0 || len(list) == 0 {
		for i := range witness {
			witness[i] = true
		}
		return witness
	}
	half := medianOf(paces) / 2
	slices.SortStableFunc(list, func(a, b trusted) int { return cmp.Compare(b.pace, a.pace) })
	for k, e := range list {
		witness[e.seat] = e.pace >= half || k < leastQuorum
	}
	return witness
}
