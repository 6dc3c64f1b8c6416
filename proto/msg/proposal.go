package msg

import (
	"bytes"

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
	// Pledge is the signature of the Pledge for it, in runs that ask for one.
	Pledge []byte `json:",omitzero"`

	decoded *Record // by Validate; nil: it was not called
}

// Decoded returns the record. It is the same one each time for a message that was
// opened or sealed, and must not be changed.
func (m *Proposal) Decoded() (*Record, error) {
	if m.decoded != nil {
		return m.decoded, nil
	}
	return DecodeRecord(m.Record)
}

// Equal compares what is on the wire.
func (m *Proposal) Equal(o *Proposal) bool {
	return m.Run.Equals(o.Run) && m.Round == o.Round && m.Attempt == o.Attempt && m.Peer == o.Peer && bytes.Equal(m.Record, o.Record) && bytes.Equal(m.Pledge, o.Pledge)
}

// Validate implements Message. It decodes the record, and checks the signature of a
// pledge.
func (m *Proposal) Validate() error {
	c := check("proposal")
	c.rawCID("run", m.Run)
	c.round(m.Round)
	c.attempt(m.Attempt)
	c.peer("peer", m.Peer)
	if c.err != nil {
		return c.err
	}
	r, err := DecodeRecord(m.Record)
	if err != nil {
		c.that(false, "%v", err)
		return c.result()
	}
	c.that(r.Run.Equals(m.Run), "record is of run %v, must be of %v", r.Run, m.Run)
	c.that(r.Round == m.Round, "record is of round %d, must be of %d", r.Round, m.Round)
	c.that(r.Attempt <= m.Attempt, "record is of attempt %d, must be at most %d", r.Attempt, m.Attempt)
	m.decoded = r
	if c.err == nil && len(m.Pledge) > 0 {
		_, err := m.Pledged()
		c.that(err == nil, "pledge: %v", err)
	}
	return c.result()
}

// Signer implements Message.
func (m *Proposal) Signer() peer.ID { return m.Peer }

// RunID implements Message.
func (m *Proposal) RunID() cid.Cid { return m.Run }

func (m *Proposal) kind() kind { return kindProposal }
