package msg

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Pledge is a proposer's word that a record is the only one that it proposes in an
// attempt. Two of them fit in a record, which two proposals do not. It is never
// gossiped: proposals have its signature, and all else in it follows from them.
type Pledge struct {
	Run     cid.Cid
	Round   Round
	Head    cid.Cid // the record's parent
	Attempt uint32
	Record  cid.Cid // in a cell too, where votes name something else
	Peer    peer.ID
	Cell    uint32 `json:",omitzero"` // 0: of the round
}

// Validate implements Message.
func (m *Pledge) Validate() error {
	c := check("pledge")
	c.rawCID("run", m.Run)
	c.round(m.Round)
	c.rawCID("head", m.Head)
	c.attempt(m.Attempt)
	c.rawCID("record", m.Record)
	c.peer("peer", m.Peer)
	c.between("cell", uint64(m.Cell), 0, MaxCells)
	return c.result()
}

// Signer implements Message.
func (m *Pledge) Signer() peer.ID { return m.Peer }

// RunID implements Message.
func (m *Pledge) RunID() cid.Cid { return m.Run }

func (m *Pledge) kind() kind { return kindPledge }

// pledgeFor is what the peer of a proposal of r signs with it.
func (m *Proposal) pledgeFor(r *Record) *Pledge {
	return &Pledge{
		Run: m.Run, Round: m.Round, Head: r.Parent, Attempt: m.Attempt, Record: RawCID(m.Record), Peer: m.Peer, Cell: r.Cell,
	}
}

// Pledged returns the pledge of a proposal that has one.
func (m *Proposal) Pledged() (Signed, error) {
	r, err := m.Decoded()
	if err != nil {
		return Signed{}, err
	}
	e, err := envelopeWith(m.Pledge, m.pledgeFor(r))
	if err != nil {
		return Signed{}, err
	}
	return Open(e)
}

// Promise adds a pledge to a proposal, with what signs messages.
func (m *Proposal) Promise(sign func(Message) (Signed, error)) error {
	r, err := DecodeRecord(m.Record)
	if err != nil {
		return err
	}
	s, err := sign(m.pledgeFor(r))
	if err != nil {
		return fmt.Errorf("pledge: %w", err)
	}
	m.Pledge, err = signatureOf(s)
	return err
}
