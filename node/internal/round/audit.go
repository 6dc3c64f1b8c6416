package round

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

// What the judgement of audits is made with; proto/README.md section 6 says
// why.
const (
	damageMADs  = 6       // below the median, and below zero, a delta is damaging
	clearMADs   = 2       // audits tell work from idleness if the median is as many above zero
	usefulQ16   = 1 << 14 // worth, from which a delta is useful: a quarter
	rateBits    = 12      // of the gain per token after the point
	auditDomain = "moot audit 1"
)

// auditRing is the witnesses of a round in an order that nobody chooses. Each
// delta of the round before is audited by those that follow its maker.
type auditRing []ringSeat

type ringSeat struct {
	peer peer.ID
	key  [sha256.Size]byte
}

func auditKey(head cid.Cid, id peer.ID) [sha256.Size]byte {
	return sha256.Sum256(append(append([]byte(auditDomain), head.Bytes()...), id...))
}

func newAuditRing(head cid.Cid, seats []msg.Seat) auditRing {
	var ring auditRing
	for _, s := range seats {
		if !s.Trainee {
			ring = append(ring, ringSeat{s.Peer, auditKey(head, s.Peer)})
		}
	}
	slices.SortFunc(ring, func(a, b ringSeat) int { return bytes.Compare(a.key[:], b.key[:]) })
	return ring
}

// of returns the auditors of what maker sent, at most n.
func (ring auditRing) of(head cid.Cid, maker peer.ID, n int) []peer.ID {
	key := auditKey(head, maker)
	at, _ := slices.BinarySearchFunc(ring, key, func(s ringSeat, key [sha256.Size]byte) int {
		return bytes.Compare(s.key[:], key[:])
	})
	var out []peer.ID
	for i := range ring {
		if s := ring[(at+i)%len(ring)]; s.peer != maker && len(out) < n {
			out = append(out, s.peer)
		}
	}
	return out
}

// AuditItem is a contribution that an auditor has to measure.
type AuditItem struct {
	Seat    uint32 // of the round that it was made in
	Maker   peer.ID
	Delta   cid.Cid
	ClipQ16 uint32
	// Extra: it is one of those that all witnesses audit, and others retrace it.
	Extra bool
}

// Audits returns the contributions of the record parent that the peer audits in
// the round after it; Machine.auditsInCell has those of a round with cells.
func (ru *Rules) Audits(parent Link, self peer.ID) []AuditItem {
	r := parent.Record
	if ru.manifest.Trust.Auditors == 0 || len(r.Contributions) == 0 || Cells(len(r.Seats)) > 0 {
		return nil
	}
	var makers []peer.ID
	var items []AuditItem
	for _, c := range r.Contributions {
		maker := r.Seats[c.Seat].Peer
		makers = append(makers, maker)
		items = append(items, AuditItem{Seat: c.Seat, Maker: maker, Delta: c.Delta, ClipQ16: c.ClipQ16})
	}
	return ru.newPanel(parent, newAuditRing(parent.ID, r.NextSeats), makers).items(self, items)
}

// measured is what the auditors of a contribution say.
type measured struct {
	judgement msg.Judgement
	maker     peer.ID
	tokens    uint64
	weight    uint64
	lack      uint32  // of its maker, before
	strikes   uint32  // the same
	gains     []int64 // sorted
	dissent   int     // auditors that may disagree with a strike
	jury      int     // of so many a majority decides on a strike; 0: its maker is not in doubt
	enough    bool    // a majority of its auditors
	accused   bool    // most of its auditors find that it did harm, and it is not struck
	unclear   bool    // audits of its round tell nothing of worth
	open      bool    // and contradict each other: all audit what its maker sends next
	sign      int     // what they hint at nevertheless: 1 work, -1 idleness
	untrue    bool    // its training, done again, gives something else
	withheld  bool    // what that needs was not there
}

