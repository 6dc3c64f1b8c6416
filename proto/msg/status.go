package msg

import (
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
}
