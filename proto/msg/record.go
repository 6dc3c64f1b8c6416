package msg

import (
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	wirev1 "github.com/moot-net/moot/proto/wire/v1"
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

// Encode validates r and returns its canonical bytes, of which CID is the hash.
func (r *Record) Encode() ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	b, err := marshal(r.toWire())
	if err != nil {
		return nil, err
	}
	if len(b) > MaxRecordBytes {
		return nil, tooLarge("record", len(b), MaxRecordBytes)
	}
	return b, nil
}

// CID returns the CID (version 1, raw, sha2-256) of the canonical bytes of r.
func (r *Record) CID() (cid.Cid, error) {
	b, err := r.Encode()
	if err != nil {
		return cid.Undef, err
	}
	return RawCID(b), nil
}

// DecodeRecord decodes and validates a record. It refuses bytes that Encode
// would not have written. It does not open the envelopes inside.
func DecodeRecord(b []byte) (*Record, error) {
	if len(b) > MaxRecordBytes {
		return nil, tooLarge("record", len(b), MaxRecordBytes)
	}
	var w wirev1.Record
	if err := proto.Unmarshal(b, &w); err != nil {
		return nil, &InvalidError{"record", err.Error()}
	}
	r, err := recordFromWire(&w)
	if err != nil {
		return nil, err
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	if err := canonical("record", b, r.toWire()); err != nil {
		return nil, err
	}
	return r, nil
}

// Validate reports the first rule of form that r breaks. The error is an
// *InvalidError.
func (r *Record) Validate() error {
	c := check("record")
	c.that(r.Version == RecordVersion, "version is %d, must be %d", r.Version, RecordVersion)
	c.rawCID("run", r.Run)
	c.between("round", uint64(r.Round), 0, MaxRound)
	c.fileCID("state", r.State)
	c.between("tokens", r.Tokens, 0, MaxRunTokens)
	c.between("trained rounds", r.TrainedRounds, 0, uint64(r.Round))
	c.that(len(r.NextSeats) > 0, "next seats are 0, must be at least 1")
	c.seats("next seats", r.NextSeats, r.Round+1)
	if r.Round == 0 {
		r.checkGenesis(c)
	} else {
		r.checkSuccessor(c)
	}
	return c.result()
}

// checkGenesis holds for round 0: the first seat and the first state, nothing
// else.
func (r *Record) checkGenesis(c *checker) {
	c.that(!r.Parent.Defined() && r.ParentCertificate == nil, "genesis has a parent, must have none")
	c.that(r.Attempt == 0 && r.Proposer == "", "genesis has a proposer, must have none")
	n := len(r.Seats) + len(r.Haves) + len(r.Commits) + len(r.Joins) + len(r.Contributions) + len(r.Refused)
	c.that(n == 0, "genesis has seats, messages or verdicts, must have none")
	c.that(len(r.NextSeats) == 1, "genesis gives %d seats, must give 1", len(r.NextSeats))
	c.that(r.Tokens == 0 && !r.Final, "genesis has tokens or is final, must not")
}

func (r *Record) checkSuccessor(c *checker) {
	c.rawCID("parent", r.Parent)
	if p := r.ParentCertificate; p != nil {
		c.that(r.Round > 1, "the parent is genesis, must have no certificate")
		if err := p.Validate(); err != nil {
			c.that(false, "%v", err)
		}
		c.that(p.Record.Equals(r.Parent), "certificate is for %v, must be for the parent %v", p.Record, r.Parent)
	}
	c.attempt(r.Attempt)
	c.peer("proposer", r.Proposer)
	c.that(len(r.Seats) > 0, "seats are 0, must be at least 1")
	c.seats("seats", r.Seats, r.Round)
	seated := slices.ContainsFunc(r.Seats, func(s Seat) bool { return s.Peer == r.Proposer })
	c.that(seated, "proposer %v has no seat", r.Proposer)
	c.that(len(r.Haves) > 0, "haves are 0, must be at least 1")
	c.envelopes("haves", r.Haves, len(r.Seats))
	c.envelopes("commits", r.Commits, len(r.Seats))
	c.envelopes("joins", r.Joins, MaxJoins)
	c.that(len(r.Commits) == len(r.Contributions),
		"commits are %d, must be as many as contributions, %d", len(r.Commits), len(r.Contributions))
	c.contributions(r.Contributions, len(r.Seats))
	c.refusals(r.Refused, len(r.Seats))
}

func (c *checker) seats(field string, seats []Seat, round Round) {
	c.that(len(seats) <= MaxSeats, "%s are %d, must be at most %d", field, len(seats), MaxSeats)
	for i, s := range seats {
		c.peer(field, s.Peer)
		c.that(i == 0 || seats[i-1].Peer < s.Peer, "%s: %v is out of order", field, s.Peer)
		c.between(field+": since", uint64(s.Since), 1, uint64(round))
		c.between(field+": missed", uint64(s.Missed), 0, MaxMissed)
	}
}

func (c *checker) contributions(list []Contribution, seats int) {
	for i, e := range list {
		c.between("contributions: seat", uint64(e.Seat), 0, uint64(seats-1))
		c.that(i == 0 || list[i-1].Seat < e.Seat, "contributions: seat %d is out of order", e.Seat)
		c.rawCID("contributions: commit", e.Commit)
		c.fileCID("contributions: delta", e.Delta)
		c.between("contributions: tokens", e.Tokens, 1, MaxTokens)
		c.between("contributions: weight", e.Weight, 0, MaxTokens)
		c.between("contributions: clip", uint64(e.ClipQ16), 0, 1<<16)
	}
}

func (c *checker) refusals(list []Refusal, seats int) {
	for i, e := range list {
		c.between("refused: seat", uint64(e.Seat), 0, uint64(seats-1))
		c.rawCID("refused: commit", e.Commit)
		if i > 0 {
			p := list[i-1]
			sorted := p.Seat < e.Seat || p.Seat == e.Seat && compareCIDs(p.Commit, e.Commit) < 0
			c.that(sorted, "refused: %v of seat %d is out of order", e.Commit, e.Seat)
		}
		c.that(e.Reason != Held && e.Reason < reasonEnd, "refused: reason is %d, must be 1 to %d", e.Reason, reasonEnd-1)
	}
}