// measure collects the audits of the parent's contributions that count: those
// of the auditors that were drawn.
func (ru *Rules) measure(b Basis) []measured {
	parent := b.Parent.Record
	if ru.manifest.Trust.Auditors == 0 || len(parent.Contributions) == 0 {
		return nil
	}
	outside, said := ru.outsiders(b.Parent), b.said
	if said == nil {
		said = findingsOf(b.Haves)
	}
	var list []measured
	for _, c := range ru.entered(b) {
		was := standings(parent.Standings).of(c.maker)
		e := measured{maker: c.maker, tokens: c.tokens, weight: c.weight, lack: was.LackQ16, strikes: was.StrikesQ8}
		drawn, few := c.auditors, c.few
		if c.inDoubt {
			e.jury = len(drawn)
		}
		_, draws := ru.retraceKey(b.Parent, e.maker)
		var found []uint32
		take := func(audits []msg.Audit, retraces []msg.Retrace) {
			i, ok := slices.BinarySearchFunc(audits, c.seat, func(a msg.Audit, seat uint32) int { return cmp.Compare(a.Seat, seat) })
			if ok {
				e.gains = append(e.gains, audits[i].GainNano)
			}
			if ppm, ok := retraceOf(retraces, c.seat); ok && draws {
				found = append(found, ppm)
			}
		}
		for _, f := range said {
			switch i := slices.Index(drawn, f.by); {
			case i >= few:
				take(f.audits, nil)
			case i >= 0:
				take(f.audits, f.retraces)
			}
		}
		seated, retraced := len(e.gains), len(found) // a majority of these decides whether there are enough
		for _, s := range b.reports {
			if i := outsiderOf(outside, s.From); slices.Contains(outside[i].seats, c.seat) {
				m := s.Message.(*msg.Report)
				if e.jury > 0 {
					take(nil, m.Retraces)
					continue
				}
				take(m.Audits, m.Retraces)
			}
		}
		// Of an even number a half could decide: the last is left out.
		e.gains, found = odd(e.gains, seated), odd(found, retraced)
		if len(e.gains) == 0 && len(found) == 0 {
			continue
		}
		e.judgement = msg.Judgement{Seat: c.seat, Measured: uint32(len(e.gains)), Retraced: uint32(len(found))}
		if len(e.gains) > 0 {
			slices.Sort(e.gains)
			e.enough = 2*seated > len(drawn)
			e.dissent = ru.dissent(len(e.gains))
			e.judgement.GainNano = median(e.gains)
		}
		if len(found) > 0 {
			slices.Sort(found)
			e.judgement.ErrorPPM = found[ru.dissent(len(found))]
			if 2*retraced > few {
				e.withheld = e.judgement.ErrorPPM == Withheld
				e.untrue = !e.withheld && e.judgement.ErrorPPM > tolerancePPM
			}
		}
		list = append(list, e)
	}
	return list
}

// odd leaves out the last one of an even number, if there are more than least.
func odd[T any](list []T, least int) []T {
	if n := len(list); n > least && n%2 == 0 {
		return list[:n-1]
	}
	return list
}

// dissent is how many of n auditors may disagree with a strike.
func (ru *Rules) dissent(n int) int {
	if ru.manifest.Trust.Outsiders == 0 {
		return 0
	}
	return n / dissentPart
}

// median is the element with index n/2 of n sorted ones.
func median[T any](sorted []T) T { return sorted[len(sorted)/2] }

func medianOf[T cmp.Ordered](list []T) T {
	slices.Sort(list)
	return median(list)
}

// judge gives each contribution that was measured its verdict and its worth;
// before are the judgements in the parent's record.
func (ru *Rules) judge(list []measured, before []msg.Judgement) {
	ru.judgeGains(list, before)
	for i := range list {
		switch e := &list[i]; {
		case e.untrue:
			e.judgement.WorthQ16, e.judgement.Verdict, e.accused = 0, msg.Damaging, false
		case e.withheld && e.judgement.Verdict != msg.Damaging:
			e.judgement.WorthQ16, e.judgement.Verdict = 0, msg.Useless
		}
	}
}

