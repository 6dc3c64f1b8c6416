package msg

import (
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Round counts the rounds of a run from 1; 0 is genesis.
type Round uint64

// Message is one of *Commit, *Have, *JoinRequest, *Proposal, *Vote and
// *Status; the set is closed.
type Message interface {
	// Validate reports the first rule that the message breaks, without
	// looking at anything but the message.
	Validate() error

	// Signer is the peer that has to sign the message.
	Signer() peer.ID

	// RunID is the run that the message belongs to.
	RunID() cid.Cid

	kind() kind
}

// Signed is a message together with the envelope that carries it.
type Signed struct {
	Message  Message
	Envelope []byte  // what is gossiped and stored; not to be changed
	CID      cid.Cid // CIDv1, raw, sha2-256 of Envelope
	From     peer.ID // the signer, equal to Message.Signer()
}

type kind struct{ domain string }

// Seal validates m, encodes it and signs it with priv, which must be the
// Ed25519 key of m.Signer(). The same message and key give the same envelope.
func Seal(priv crypto.PrivKey, m Message) (Signed, error) { return seal(priv, m) }

// Open decodes an envelope. It returns an error unless the envelope is within
// the size cap of its type, canonically encoded, signed for its type by the
// peer that the message names, and the message passes Validate.
func Open(envelope []byte) (Signed, error) { return open(envelope) }

// OpenAs is Open for a caller that accepts one type of message only.
func OpenAs[M Message](envelope []byte) (M, Signed, error) { return openAs[M](envelope) }
