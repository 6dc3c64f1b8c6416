package msg

import (
	"fmt"
	"math/bits"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	wirev1 "github.com/moot-net/moot/proto/wire/v1"
)

// CellSummary is what a cell came to in a round, for those outside of it. The
// seats of the cell vote for its CID.
type CellSummary struct {
	Run       cid.Cid
	Round     Round
	Head      cid.Cid
	Cell      uint32  // from 1
	Record    cid.Cid // the cell's own record
	Aggregate cid.Cid // the mean of its deltas, as fold.NewCell gives it
	Weight    uint64  // with which that enters the fold
	Tokens    uint64  // by which the run's tokens grow
	Fresh     bool    // nothing in it counts as long as anything else does
	Present   []byte  // bits, lowest first: seats of the cell whose have or commit is in its record
	Included  []byte  // seats whose commit is
	// TokensEach are those of the commits that are included, in the order of their
	// seats, and Audits what seats of the cell measured; only in runs with audits.
	TokensEach []uint64    `json:",omitzero"`
	Audits     []CellAudit `json:",omitzero"`
}

// CellAuditOf is an audit as a cell tells it: in whole 1e-6 nats, rounded down.
func CellAuditOf(by uint32, a Audit) CellAudit {
	micro := a.GainNano / microNano
	if a.GainNano < micro*microNano {
		micro--
	}
	return CellAudit{By: by, Seat: a.Seat, GainMicro: max(micro, -MaxGainNano/microNano)}
}

// Audit is what the cell's audit says.
func (a *CellAudit) Audit() Audit { return Audit{Seat: a.Seat, GainNano: a.GainMicro * microNano} }

// CellAudit is what a seat of a cell measured of a delta of the round before.
type CellAudit struct {
	By        uint32 // seat of the cell
	Seat      uint32 // of the round before
	GainMicro int64  // what it measured, in 1e-6 nats
}

// CID is what the seats vote for.
func (s *CellSummary) CID() cid.Cid {
	b, err := marshal(s.toWire())
	if err != nil {
		panic("bug: a summary can be encoded: " + err.Error())
	}
	return RawCID(b)
}

// Has reports whether bit i is set.
func Has(bits []byte, i int) bool { return i/8 < len(bits) && bits[i/8]>>(i%8)&1 == 1 }

// SetBit sets bit i of as many bits as there are seats.
func SetBit(bits []byte, i int) { bits[i/8] |= 1 << (i % 8) }

func bitCount(b []byte) int {
	n := 0
	for _, v := range b {
		n += bits.OnesCount8(v)
	}
	return n
}

func (c *checker) cellAudits(list []CellAudit) {
	n := 0 // of one seat
	for i, a := range list {
		c.between("audit: by seat", uint64(a.By), 0, MaxSeats-1)
		c.between("audit: seat", uint64(a.Seat), 0, MaxAllSeats-1)
		c.between("audit: gain", uint64(max(a.GainMicro, -a.GainMicro)), 0, MaxGainNano/microNano)
		if n++; i == 0 || list[i-1].By != a.By {
			n = 1
		}
		c.that(n <= MaxAudits, "audits by seat %d are more than %d", a.By, MaxAudits)
		if i > 0 {
			p := list[i-1]
			c.that(p.By < a.By || p.By == a.By && p.Seat < a.Seat, "audit of seat %d by %d is out of order", a.Seat, a.By)
		}
	}
}

// columnsOf are audits as they are on the wire.
func columnsOf(list []CellAudit) (counts, seats []uint32, gains []int64) {
	for _, a := range list {
		for len(counts) <= int(a.By) {
			counts = append(counts, 0)
		}
		counts[a.By]++
		seats, gains = append(seats, a.Seat), append(gains, a.GainMicro)
	}
	return counts, seats, gains
}

func cellAuditsFrom(counts, seats []uint32, gains []int64) ([]CellAudit, error) {
	var list []CellAudit
	for by, n := range counts {
		for ; n > 0 && len(list) < min(len(seats), len(gains)); n-- {
			i := len(list)
			list = append(list, CellAudit{By: uint32(by), Seat: seats[i], GainMicro: gains[i]})
		}
		if n > 0 {
			return nil, &InvalidError{"audits of a cell", "counts are more than there are audits"}
		}
	}
	if len(list) != len(seats) || len(list) != len(gains) {
		return nil, &InvalidError{"audits of a cell", fmt.Sprintf("%d seats and %d gains, must be as many as counts say, %d", len(seats), len(gains), len(list))}
	}
	return list, nil
}

// CellVote is the signature of a seat's vote for a summary. All else in the vote
// follows from the summary.
type CellVote struct {
	Seat      uint32 // of the cell
	Signature []byte
}

// CellResult tells everybody what a cell came to, with the votes of a quorum of
// its seats. Any seat of the cell may say it.
type CellResult struct {
	Summary CellSummary
	Peer    peer.ID
	Votes   []CellVote // sorted by seat
}

