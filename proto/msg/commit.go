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
	// Trace is the file that says how the delta was trained, by which others can
	// do a part of it again; cid.Undef in a run that asks for none.
	Trace cid.Cid `json:",omitzero"`
}

// Validate implements Message.
func (m *Commit) Validate() error {
	c := check("commit")
	c.rawCID("run", m.Run)
	c.round(m.Round)
	c.rawCID("head", m.Head)
	c.peer("peer", m.Peer)
	c.fileCID("delta", m.Delta)
	if m.Trace.Defined() {
		c.fileCID("trace", m.Trace)
	}
	c.between("delta bytes", m.DeltaBytes, 1, MaxDeltaBytes)
	switch m.CodecBits {
	case 1, 2, 4, 8:
	default:
		c.that(false, "codec bits are %d, must be 1, 2, 4 or 8", m.CodecBits)
	}
	c.between("tokens", m.Tokens, 1, MaxTokens)
	c.between("steps", m.Steps, 1, MaxSteps)
	c.between("norm", m.Norm, 0, MaxNorm)
	c.between("loss", m.LossMicro, 0, MaxLossMicro)
	return c.result()
}

// Signer implements Message.
func (m *Commit) Signer() peer.ID { return m.Peer }

// RunID implements Message.
func (m *Commit) RunID() cid.Cid { return m.Run }

func (m *Commit) kind() kind { return kindCommit }
