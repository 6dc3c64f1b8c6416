package round

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// Peers without a seat audit, too, if they have worked for the run: they are
// drawn by their work, so that who divides it among many identities is not drawn
// more often for it.
const (
	outsideDomain = "moot outside 1"
	maxWork       = 1 << 55 // that counts in the draw: the sum of all stays below 2^63
	// dissentPart of those that measured may disagree where peers without a seat
	// are among them: of more auditors a liar is one more often.
	dissentPart = 5
)

// outsider is a peer without a seat that was drawn.
type outsider struct {
	peer  peer.ID
	seats []uint32 // whose contributions it audits, sorted
}

// outsiders draws who audits the contributions of the record parent without a
// seat in the round after it, sorted by peer.
func (ru *Rules) outsiders(parent Link) []outsider {
	r := parent.Record
	if ru.manifest.Trust.Outsiders == 0 || len(r.Contributions) == 0 || Cells(len(r.Seats)) > 0 {
		return nil
	}
	var peers []peer.ID
	var sums []uint64
	sum := uint64(0)
	for _, e := range r.Standings {
		if e.Work > 0 && e.Owed == 0 && e.Until == 0 && e.StrikesQ8 < suspectQ8 && seatOf(r.NextSeats, e.Peer) < 0 {
			sum += min(e.Work, maxWork)
			peers, sums = append(peers, e.Peer), append(sums, sum)
		}
	}
	if sum == 0 {
		return nil
	}
	var out []outsider
	for _, c := range r.Contributions {
		maker := r.Seats[c.Seat].Peer
		for k := range ru.manifest.Trust.Outsiders {
			b := append(append([]byte(outsideDomain), parent.ID.Bytes()...), maker...)
			key := sha256.Sum256(binary.LittleEndian.AppendUint32(b, k))
			at, _ := bits.Mul64(binary.LittleEndian.Uint64(key[:]), sum)
			i, _ := slices.BinarySearchFunc(sums, at, func(s, at uint64) int {
				if s <= at {
					return -1
				}
				return 1
			})
			if peers[i] != maker {
				out = give(out, peers[i], c.Seat)
			}
		}
	}
	return out
}

// give adds a contribution to what a peer audits, if there is room for it.
func give(list []outsider, id peer.ID, seat uint32) []outsider {
	i, ok := slices.BinarySearchFunc(list, id, func(o outsider, id peer.ID) int { return bytes.Compare([]byte(o.peer), []byte(id)) })
	if !ok {
		if len(list) == msg.MaxReports {
			return list
		}
		list = slices.Insert(list, i, outsider{peer: id})
	}
	o := &list[i]
	if n := len(o.seats); n < msg.MaxReportAudits && (n == 0 || o.seats[n-1] != seat) {
		o.seats = append(o.seats, seat)
	}
	return list
}

// outsiderOf is the place of a peer among the outsiders, -1: none.
func outsiderOf(list []outsider, id peer.ID) int {
	return slices.IndexFunc(list, func(o outsider) bool { return o.peer == id })
}

// OutsideAudits returns what a peer without a seat audits of the record parent
// in the round after it.
func (ru *Rules) OutsideAudits(parent Link, self peer.ID) []AuditItem {
	list := ru.outsiders(parent)
	i := outsiderOf(list, self)
	if i < 0 {
		return nil
	}
	var out []AuditItem
	for _, c := range parent.Record.Contributions {
		if slices.Contains(list[i].seats, c.Seat) {
			out = append(out, AuditItem{Seat: c.Seat, Maker: parent.Record.Seats[c.Seat].Peer, Delta: c.Delta, ClipQ16: c.ClipQ16})
		}
	}
	return out
}

// isReport reports whether m is a report for the round after parent.
func (ru *Rules) isReport(m *msg.Report, parent Link) bool {
	return m.Run.Equals(ru.run) && m.Round == parent.Record.Round+1 && m.Head.Equals(parent.ID)
}

// reported are the reports that at least t haves have, by outsider. Those that
// are not here are missing: there is no valid record on this basis.
func (ru *Rules) reported(b Basis, counting []msg.Signed, t int) (list []msg.Signed, missing []int) {
	for i, o := range ru.outsiders(b.Parent) {
		n := 0
		for _, s := range counting {
			if hasReport(s.Message.(*msg.Have), i) {
				n++
			}
		}
		if n == 0 || n < t {
			continue
		}
		s, ok := msg.Signed{}, false
		if b.Report != nil {
			s, ok = b.Report(o.peer)
		}
		if m, is := s.Message.(*msg.Report); !ok || !is || s.From != o.peer || !ru.isReport(m, b.Parent) {
			missing = append(missing, i)
			continue
		}
		list = append(list, s)
	}
	return list, missing
}

// reportIn finds a peer's report among others.
func reportIn(list []msg.Signed) func(peer.ID) (msg.Signed, bool) {
	return func(id peer.ID) (msg.Signed, bool) {
		i := slices.IndexFunc(list, func(s msg.Signed) bool { return s.From == id })
		if i < 0 {
			return msg.Signed{}, false
		}
		return list[i], true
	}
}

func hasReport(h *msg.Have, i int) bool { return i/8 < len(h.Reports) && h.Reports[i/8]>>(i%8)&1 != 0 }

// reportBits are what a have says of the reports that are here.
func (h *height) reportBits() []byte {
	var b []byte
	for i, s := range h.reports {
		if s.Message == nil {
			continue
		}
		for len(b) <= i/8 {
			b = append(b, 0)
		}
		b[i/8] |= 1 << (i % 8)
	}
	return b
}

// addReport takes the first report of a peer that was drawn.
func (m *Machine) addReport(h *height, s msg.Signed) {
	v := s.Message.(*msg.Report)
	if i := outsiderOf(h.outside, s.From); i >= 0 && h.reports[i].Message == nil && m.rules.isReport(v, h.parent) {
		h.reports[i] = s
		h.byCID[s.CID] = s
	}
}

// report finds the report of a peer that was drawn.
func (h *height) report(id peer.ID) (msg.Signed, bool) {
	i := outsiderOf(h.outside, id)
	if i < 0 || h.reports[i].Message == nil {
		return msg.Signed{}, false
	}
	return h.reports[i], true
}

// giveReport says what Self found without a seat.
func (m *Machine) giveReport(h *height) {
	mine := m.own.at(h.slot())
	if h.self >= 0 || !h.audited || len(h.gains)+len(h.retraced) == 0 || mine.report != nil || mine.forgotten {
		return
	}
	if s, ok := m.send(&msg.Report{
		Run: m.rules.run, Round: h.round, Head: h.parent.ID, Peer: m.cfg.Self, Audits: h.gains, Retraces: h.retraced,
	}); ok {
		m.place(s)
	}
}
