package msg

import (
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Proposal puts a record to the vote. The record may be one of an earlier
// attempt that somebody else proposed first.
type Proposal struct {
	Run     cid.Cid
	Round   Round
	Attempt uint32
	Peer    peer.ID
	Record  []byte // as Record.Encode gives it
}
