package msg

import (
	"bytes"
	"fmt"
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
	Reports           [][]byte       `json:",omitzero"` // envelopes, sorted by the bytes of the peer ID
	Judgements        []Judgement    `json:",omitzero"` // of the parent's contributions that were audited, sorted by seat
	Standings         []Standing     `json:",omitzero"` // after this round, sorted by the bytes of the peer ID
	Merge             *Merge         `json:",omitzero"` // of a branch that lost; nil: none
	Proofs            []Proof        `json:",omitzero"` // that brought a ban, sorted by the bytes of the peer ID
	Orders            [][]byte       `json:",omitzero"` // envelopes of the orders that took effect, sorted by CID
	Course            *Course        `json:",omitzero"` // after them; nil: the manifest's
	Trend             *Trend         `json:",omitzero"` // of the held-out loss; nil: no rule of the run needs it
	// Skips are, at i, the last record before this one whose round is a multiple
	// of 2^(i+1), as long as that is not genesis. Only in runs with skip links.
	Skips []cid.Cid `json:",omitzero"`
	// Cell, if not 0, says that this is a cell's own record, of its seats alone.
	// In place of a state it has the CID of the cell's mean.
	Cell uint32 `json:",omitzero"`
	// CodecBits is the codec of the next round's deltas, and Calm for how many
	// rounds nearly all came in time; 0 in a run whose codec does not change.
	CodecBits uint32 `json:",omitzero"`
	Calm      uint32 `json:",omitzero"`
	Tempo     *Tempo `json:",omitzero"` // nil: steps and deadline are the manifest's
	// CellAudits are what the seats of a cell measured, in its own record.
	CellAudits []CellAudit `json:",omitzero"`
}

// Seat is a peer that trains and witnesses in a round.
type Seat struct {
	Peer   peer.ID
	Since  Round  // first round with this seat
	Missed uint32 // rounds in a row without a have or contribution
	Fresh  bool   // its next contribution has weight 0
	// Trainee: it trains, and is no witness. Its haves, proposals and votes
	// do not count.
	Trainee bool `json:",omitzero"`
}

// Contribution is a commit that entered the fold.
type Contribution struct {
	Seat    uint32
	Commit  cid.Cid
	Delta   cid.Cid
	Tokens  uint64
	Weight  uint64 // as fold.Applied gives it
	ClipQ16 uint32
	Reason  Reason `json:",omitzero"` // why it counts for nothing as long as any other counts; Held: it counts
}

// Verdict is what the audits of a delta came to.
type Verdict uint32

// The verdicts. Their numbers are on the wire and never change.
const (
	Unaudited Verdict = iota // too few auditors measured it
	Useful                   // the loss falls
	Useless                  // it falls by much less than the tokens promise
	Damaging                 // it rises, and the auditors agree
	verdictEnd
)

var verdictNames = [verdictEnd]string{"unaudited", "useful", "useless", "damaging"}

// String returns the name of the verdict as it is printed and put into JSON.
func (v Verdict) String() string {
	if v < verdictEnd {
		return verdictNames[v]
	}
	return fmt.Sprintf("verdict-%d", uint32(v))
}

// Judgement is what the audits of one contribution of the round before came to.
type Judgement struct {
	Seat     uint32 // of the round before
	Measured uint32 // auditors that measured it
	GainNano int64  // the median of what they measured
	WorthQ16 uint32 // gain per token, beside the median of all: at most 1
	Verdict  Verdict
	// TakenBack: what the contribution did to the state was undone.
	TakenBack bool `json:",omitzero"`
	// Retraced is how many auditors did a part of its training again, ErrorPPM
	// the least of what they found.
	Retraced uint32 `json:",omitzero"`
	ErrorPPM uint32 `json:",omitzero"`
}

// Standing is what is remembered of a peer. One that has a seat and no standing
// has one of zeros.
type Standing struct {
	Peer      peer.ID
	Owed      uint32 // useful audits that it takes until the peer's deltas count
	StrikesQ8 uint32 // damaging audits, fading
	Until     Round  // no seat before this round; 0: no ban
	Reason    Reason // of the ban
	Pace      uint64 // mean of the audited tokens of a round, fading
	LackQ16   uint32 // one minus the mean worth, fading
	Work      uint64 // audited tokens in all
	Kept      Round  `json:",omitzero"` // a seat is kept for it up to the record of this round; 0: none
}