// Validate implements Message.
func (m *CellResult) Validate() error {
	c := check("cell result")
	s := &m.Summary
	c.rawCID("run", s.Run)
	c.round(s.Round)
	c.rawCID("head", s.Head)
	c.peer("peer", m.Peer)
	c.between("cell", uint64(s.Cell), 1, MaxCells)
	c.rawCID("record", s.Record)
	c.fileCID("aggregate", s.Aggregate)
	c.between("weight", s.Weight, 1, MaxTokens)
	c.between("tokens", s.Tokens, 1, MaxRunTokens)
	c.that(len(s.Present) > 0 && len(s.Present) <= (MaxSeats+7)/8, "present has %d bytes, must have 1 to %d", len(s.Present), (MaxSeats+7)/8)
	c.that(len(s.Included) == len(s.Present), "included has %d bytes, must have as many as present, %d", len(s.Included), len(s.Present))
	for i := range min(len(s.Included), len(s.Present)) {
		c.that(s.Included[i]&^s.Present[i] == 0, "included has a seat that present lacks")
	}
	if n := len(s.TokensEach); n > 0 {
		c.that(n == bitCount(s.Included), "tokens of %d seats, must be of as many as are included, %d", n, bitCount(s.Included))
	}
	for _, v := range s.TokensEach {
		c.between("tokens of a seat", v, 1, MaxTokens)
	}
	c.cellAudits(s.Audits)
	c.that(len(m.Votes) > 0 && len(m.Votes) <= MaxSeats, "votes are %d, must be 1 to %d", len(m.Votes), MaxSeats)
	for i, v := range m.Votes {
		c.between("votes: seat", uint64(v.Seat), 0, MaxSeats-1)
		c.that(i == 0 || m.Votes[i-1].Seat < v.Seat, "votes: seat %d is out of order", v.Seat)
		c.that(len(v.Signature) == signatureBytes, "votes: a signature has %d bytes, must have %d", len(v.Signature), signatureBytes)
	}
	return c.result()
}

// Signer implements Message.
func (m *CellResult) Signer() peer.ID { return m.Peer }

// RunID implements Message.
func (m *CellResult) RunID() cid.Cid { return m.Summary.Run }

func (m *CellResult) kind() kind { return kindCell }

// Vote is what a seat of the cell signs for the summary.
func (s *CellSummary) Vote(id peer.ID) *Vote {
	return &Vote{Run: s.Run, Round: s.Round, Head: s.Head, Record: s.CID(), Peer: id, Cell: s.Cell}
}

// Envelope returns the envelope of a vote with this signature; whether it is
// one, Open says.
func (s *CellSummary) Envelope(id peer.ID, signature []byte) ([]byte, error) {
	return envelopeWith(signature, s.Vote(id))
}

// CellVoteOf returns what a result has of a vote.
func CellVoteOf(s Signed, seat uint32) (CellVote, error) {
	signature, err := signatureOf(s)
	return CellVote{Seat: seat, Signature: signature}, err
}

func (s *CellSummary) toWire() *wirev1.CellSummary {
	counts, seats, gains := columnsOf(s.Audits)
	return &wirev1.CellSummary{
		TokensEach: s.TokensEach, AuditCounts: counts, AuditSeats: seats, AuditGainsMicro: gains,
		Run: s.Run.Bytes(), Round: uint64(s.Round), Head: s.Head.Bytes(), Cell: s.Cell, Record: s.Record.Bytes(),
		Aggregate: s.Aggregate.Bytes(), Weight: s.Weight, Tokens: s.Tokens, Fresh: s.Fresh, Present: s.Present, Included: s.Included,
	}
}

func (m *CellResult) toWire() proto.Message {
	w := &wirev1.CellResult{Summary: m.Summary.toWire(), Peer: []byte(m.Peer)}
	for _, v := range m.Votes {
		w.Votes = append(w.Votes, &wirev1.CellVote{Seat: v.Seat, Signature: v.Signature})
	}
	return w
}

func cellResultFromWire(w *wirev1.CellResult) (*CellResult, error) {
	var r cidReader
	s := w.GetSummary()
	audits, err := cellAuditsFrom(s.GetAuditCounts(), s.GetAuditSeats(), s.GetAuditGainsMicro())
	if err != nil {
		return nil, err
	}
	m := &CellResult{
		Summary: CellSummary{
			Run: r.read(s.GetRun()), Round: Round(s.GetRound()), Head: r.read(s.GetHead()), Cell: s.GetCell(),
			Record: r.read(s.GetRecord()), Aggregate: r.read(s.GetAggregate()), Weight: s.GetWeight(), Tokens: s.GetTokens(),
			Fresh: s.GetFresh(), Present: s.GetPresent(), Included: s.GetIncluded(),
			TokensEach: s.GetTokensEach(), Audits: audits,
		},
		Peer: peer.ID(w.Peer),
	}
	for _, v := range w.Votes {
		m.Votes = append(m.Votes, CellVote{Seat: v.GetSeat(), Signature: v.GetSignature()})
	}
	return m, r.err
}
