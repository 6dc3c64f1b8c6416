package msg

import (
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Commit announces the delta of one seat for one round. The delta itself is
// pulled by its CID.
type Commit struct {
	Run        cid.Cid
	Round      Round
	Head       cid.Cid // record that the round starts from
	Peer       peer.ID
	Delta      cid.Cid
	DeltaBytes uint64
	CodecBits  uint32
	Tokens     uint64
	Steps      uint64
	Norm       uint64 // integer L2 norm of the decoded delta, 2^-26 units
	LossMicro  uint64 // mean training loss of the round, 1e-6 nats per token
}
