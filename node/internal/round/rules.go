package round

import (
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// Rules are the rules of one run that do not depend on time: what follows from
// the messages of a round, and which records are valid. They do not change.
type Rules struct {
	run        cid.Cid
	manifest   *run.Manifest
	layout     *fold.Layout
	deltaBytes uint64 // in the codec that the run begins with
}

// NewRules returns the rules of the run with this manifest.
func NewRules(m *run.Manifest) (*Rules, error) {
	id, err := m.ID()
	if err != nil {
		return nil, fmt.Errorf("rules of run: %w", err)
	}
	layout, err := m.Layout()
	if err != nil {
		return nil, fmt.Errorf("rules of run: %w", err)
	}
	bytes := fold.EncodedBytes(layout, int(m.CodecBits))
	return &Rules{run: id, manifest: m, layout: layout, deltaBytes: uint64(bytes)}, nil
}

// Assembly reports whether the round after r trains nothing: it only lets peers
// in, or the run is paused.
func (ru *Rules) Assembly(r *msg.Record) bool {
	return Paused(r) || r.TrainedRounds == 0 && len(r.NextSeats) < int(ru.manifest.MinPeers)
}

// fault is what is wrong with a commit for the round on head, in which deltas are of so many bits, as far as that
// shows without the delta; msg.Held if nothing is. That its signer has the seat
// is for the caller to check.
func (ru *Rules) fault(c *msg.Commit, round msg.Round, head cid.Cid, bits uint32) msg.Reason {
	size := ru.deltaBytesOf(bits)
	switch {
	case !c.Run.Equals(ru.run) || c.Round != round || !c.Head.Equals(head):
		return msg.WrongHead
	case c.CodecBits != bits:
		return msg.BadCodec
	case c.DeltaBytes > size:
		return msg.TooLarge
	case c.DeltaBytes < size:
		return msg.BadSize
	case c.Norm == 0:
		return msg.Zero
	case ru.manifest.Trust.RetracePPM > 0 && !c.Trace.Defined():
		return msg.Untraced
	}
	return msg.Held
}
