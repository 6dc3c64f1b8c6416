package round

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/trace"
)

// What retraces are judged with; proto/README.md section 6.
const (
	retraceDomain = "moot retrace 1"
	// tolerancePPM is the most that a retrace may find. Machines that compute in
	// other ways differ by a tenth of that, other data by several times as much.
	tolerancePPM = 200_000
	// Withheld is the error of a retrace for which files did not come, and Forged
	// of one whose files are not what they must be.
	Withheld = msg.MaxErrorPPM
	Forged   = msg.MaxErrorPPM - 1
	// suspectQ8 are the strikes from which on all that a peer sends is retraced:
	// for about ten rounds after one.
	suspectQ8 = strikeQ8 / 2
	// lookBack is for how many records a peer's trace goes on from its last one.
	lookBack = 8
)

// RetraceItem is a contribution of whose training an auditor has to do a part
// again.
type RetraceItem struct {
	Seat          uint32 // of the round that it was made in
	Maker         peer.ID
	Delta         cid.Cid
	Trace         cid.Cid
	Steps, Tokens uint64 // that the commit claims
	Part          uint64
	// Before is the trace that this one goes on from; cid.Undef: it begins cold.
	Before cid.Cid
	// Earlier is what early steps were taken from; zero: there must be none.
	Earlier Earlier
}

// retraceKey says whether the training of what maker sent is retraced, and
// draws the part.
func (ru *Rules) retraceKey(parent Link, maker peer.ID) (part uint64, ok bool) {
	ppm := ru.manifest.Trust.RetracePPM
	if ppm == 0 {
		return 0, false
	}
	key := sha256.Sum256(append(append([]byte(retraceDomain), parent.ID.Bytes()...), maker...))
	suspect := standings(parent.Record.Standings).of(maker).StrikesQ8 >= suspectQ8
	return binary.LittleEndian.Uint64(key[8:]), suspect || binary.LittleEndian.Uint32(key[:])%1_000_000 < ppm
}

// retraceOf is what an auditor says of the training of a seat of the round
// before.
func retraceOf(list []msg.Retrace, seat uint32) (errorPPM uint32, ok bool) {
	for _, e := range list {
		if e.Seat == seat {
			return e.ErrorPPM, true
		}
	}
	return 0, false
}

// Retraces returns, of the contributions of the record parent that an auditor
// measures in the round after it, those that it retraces. link finds the
// records before.
func (ru *Rules) Retraces(parent Link, audits []AuditItem, link func(cid.Cid) (Link, bool)) []RetraceItem {
	var out []RetraceItem
	for _, a := range audits {
		key, ok := ru.retraceKey(parent, a.Maker)
		if !ok || a.Extra || len(out) == msg.MaxRetraces {
			continue
		}
		c, ok := commitOf(parent.Record, a.Seat)
		if !ok {
			continue
		}
		var earlier Earlier
		if before, ok := link(parent.Record.Parent); ok {
			earlier = ru.Earlier(before, a.Maker, link)
		}
		out = append(out, RetraceItem{
			Seat: a.Seat, Maker: a.Maker, Delta: c.Delta, Trace: c.Trace, Steps: c.Steps, Tokens: c.Tokens,
			Part:   key % trace.Parts(c.Steps, uint64(ru.manifest.Inner.MaxSteps)),
			Before: TraceBefore(parent.Record.Parent, a.Maker, link), Earlier: earlier,
		})
	}
	return out
}

// commitOf opens the commit of a seat's contribution.
func commitOf(r *msg.Record, seat uint32) (*msg.Commit, bool) {
	i := slices.IndexFunc(r.Contributions, func(c msg.Contribution) bool { return c.Seat == seat })
	if i < 0 {
		return nil, false
	}
	s, err := msg.Open(r.Commits[i])
	if err != nil {
		return nil, false // the record was verified
	}
	c, ok := s.Message.(*msg.Commit)
	return c, ok
}

// TraceBefore is the trace that a peer's training on head goes on from: that of
// its last contribution, if it is among the last records up to head.
func TraceBefore(head cid.Cid, maker peer.ID, link func(cid.Cid) (Link, bool)) cid.Cid {
	for range lookBack {
		l, ok := link(head)
		if !ok || l.Record.Round == 0 {
			return cid.Undef
		}
		if seat := seatOf(l.Record.Seats, maker); seat >= 0 {
			if c, ok := commitOf(l.Record, uint32(seat)); ok {
				return c.Trace
			}
		}
		head = l.Record.Parent
	}
	return cid.Undef
}
