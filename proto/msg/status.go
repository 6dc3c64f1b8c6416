package msg

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Phase is what a peer is doing. It informs people, no rule depends on it.
type Phase uint32

// The phases.
const (
	PhaseIdle     Phase = iota // follows the run without a seat
	PhaseSync                  // pulls model, data or state
	PhaseAssembly              // waits for more peers
	PhaseTrain
	PhaseExchange // pulls the deltas of others
	PhaseVote     // proposals and votes
	PhaseDone     // the run is final
	phaseEnd
)

// Status is a heartbeat: where a peer is. Every few seconds.
type Status struct {
	Run               cid.Cid
	Peer              peer.ID
	Seq               uint64 // grows with each status of the peer
	Head              cid.Cid
	Round             Round
	Certified         uint64 // certified records in the chain of Head
	Tokens            uint64 // the head's
	Phase             Phase
	TokensPerSecMilli uint64
	Agent             string // program and version
	Device            string // what it trains on
	// Lost is the head of a branch that the peer knows and that lost; it can be
	// asked for its records. Undefined: none.
	Lost cid.Cid `json:",omitzero"`
}

var phaseNames = [phaseEnd]string{"idle", "sync", "assembly", "train", "exchange", "vote", "done"}

// String returns the name of the phase as it is printed and put into JSON.
func (p Phase) String() string {
	if p < phaseEnd {
		return phaseNames[p]
	}
	return fmt.Sprintf("phase-%d", uint32(p))
}

// Validate implements Message.
func (m *Status) Validate() error {
	c := check("status")
	c.rawCID("run", m.Run)
	c.peer("peer", m.Peer)
	c.rawCID("head", m.Head)
	c.between("round", uint64(m.Round), 0, MaxRound)
	c.between("certified", m.Certified, 0, MaxRound)
	c.between("tokens", m.Tokens, 0, MaxRunTokens)
	c.that(m.Phase < phaseEnd, "phase is %d, must be below %d", m.Phase, phaseEnd)
	c.between("tokens per second", m.TokensPerSecMilli, 0, MaxTokens)
	c.text("agent", m.Agent, MaxNameBytes)
	c.text("device", m.Device, MaxNameBytes)
	if m.Lost.Defined() {
		c.rawCID("lost", m.Lost)
	}
	return c.result()
}

// Signer implements Message.
func (m *Status) Signer() peer.ID { return m.Peer }

// RunID implements Message.
func (m *Status) RunID() cid.Cid { return m.Run }

func (m *Status) kind() kind { return kindStatus }
