package msg

import (
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"
)

// Round counts the rounds of a run from 1; 0 is genesis.
type Round uint64

// Message is one of *Commit, *Have, *JoinRequest, *Order, *Proposal, *Vote,
// *Status, *Invite, *CellResult, *Report and *Pledge; the set is closed.
type Message interface {
	// Validate reports the first rule that the message breaks, without
	// looking at anything but the message. The error is an *InvalidError.
	Validate() error

	// Signer is the peer that has to sign the message.
	Signer() peer.ID

	// RunID is the run that the message belongs to.
	RunID() cid.Cid

	kind() kind
	toWire() proto.Message
}

// Signed is a message together with the envelope that carries it.
type Signed struct {
	Message  Message
	Envelope []byte  // what is gossiped and stored; not to be changed
	CID      cid.Cid // CIDv1, raw, sha2-256 of Envelope
	From     peer.ID // the signer, equal to Message.Signer()
}

// kind is the type of a message. It is both the payload type in the envelope
// and the domain of the signature, so that no message can be passed off as one
// of another type.
type kind string

const (
	kindCommit   kind = "/moot/commit/1"
	kindHave     kind = "/moot/have/1"
	kindJoin     kind = "/moot/join/1"
	kindProposal kind = "/moot/proposal/1"
	kindVote     kind = "/moot/vote/1"
	kindStatus   kind = "/moot/status/1"
	kindInvite   kind = "/moot/invite/1"
	kindCell     kind = "/moot/cell/1"
	kindOrder    kind = "/moot/order/1"
	kindReport   kind = "/moot/report/1"
	kindPledge   kind = "/moot/pledge/1"
)

func (k kind) known() bool {
	switch k {
	case kindCommit, kindHave, kindJoin, kindProposal, kindVote, kindStatus, kindInvite, kindOrder, kindCell, kindReport, kindPledge:
		return true
	}
	return false
}

// name is the word for the message in errors.
func (k kind) name() string { return string(k[len("/moot/") : len(k)-len("/1")]) }

func (k kind) maxBytes() int {
	if k == kindProposal {
		return MaxProposalBytes
	}
	return MaxMessageBytes
}
