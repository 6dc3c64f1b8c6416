package msg

import (
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Report is what a peer without a seat found as an auditor, said once for each
// head. Witnesses say in their haves which reports they hold.
type Report struct {
	Run      cid.Cid
	Round    Round
	Head     cid.Cid
	Peer     peer.ID
	Audits   []Audit   // sorted by seat, at most one for each
	Retraces []Retrace `json:",omitzero"` // likewise
}

// Validate implements Message.
func (m *Report) Validate() error {
	c := check("report")
	c.rawCID("run", m.Run)
	c.round(m.Round)
	c.rawCID("head", m.Head)
	c.peer("peer", m.Peer)
	c.that(len(m.Audits)+len(m.Retraces) > 0, "nothing was measured")
	c.audits(m.Audits, MaxReportAudits)
	c.retraces(m.Retraces)
	return c.result()
}

func (c *checker) audits(list []Audit, most int) {
	c.that(len(list) <= most, "audits are %d, must be at most %d", len(list), most)
	for i, a := range list {
		c.between("audit: seat", uint64(a.Seat), 0, MaxAllSeats-1)
		c.that(i == 0 || list[i-1].Seat < a.Seat, "audit: seat %d is out of order", a.Seat)
		c.gain(a.GainNano)
	}
}

func (c *checker) retraces(list []Retrace) {
	c.that(len(list) <= MaxRetraces, "retraces are %d, must be at most %d", len(list), MaxRetraces)
	for i, e := range list {
		c.between("retrace: seat", uint64(e.Seat), 0, MaxSeats-1)
		c.that(i == 0 || list[i-1].Seat < e.Seat, "retrace: seat %d is out of order", e.Seat)
		c.between("retrace: error", uint64(e.ErrorPPM), 0, MaxErrorPPM)
	}
}

// Signer implements Message.
func (m *Report) Signer() peer.ID { return m.Peer }

// RunID implements Message.
func (m *Report) RunID() cid.Cid { return m.Run }

func (m *Report) kind() kind { return kindReport }
