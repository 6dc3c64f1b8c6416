package msg

import (
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// JoinRequest asks for a seat from the next round on or, with Leave, gives it
// up. Of two requests of one peer the one with the higher Seq counts.
type JoinRequest struct {
	Run   cid.Cid
	Peer  peer.ID
	Seq   uint64
	Leave bool
}

// Validate implements Message.
func (m *JoinRequest) Validate() error {
	c := check("join")
	c.rawCID("run", m.Run)
	c.peer("peer", m.Peer)
	return c.result()
}

// Signer implements Message.
func (m *JoinRequest) Signer() peer.ID { return m.Peer }

// RunID implements Message.
func (m *JoinRequest) RunID() cid.Cid { return m.Run }

func (m *JoinRequest) kind() kind { return kindJoin }
