package round

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// In runs with the newer judgement, all witnesses audit what a peer sends that
// was found wanting not long ago, so that a few auditors that lie together
// cannot strike somebody twice, or spare somebody for long. And who sent nothing
// of worth several times counts for nothing, until audits that tell something
// say that it works again; proto/README.md section 6.
const (
	accusedQ8     = suspectQ8     // strikes for a delta that most of its few auditors accuse
	doubtQ8       = strikeQ8 / 4  // strikes from which on a peer is in doubt: for about eleven rounds after an accusation
	doubtLackQ16  = 3 << 14       // lack from which on it is: two deltas of no worth, one after the other
	maxDoubted    = 8             // whom all audit in a round, or of a cell
	maxOpen       = 12            // the same, with the newest judgement
	openQ8        = doubtQ8       // strikes that all have at least after audits that are contested: all audit them once
	alarmQ8       = strikeQ8 / 16 // strikes of a quarter of the makers from which on a few strike nobody: there were some in the last thirty rounds
	reopenQ8      = 3 << 4        // strikes of half of them, down to which it is not done again: for four rounds
	signQ16       = 1 << 11       // what the lack of who counts for nothing moves by a sign of work or idleness
	contestedPart = 4             // of auditors that are as far apart as this part of median and deviation together, one lies
	worthlessQ16  = 7 << 13       // lack from which on a delta counts for nothing: three of them
	noWorthShift  = 1             // the lack moves a half by a delta of no worth
	fadeLackShift = 8             // what it loses in a round whose audits tell nothing
	nothing       = 4             // a gain of less than this part of the median is none
)

// newer reports whether audits are judged by the newer rules.
func (ru *Rules) newer() bool { return ru.manifest.Trust.Judgement > 0 }

// newest reports whether audits are judged by judgement 2 or later.
func (ru *Rules) newest() bool { return ru.manifest.Trust.Judgement > 1 }

// worthless reports whether a standing has so little worth that deltas do not
// count.
func (ru *Rules) worthless(e msg.Standing) bool { return ru.newer() && e.LackQ16 >= worthlessQ16 }

// panel says who audits what: those in a ring, of deltas of some makers.
type panel struct {
	head    cid.Cid
	ring    auditRing
	few     int
	doubted []peer.ID
}

// newPanel is of the round after a record, whose standings say who is in doubt.
func (ru *Rules) newPanel(parent Link, ring auditRing, makers []peer.ID) panel {
	p := panel{head: parent.ID, ring: ring, few: int(ru.manifest.Trust.Auditors)}
	if !ru.newer() {
		return p
	}
	var list []msg.Standing
	for _, id := range makers {
		e := standings(parent.Record.Standings).of(id)
		if e.StrikesQ8 >= doubtQ8 || e.LackQ16 >= doubtLackQ16 {
			list = append(list, e)
		}
	}
	most := maxDoubted
	order := func(id peer.ID) []byte { return []byte(id) }
	if ru.newest() {
		most = maxOpen
		order = func(id peer.ID) []byte { // not always the same of many
			key := auditKey(parent.ID, id)
			return key[:]
		}
	}
	slices.SortFunc(list, func(a, b msg.Standing) int {
		return cmp.Or(cmp.Compare(b.StrikesQ8, a.StrikesQ8), cmp.Compare(b.LackQ16, a.LackQ16), bytes.Compare(order(a.Peer), order(b.Peer)))
	})
	for _, e := range list[:min(len(list), most)] {
		p.doubted = append(p.doubted, e.Peer)
	}
	return p
}

// alarmed reports whether so many were found wanting or accused lately, or audits
// were contested, that who audits may be lying: then a few auditors that agree accuse,
// and all decide.
func (ru *Rules) alarmed(list []measured) bool {
	if !ru.newest() {
		return false
	}
	judged, wanting := 0, 0
	for _, e := range list {
		if !e.enough {
			continue
		}
		if judged++; e.strikes >= alarmQ8 {
			wanting++
		}
	}
	return 4*wanting >= judged
}

// contested reports whether audits that are not clear contradict each other: all
// auditors of a delta measure on the same samples, so that what they find differs
// by what floats of their machines do, or one of them lies.
func (ru *Rules) contested(list []measured, middle, spread int64) bool {
	if !ru.newest() {
		return false
	}
	far, judged, asked := false, 0, 0
	for _, e := range list {
		if !e.enough || e.weight == 0 {
			continue
		}
		if judged++; e.strikes >= reopenQ8 {
			asked++
		}
		apart := e.gains[len(e.gains)-1] - e.gains[0]
		far = far || contestedPart*apart > max(middle, -middle)+spread
	}
	return far && 2*asked < judged
}

func (p panel) inDoubt(maker peer.ID) bool { return slices.Contains(p.doubted, maker) }

// of returns the auditors of what maker sent: all of the ring if it is in doubt.
// The first few of them retrace its training, too.
func (p panel) of(maker peer.ID) (drawn []peer.ID, few int) {
	n := p.few
	if p.inDoubt(maker) {
		n = max(n, len(p.ring))
	}
	drawn = p.ring.of(p.head, maker, n)
	return drawn, min(p.few, len(drawn))
}

// items are those of a list, sorted by seat, that an auditor has to measure: no
// more than fit into a have. Then those come first that all audit, and of the
// others those for which it is the first in line, so that with few witnesses most
// deltas have some auditors.
func (p panel) items(self peer.ID, list []AuditItem) []AuditItem {
	var mine []AuditItem
	place := make(map[uint32]int)
	for _, item := range list {
		drawn, few := p.of(item.Maker)
		i := slices.Index(drawn, self)
		if i < 0 {
			continue
		}
		place[item.Seat], item.Extra = i, i >= few
		if p.inDoubt(item.Maker) {
			place[item.Seat] = -1
		}
		mine = append(mine, item)
	}
	if len(mine) > msg.MaxAudits {
		slices.SortFunc(mine, func(a, b AuditItem) int {
			x, y := auditKey(p.head, a.Maker), auditKey(p.head, b.Maker)
			return cmp.Or(cmp.Compare(place[a.Seat], place[b.Seat]), bytes.Compare(x[:], y[:]))
		})
		mine = mine[:msg.MaxAudits]
		slices.SortFunc(mine, func(a, b AuditItem) int { return cmp.Compare(a.Seat, b.Seat) })
	}
	return mine
}
