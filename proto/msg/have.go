package msg

import (
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// HaveEntry is what a witness thinks of the commit of one seat.
type HaveEntry struct {
	Seat   uint32  // index into the seats of the round
	Commit cid.Cid // CID of the commit's envelope
	Reason Reason  // Held: its delta is here and valid
}

// Audit is what an auditor measured of a delta of the round before: how much
// less the loss on the common batch is after a fifth of the delta, in 1e-9
// nats.
type Audit struct {
	Seat     uint32 // index into the seats of the round before
	GainNano int64
}

// Retrace is what an auditor found when it did a part of the training of a
// delta of the round before again: how far its result is from what the trace
// says, beside what there is to be found. 0 is the same, a million something
// else altogether.
type Retrace struct {
	Seat     uint32 // index into the seats of the round before
	ErrorPPM uint32
}

// Have is a witness's word on the commits of a round, given once.
type Have struct {
	Run     cid.Cid
	Round   Round
	Head    cid.Cid
	Peer    peer.ID
	Entries []HaveEntry // sorted by seat, at most one for each
	Joins   []cid.Cid   // CIDs of the join requests it holds, sorted bytewise
	Audits  []Audit     `json:",omitzero"` // sorted by seat, at most one for each
	Merges  []Merge     `json:",omitzero"` // sorted
	// LossMicro is the mean held-out loss per token of the head's state, in 1e-6
	// nats, at least 1; 0: not measured.
	LossMicro uint64 `json:",omitzero"`
	// Retraces are sorted by seat, at most one for each.
	Retraces []Retrace `json:",omitzero"`
	// Reports are bits, the lowest of each byte first: which of the peers without
	// a seat that audit in this round it has a report of.
	Reports []byte    `json:",omitzero"`
	Orders  []cid.Cid `json:",omitzero"` // CIDs of the orders that it holds, sorted bytewise
	// Cell, if not 0, is the cell whose commits the entries are of. Else, in a
	// round with cells, they are of cells: the seat is the cell's number less one,
	// the commit the CID of its summary.
	Cell uint32 `json:",omitzero"`
	// KappaPPM is how far the deltas of the round before went apart: the norm of
	// their covariance beside that of the update, 1e-6, at least 1; 0: not measured.
	KappaPPM uint32 `json:",omitzero"`
	// ArrivalMillis is when nearly all deltas were here, since the round began; 0:
	// they are not, or their training was cut short.
	ArrivalMillis uint64 `json:",omitzero"`
}

// Validate implements Message.
func (m *Have) Validate() error {
	c := check("have")
	c.rawCID("run", m.Run)
	c.round(m.Round)
	c.rawCID("head", m.Head)
	c.peer("peer", m.Peer)
	c.between("cell", uint64(m.Cell), 0, MaxCells)
	c.that(len(m.Entries) <= MaxSeats, "entries are %d, must be at most %d", len(m.Entries), MaxSeats)
	for i, e := range m.Entries {
		c.between("seat", uint64(e.Seat), 0, MaxSeats-1)
		c.that(i == 0 || m.Entries[i-1].Seat < e.Seat, "seat %d is out of order", e.Seat)
		c.rawCID("commit", e.Commit)
		c.that(e.Reason < haveEnd, "reason is %d, must be below %d", e.Reason, haveEnd)
	}
	c.that(len(m.Joins) <= MaxJoins, "joins are %d, must be at most %d", len(m.Joins), MaxJoins)
	for i, j := range m.Joins {
		c.rawCID("join", j)
		c.that(i == 0 || compareCIDs(m.Joins[i-1], j) < 0, "join %v is out of order", j)
	}
	c.audits(m.Audits, MaxAudits)
	c.between("loss", m.LossMicro, 0, MaxLossMicro)
	c.between("kappa", uint64(m.KappaPPM), 0, MaxKappaPPM)
	c.between("arrival", m.ArrivalMillis, 0, MaxArrivalMillis)
	c.that(len(m.Merges) <= MaxMerges, "merges are %d, must be at most %d", len(m.Merges), MaxMerges)
	for i, e := range m.Merges {
		c.merge(e)
		c.that(i == 0 || m.Merges[i-1].Compare(e) < 0, "merge of %v is out of order", e.Head)
	}
	c.retraces(m.Retraces)
	n := len(m.Reports)
	c.that(n <= MaxReports/8 && (n == 0 || m.Reports[n-1] != 0), "reports have %d bytes, must have at most %d, of which the last is not 0", n, MaxReports/8)
	c.that(len(m.Orders) <= MaxOrders, "orders are %d, must be at most %d", len(m.Orders), MaxOrders)
	for i, o := range m.Orders {
		c.rawCID("order", o)
		c.that(i == 0 || compareCIDs(m.Orders[i-1], o) < 0, "order %v is out of order", o)
	}
	return c.result()
}

// Signer implements Message.
func (m *Have) Signer() peer.ID { return m.Peer }

// RunID implements Message.
func (m *Have) RunID() cid.Cid { return m.Run }

func (m *Have) kind() kind { return kindHave }