func (ru *Rules) judgeGains(list []measured, before []msg.Judgement) {
	reference := references(list)
	if len(reference) == 0 {
		return
	}
	middle, spread := centre(gainsOf(reference))
	if ru.steady() {
		spread = steadied(middle, spread, before)
	}
	bound := min(middle-damageMADs*spread, 0)
	rate := int64(0)
	if telling(middle, spread) {
		rate = medianRate(reference)
	}
	alarmed := ru.alarmed(list)
	contested := rate == 0 && ru.contested(list, middle, spread)
	var damaging []int
	enough := 0
	for i := range list {
		e := &list[i]
		if !e.enough {
			continue
		}
		enough++
		e.open = contested && e.weight > 0
		accusers, _ := slices.BinarySearch(e.gains, bound)
		e.accused = ru.newer() && 2*accusers > len(e.gains)
		if e.struck(accusers) && (e.jury > 0 || !alarmed) {
			damaging = append(damaging, i)
		}
		e.judgement.WorthQ16 = fold.One
		switch {
		case rate > 0:
			e.judgement.WorthQ16 = share(e.rate(), rate)
		case ru.newer():
			e.unclear = true
			e.sign = signOf(e.judgement.GainNano, middle)
		}
		idle := rate > 0 && nothing*e.judgement.GainNano < middle
		if ru.newer() && (e.accused || idle || e.unclear && e.lack >= worthlessQ16) {
			e.judgement.WorthQ16 = 0
		}
		e.judgement.Verdict = msg.Useless
		if e.judgement.WorthQ16 >= usefulQ16 {
			e.judgement.Verdict = msg.Useful
		}
	}
	// At most a third, the worst ones: else an error of many would stop a run.
	slices.SortStableFunc(damaging, func(a, b int) int {
		return cmp.Compare(list[a].judgement.GainNano, list[b].judgement.GainNano)
	})
	for k, i := range damaging {
		j := &list[i].judgement
		j.WorthQ16, j.Verdict = 0, msg.Useless
		if k < enough/3 {
			j.Verdict, list[i].accused = msg.Damaging, false
		}
	}
}

// signOf is what a gain hints at when audits are not clear: of who works every
// second one is above the median of all, and of who does not every second one
// below zero.
func signOf(gain, middle int64) int {
	switch {
	case middle <= 0:
		return 0
	case gain >= middle:
		return 1
	case gain <= 0:
		return -1
	}
	return 0
}

// struck reports whether so many accusers are enough for a strike.
func (e *measured) struck(accusers int) bool {
	if e.jury > 0 {
		return 2*accusers > e.jury
	}
	return accusers >= len(e.gains)-e.dissent
}

// references are the contributions that others are compared with: those that
// counted in the fold, if there are any.
func references(list []measured) []measured {
	var all, counted []measured
	for _, e := range list {
		if e.enough && !e.untrue {
			all = append(all, e)
			if e.weight > 0 {
				counted = append(counted, e)
			}
		}
	}
	if len(counted) > 0 {
		return counted
	}
	return all
}

func gainsOf(list []measured) []int64 {
	gains := make([]int64, len(list))
	for i, e := range list {
		gains[i] = e.judgement.GainNano
	}
	return gains
}

// centre returns the median of gains, and of their distances from it, which it
// writes in their place.
func centre(gains []int64) (middle, spread int64) {
	middle = medianOf(gains)
	for i, g := range gains {
		gains[i] = max(g-middle, middle-g)
	}
	return middle, medianOf(gains)
}

// rate is the gain per token, at least 0.
func (e *measured) rate() int64 { return max(e.judgement.GainNano, 0) << rateBits / int64(e.tokens) }

func medianRate(list []measured) int64 {
	rates := make([]int64, len(list))
	for i := range list {
		rates[i] = list[i].rate()
	}
	return medianOf(rates)
}

// share is a/b in Q16, at most 1.
func share(a, b int64) uint32 {
	if a >= b {
		return fold.One
	}
	q := uint32(0)
	for range 16 { // a long division: the product may have more than 64 bits
		a, q = a<<1, q<<1
		if a >= b {
			a, q = a-b, q|1
		}
	}
	return q
}
