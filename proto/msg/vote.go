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
	// Cell, if not 0, says that this is a vote in a cell: Record is the CID of its
	// summary, and Attempt is 0.
	Cell uint32 `json:",omitzero"`
}

// Validate implements Message.
func (m *Vote) Validate() error {
	c := check("vote")
	c.rawCID("run", m.Run)
	c.round(m.Round)
	c.rawCID("head", m.Head)
	c.attempt(m.Attempt)
	c.rawCID("record", m.Record)
	c.peer("peer", m.Peer)
	c.between("cell", uint64(m.Cell), 0, MaxCells)
	c.that(m.Cell == 0 || m.Attempt == 0, "attempt is %d in a cell, must be 0", m.Attempt)
	return c.result()
}

// Signer implements Message.
func (m *Vote) Signer() peer.ID { return m.Peer }

// RunID implements Message.
func (m *Vote) RunID() cid.Cid { return m.Run }

func (m *Vote) kind() kind { return kindVote }
