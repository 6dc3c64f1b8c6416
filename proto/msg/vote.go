package msg

import (
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Vote says that the witness has computed every consequence of a record
// itself, its state included. A witness votes for one record on a head.
type Vote struct {
	Run     cid.Cid
	Round   Round
	Head    cid.Cid // the record's parent
	Attempt uint32
	Record  cid.Cid
	Peer    peer.ID
}
