package msg

import (
	"errors"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// RecordVersion is the version of the records that this package understands.
const RecordVersion = 1

// Record is one round: what was decided, and the signed messages from which
// anybody can check it. Its CID is the head of the run. It is not signed
// itself; the proposal that carries it is, and so are the votes.
type Record struct {
	Version           uint32
	Run               cid.Cid
	Round             Round
	Parent            cid.Cid      // cid.Undef in the genesis record only
	ParentCertificate *Certificate // nil when the parent is provisional or genesis
	Attempt           uint32
	Proposer          peer.ID
	Seats             []Seat         // of this round, the parent's NextSeats; sorted by the bytes of the peer ID
	Haves             [][]byte       // envelopes of the haves it rests on, sorted by seat
	Commits           [][]byte       // envelopes of the commits of Contributions, in their order
	Joins             [][]byte       // envelopes of the join requests that took effect, sorted by CID
	Contributions     []Contribution // sorted by seat, at most one for each
	Refused           []Refusal      // sorted by seat, then by the bytes of the commit's CID
	State             cid.Cid        // after the fold; the parent's when nothing was included
	NextSeats         []Seat         // sorted by the bytes of the peer ID
	Tokens            uint64         // of all contributions since genesis
	TrainedRounds     uint64         // records with a contribution since genesis
	Final             bool           // the stop rule holds: no round follows
}

// Seat is a peer that trains and witnesses in a round.
type Seat struct {
	Peer   peer.ID
	Since  Round  // first round with this seat
	Missed uint32 // rounds in a row without a have or contribution
	Fresh  bool   // its next contribution has weight 0
}

// Contribution is a commit that entered the fold.
type Contribution struct {
	Seat    uint32
	Commit  cid.Cid
	Delta   cid.Cid
	Tokens  uint64
	Weight  uint64 // as fold.Applied gives it
	ClipQ16 uint32
}

// Refusal is a commit that a have named and the round left out.
type Refusal struct {
	Seat   uint32
	Commit cid.Cid
	Reason Reason
}

// Certificate is the proof that a quorum voted for a record.
type Certificate struct {
	Record cid.Cid
	Votes  [][]byte // envelopes of the votes, sorted by seat
}

// Encode returns the canonical bytes of r, of which CID is the hash.
func (r *Record) Encode() ([]byte, error) { return nil, errors.New("encode record") }

// CID returns the CID of the canonical bytes of r.
func (r *Record) CID() (cid.Cid, error) { return cid.Undef, errors.New("encode record") }

// DecodeRecord decodes and validates a record. It refuses bytes that Encode
// would not have written. It does not open the envelopes inside.
func DecodeRecord(b []byte) (*Record, error) { return nil, errors.New("decode record") }

// Validate reports the first rule of form that r breaks.
func (r *Record) Validate() error { return errors.New("validate record") }

// Encode returns the canonical bytes of c.
func (c *Certificate) Encode() ([]byte, error) { return nil, errors.New("encode certificate") }

// DecodeCertificate decodes and validates a certificate. It does not open the
// votes.
func DecodeCertificate(b []byte) (*Certificate, error) {
	return nil, errors.New("decode certificate")
}

// Validate reports the first rule of form that c breaks.
func (c *Certificate) Validate() error { return errors.New("validate certificate") }