// Proof is two messages that no honest peer signs both of.
type Proof struct{ First, Second []byte }

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
	c.between("cell", uint64(r.Cell), 0, MaxCells)
	c.cellAudits(r.CellAudits)
	c.that(r.Cell > 0 || len(r.CellAudits) == 0, "audits of a cell in a record that is of none")
	switch r.CodecBits {
	case 0, 1, 2, 4, 8:
	default:
		c.that(false, "codec bits are %d, must be 0, 1, 2, 4 or 8", r.CodecBits)
	}
	c.between("calm", uint64(r.Calm), 0, MaxCalm)
	c.that(r.Calm == 0 || r.CodecBits > 0, "calm is %d without a codec, must be 0", r.Calm)
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
	n := len(r.Seats) + len(r.Haves) + len(r.Commits) + len(r.Joins) + len(r.Contributions) + len(r.Refused) +
		len(r.Judgements) + len(r.Standings) + len(r.Proofs) + len(r.Reports) + len(r.Orders)
	c.that(n == 0 && r.Merge == nil && r.Course == nil && r.Trend == nil && r.Tempo == nil && len(r.Skips) == 0, "genesis has seats, messages or verdicts, must have none")
	c.that(len(r.NextSeats) == 1, "genesis gives %d seats, must give 1", len(r.NextSeats))
	c.that(r.Tokens == 0 && !r.Final && r.Cell == 0 && r.CodecBits == 0, "genesis has tokens or a codec, is final or of a cell, must not")
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
	c.envelopes("reports", r.Reports, MaxReports)
	c.envelopes("orders", r.Orders, MaxOrders)
	c.that(len(r.Orders) == 0 || r.Course != nil, "orders without a course")
	if r.Trend != nil {
		c.trend(*r.Trend, r.Round)
	}
	if r.Tempo != nil {
		c.tempo(*r.Tempo)
	}
	if len(r.Skips) > 0 {
		c.skips(r.Skips, r.Round)
	}
	if r.Course != nil {
		c.course(*r.Course)
	}
	c.that(len(r.Commits) == len(r.Contributions),
		"commits are %d, must be as many as contributions, %d", len(r.Commits), len(r.Contributions))
	c.contributions(r.Contributions, len(r.Seats))
	c.refusals(r.Refused, len(r.Seats))
	c.judgements(r.Judgements)
	if len(r.Seats) > MaxSeats {
		c.shortJudgements(r.Judgements)
	}
	c.standings(r.Standings, r.NextSeats)
	c.proofs(r.Proofs)
	if r.Merge != nil {
		c.merge(*r.Merge)
	}
}

func (c *checker) seats(field string, seats []Seat, round Round) {
	c.that(len(seats) <= MaxAllSeats, "%s are %d, must be at most %d", field, len(seats), MaxAllSeats)
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
		ok := e.Reason == Held || e.Reason >= Fresh && e.Reason <= Banned || e.Reason == Worthless
		c.that(ok, "contributions: reason is %d, must be 0, %d to %d or %d", e.Reason, Fresh, Banned, Worthless)
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
		c.that(e.Reason.Refuses() || e.Reason == RolledBack, "refused: reason is %d, must be 1 to %d or %d", e.Reason, Last, RolledBack)
	}
}

func (c *checker) judgements(list []Judgement) {
	c.that(len(list) <= MaxAllSeats, "judgements are %d, must be at most %d", len(list), MaxAllSeats)
	for i, e := range list {
		c.between("judgements: seat", uint64(e.Seat), 0, MaxAllSeats-1)
		c.that(i == 0 || list[i-1].Seat < e.Seat, "judgements: seat %d is out of order", e.Seat)
		c.between("judgements: measured", uint64(e.Measured), 0, MaxSeats)
		c.between("judgements: retraced", uint64(e.Retraced), 0, MaxSeats)
		c.that(e.Measured > 0 || e.Retraced > 0, "judgements: seat %d has no audits", e.Seat)
		c.between("judgements: error", uint64(e.ErrorPPM), 0, MaxErrorPPM)
		c.that(e.Retraced > 0 || e.ErrorPPM == 0, "judgements: seat %d has an error without a retrace", e.Seat)
		c.gain(e.GainNano)
		c.between("judgements: worth", uint64(e.WorthQ16), 0, 1<<16)
		c.that(e.Verdict < verdictEnd, "judgements: verdict is %d, must be below %d", e.Verdict, verdictEnd)
		c.that(!e.TakenBack || e.Verdict != Unaudited, "judgements: seat %d is taken back without a verdict", e.Seat)
	}
}

// shortJudgements holds for what a record with cells can say.
func (c *checker) shortJudgements(list []Judgement) {
	for _, e := range list {
		ok := e.GainNano%microNano == 0 && !e.TakenBack && e.Retraced == 0
		c.that(ok, "judgements: seat %d of a round with cells has parts of 1e-6 nats, a retrace or is taken back", e.Seat)
	}
}

func (c *checker) standings(list []Standing, seats []Seat) {
	n := len(list)
	if len(seats) > MaxSeats {
		_, others := seatStandings(list, seats)
		n = len(others)
	}
	most := StandingsKept(len(seats))
	c.that(n <= most, "standings are %d, must be at most %d", n, most)
	for i, e := range list {
		c.peer("standings", e.Peer)
		c.that(i == 0 || list[i-1].Peer < e.Peer, "standings: %v is out of order", e.Peer)
		c.between("standings: owed", uint64(e.Owed), 0, MaxOwed)
		c.between("standings: strikes", uint64(e.StrikesQ8), 0, MaxStrikesQ8)
		c.between("standings: until", uint64(e.Until), 0, 2*MaxRound)
		c.that((e.Until == 0) == (e.Reason == Held) && e.Reason <= Banned, "standings: reason is %d with a ban until %d", e.Reason, e.Until)
		c.between("standings: pace", e.Pace, 0, MaxTokens)
		c.between("standings: lack", uint64(e.LackQ16), 0, 1<<16)
		c.between("standings: work", e.Work, 0, MaxRunTokens)
		c.between("standings: kept", uint64(e.Kept), 0, 2*MaxRound)
		if e.Kept > 0 {
			_, seated := slices.BinarySearchFunc(seats, e.Peer, func(s Seat, id peer.ID) int { return bytes.Compare([]byte(s.Peer), []byte(id)) })
			c.that(!seated, "standings: %v has a seat, and one is kept for it", e.Peer)
		}
	}
}

func (c *checker) proofs(list []Proof) {
	c.that(len(list) <= MaxProofs, "proofs are %d, must be at most %d", len(list), MaxProofs)
	for _, p := range list {
		c.envelopes("proofs", [][]byte{p.First, p.Second}, 2)
	}
}
