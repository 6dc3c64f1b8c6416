package round

import (
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// Earlier is the round before one, as its early steps need it: those that were
// taken when that round was not decided yet, from a guess of its state. The guess
// is the fold of the own delta alone.
type Earlier struct {
	Head  cid.Cid // that the round before began from; cid.Undef: there is none
	State cid.Cid // of that head
	// Delta is that of the peer in that round, of so many bits, after so many steps.
	// cid.Undef: it is not in the record.
	Delta cid.Cid
	Bits  uint32
	Steps uint64
	// Trained and Tokens are how many there were before that round.
	Trained, Tokens uint64
}

// overlaps reports whether the round after the one that follows a record may be
// trained before its head is known: if there is one.
func (ru *Rules) overlaps(r *msg.Record) bool {
	return ru.manifest.Inner.OverlapSteps > 0 && r.TrainedRounds+1 < Under(ru.manifest, r.Course).MaxRounds
}

// Earlier is what early steps of a peer's training on head were taken from. It is
// zero if there can be none that count: with a head that nothing was trained for
// or, in a run that retraces, not by this peer.
func (ru *Rules) Earlier(head Link, maker peer.ID, link func(cid.Cid) (Link, bool)) Earlier {
	r := head.Record
	if ru.manifest.Inner.OverlapSteps == 0 || len(r.Contributions) == 0 {
		return Earlier{}
	}
	before, ok := link(r.Parent)
	if !ok {
		return Earlier{}
	}
	e := Earlier{Head: before.ID, State: before.Record.State, Trained: before.Record.TrainedRounds, Tokens: before.Record.Tokens}
	if seat := seatOf(r.Seats, maker); seat >= 0 {
		if c, ok := commitOf(r, uint32(seat)); ok {
			e.Delta, e.Bits, e.Steps = c.Delta, c.CodecBits, c.Steps
		}
	}
	if !e.Delta.Defined() && ru.manifest.Trust.RetracePPM > 0 {
		return Earlier{} // nobody else could tell what they were taken from
	}
	return e
}

// trainEarly asks for steps of the next round: the own delta c of this one is done.
func (m *Machine) trainEarly(h *height, c *msg.Commit) {
	if m.earlyFor.Equals(h.parent.ID) {
		return
	}
	m.training, m.earlyFor = false, h.parent.ID
	m.emit(TrainEarly{
		Round: h.round + 1, Trace: c.Trace,
		Earlier: Earlier{
			Head: h.parent.ID, State: h.parent.Record.State, Delta: c.Delta, Bits: c.CodecBits, Steps: c.Steps,
			Trained: h.parent.Record.TrainedRounds, Tokens: h.parent.Record.Tokens,
		},
	})
}
