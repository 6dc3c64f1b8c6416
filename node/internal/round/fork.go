package round

import (
	"cmp"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// maxForks is for how many records, that are one of several on one parent, it
// is remembered who built on them.
const maxForks = 64

// forkBook remembers who supports the records at which chains part: the
// witnesses of that round that signed for a head after the record, in any chain
// that was seen. It only grows, so what was chosen once for more support is not
// left again for a part of it.
//
// One seat can make a chain as long as it likes; it cannot make others sign for
// its records. So support is counted in witnesses, and never in records.
type forkBook struct {
	supporters map[cid.Cid][]peer.ID // sorted
	order      []cid.Cid             // oldest first
}

// note takes the support of the chain links, which begins after ancestor, for
// its first record, and returns all that is known of it.
func (b *forkBook) note(ancestor Link, links []Link) int {
	id := links[0].ID
	if b.supporters == nil {
		b.supporters = make(map[cid.Cid][]peer.ID)
	}
	list, known := b.supporters[id]
	for _, w := range ancestor.Record.NextSeats {
		if w.Trainee {
			continue
		}
		at, found := slices.BinarySearch(list, w.Peer)
		if !found && signedAfter(links, w.Peer) {
			list = slices.Insert(list, at, w.Peer)
		}
	}
	b.supporters[id] = list
	if !known {
		b.order = append(b.order, id)
		if len(b.order) > maxForks {
			delete(b.supporters, b.order[0])
			b.order = b.order[1:]
		}
	}
	return len(list)
}

// signedAfter reports whether a peer had part in a record of links after the
// first: its have or its commit names a head among links.
func signedAfter(links []Link, id peer.ID) bool {
	return slices.ContainsFunc(links[1:], func(l Link) bool { return present(l.Record, id) })
}

// present reports whether the have or the commit of a seat is in the record, as
// far as the next seats show it.
func present(r *msg.Record, id peer.ID) bool {
	i := seatOf(r.NextSeats, id)
	return i >= 0 && r.NextSeats[i].Missed == 0 && seatOf(r.Seats, id) >= 0
}

// voices counts the witnesses of a round that had part in its record.
func voices(r *msg.Record) int {
	n := 0
	for _, s := range r.Seats {
		if !s.Trainee && present(r, s.Peer) {
			n++
		}
	}
	return n
}

// included is the tokens of those of a record's contributions that count, if any
// does, of each no more than about what enters a fold: they are claimed, and who claims a large
// number must not decide by it which of two records is followed.
func included(parent, r *msg.Record) uint64 {
	var list []msg.Contribution
	counts := slices.ContainsFunc(r.Contributions, func(c msg.Contribution) bool { return c.Reason == msg.Held })
	for _, c := range r.Contributions {
		if counts && c.Reason != msg.Held {
			continue
		}
		if Cells(len(r.Seats)) == 0 && int(c.Seat) < len(r.Seats) {
			if e := standings(parent.Standings).of(r.Seats[c.Seat].Peer); e.Pace > 0 {
				c.Tokens = min(c.Tokens, maxPaceUp*e.Pace)
			}
		}
		list = append(list, c)
	}
	return creditedTokens(list)
}

// better reports whether the chain theirs is to be followed rather than ours;
// both begin after ancestor. Where they part, a certified record beats one that
// is not, then more support, then what the records say themselves. What follows
// does not count but by who signed it.
func (b *forkBook) better(ancestor Link, theirs, ours []Link) bool {
	for len(theirs) > 0 && len(ours) > 0 && theirs[0].ID.Equals(ours[0].ID) {
		ancestor, theirs, ours = ours[0], theirs[1:], ours[1:]
	}
	if len(ours) == 0 || len(theirs) == 0 {
		return len(theirs) > 0
	}
	x, y := theirs[0], ours[0]
	if p, q := x.Certificate != nil, y.Certificate != nil; p != q {
		return p
	}
	s, t := b.note(ancestor, theirs), b.note(ancestor, ours)
	c := cmp.Or(
		cmp.Compare(s, t),
		cmp.Compare(voices(x.Record), voices(y.Record)),
		cmp.Compare(included(ancestor.Record, x.Record), included(ancestor.Record, y.Record)),
	)
	final := x.Record.Final || y.Record.Final // nobody will build on it
	if c == 0 && (s > 0 || x.Certificate != nil || final) {
		// Not before somebody built on either: by a lower CID, which can be
		// sought, one seat could call the others back again and again.
		c = compareCIDs(y.ID, x.ID)
	}
	return c > 0
}
