package msg

import (
	"crypto/ed25519"

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
	// Invite and Proof show that the peer was invited; Nonce, that it took some
	// trouble. What a run asks for is in its manifest.
	Invite []byte `json:",omitzero"` // envelope
	Proof  []byte `json:",omitzero"`
	Nonce  uint64 `json:",omitzero"`
	// Until is the last round in which the request has an effect, in runs whose
	// requests are dated; 0: none is the last.
	Until Round `json:",omitzero"`
}

// Validate implements Message.
func (m *JoinRequest) Validate() error {
	c := check("join")
	c.rawCID("run", m.Run)
	c.peer("peer", m.Peer)
	c.that(len(m.Invite) <= maxInviteBytes, "invite has %d bytes, must have at most %d", len(m.Invite), maxInviteBytes)
	c.that(len(m.Proof) == 0 || len(m.Proof) == ed25519.SignatureSize, "proof has %d bytes, must have %d", len(m.Proof), ed25519.SignatureSize)
	c.that((len(m.Invite) > 0) == (len(m.Proof) > 0), "an invite without proof, or a proof without invite")
	c.between("until", uint64(m.Until), 0, MaxRound)
	return c.result()
}

// Signer implements Message.
func (m *JoinRequest) Signer() peer.ID { return m.Peer }

// RunID implements Message.
func (m *JoinRequest) RunID() cid.Cid { return m.Run }

func (m *JoinRequest) kind() kind { return kindJoin }
