package msg

import (
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// HaveEntry is what a witness thinks of the commit of one seat.
type HaveEntry struct {
	Seat   uint32  // index into the seats of the round
	Commit cid.Cid // CID of the commit's envelope
	Reason Reason  // Held: its delta is here and valid
}

// Have is a witness's word on the commits of a round, given once.
type Have struct {
	Run     cid.Cid
	Round   Round
	Head    cid.Cid
	Peer    peer.ID
	Entries []HaveEntry // sorted by seat, at most one for each
	Joins   []cid.Cid   // CIDs of the join requests it holds, sorted bytewise
}
