package round

import (
	"errors"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

const (
	// pausedPeriods is how many periods a round of a paused run takes in which
	// nothing happens. It serves to notice who has gone.
	pausedPeriods = 6
	// maxOrderWork bounds the work of a peer in the sum of all, which then fits
	// into 64 bits three times.
	maxOrderWork = 1 << 54
	// OrderWork of OrderWorkOf parts of all audited work is what an order needs
	// without the launcher.
	OrderWork = 2
	// OrderWorkOf is in how many parts OrderWork counts.
	OrderWorkOf = 3
)

// ErrNoSay is returned for an order of a peer whose order has no weight.
var ErrNoSay = errors.New("only the launcher, or peers whose training was audited, may give orders")

// courseOf is the course of a run after a record.
func courseOf(r *msg.Record) msg.Course {
	if r.Course == nil {
		return msg.Course{}
	}
	return *r.Course
}

// Paused reports whether no round trains until an order says so.
func Paused(r *msg.Record) bool { return courseOf(r).Paused }

// Under returns the manifest as orders have changed it; m itself if they have
// not.
func Under(m *run.Manifest, c *msg.Course) *run.Manifest {
	if c == nil || c.MaxRounds == 0 && c.MaxTokens == 0 && c.RatePermille == 0 {
		return m
	}
	changed := *m
	if c.MaxRounds != 0 {
		changed.MaxRounds = c.MaxRounds
	}
	if c.MaxTokens != 0 {
		changed.MaxTokens = c.MaxTokens
	}
	if c.RatePermille != 0 {
		changed.Inner.LearningRateNano = m.Inner.LearningRateNano * uint64(c.RatePermille) / 1000
	}
	return &changed
}

// HasSay reports whether an order of a peer has weight after a record.
func (ru *Rules) HasSay(id peer.ID, r *msg.Record) bool {
	return id == ru.manifest.Launcher || orderWork(r)[id] > 0
}

// orderWork is the audited work by which peers give orders.
func orderWork(r *msg.Record) map[peer.ID]uint64 {
	work := make(map[peer.ID]uint64, len(r.Standings))
	for _, s := range r.Standings {
		if s.Until == 0 && s.Work > 0 {
			work[s.Peer] = min(s.Work, maxOrderWork)
		}
	}
	return work
}

// ordered returns of these orders those that take effect after a record, sorted
// by CID, and the course then. Of several that could, it is the one with the
// highest Seq, then the one with the lowest CID among those that give it.
func (ru *Rules) ordered(parent *msg.Record, orders []msg.Signed) ([]msg.Signed, msg.Course) {
	course, work := courseOf(parent), orderWork(parent)
	var total uint64
	for _, x := range parent.Standings {
		total += work[x.Peer]
	}
	list := slices.Clone(orders)
	slices.SortFunc(list, func(a, b msg.Signed) int { return compareCIDs(a.CID, b.CID) })
	var best []msg.Signed
	for i, s := range list {
		o := s.Message.(*msg.Order)
		if o.Seq <= course.Seq || best != nil && o.Seq <= best[0].Message.(*msg.Order).Seq {
			continue
		}
		if s.From == ru.manifest.Launcher {
			best = []msg.Signed{s}
			continue
		}
		var same []msg.Signed
		var sum uint64
		for _, x := range list[i:] {
			seen := func(k msg.Signed) bool { return k.From == x.From }
			if work[x.From] > 0 && x.Message.(*msg.Order).Same(o) && !slices.ContainsFunc(same, seen) && len(same) < msg.MaxOrders {
				same = append(same, x)
				sum += work[x.From]
			}
		}
		if total > 0 && OrderWorkOf*sum >= OrderWork*total {
			best = same
		}
	}
	if best == nil {
		return nil, course
	}
	return best, course.After(best[0].Message.(*msg.Order))
}

// obey puts the orders that take effect into a record, and what they make of
// the run.
func (ru *Rules) obey(c *Consequence, b Basis, counting []msg.Signed, t int) {
	r, parent := c.Record, b.Parent.Record
	var orders []msg.Signed
	for _, id := range listedBy(counting, t, func(v *msg.Have) []cid.Cid { return v.Orders }) {
		s, ok := b.Find(id)
		o, isOrder := s.Message.(*msg.Order)
		switch {
		case !ok:
			c.Unknown = append(c.Unknown, id)
		case isOrder && o.Run.Equals(ru.run):
			orders = append(orders, s)
		}
	}
	r.Course = parent.Course
	effective, course := ru.ordered(parent, orders)
	if len(effective) == 0 {
		return
	}
	r.Course = &course
	for _, s := range effective {
		r.Orders = append(r.Orders, s.Envelope)
	}
}

// orderBook keeps the newest order of each peer that has a say.
type orderBook struct {
	list  []msg.Signed // sorted by CID, one of a peer
	since time.Time    // when there was first one that could take effect; zero: none can

	own     *msg.Signed // Self's, as long as it has not taken effect
	lastSeq uint64
	at      time.Time // when own is published again
	wait    time.Duration
}

// addOrder takes somebody's order.
func (m *Machine) addOrder(s msg.Signed) {
	o := s.Message.(*msg.Order)
	if o.Seq <= courseOf(m.head.Record).Seq || !m.rules.HasSay(s.From, m.head.Record) {
		return
	}
	b := &m.orders
	if i := b.of(s.From); i >= 0 {
		was := b.list[i].Message.(*msg.Order).Seq
		if was > o.Seq || was == o.Seq && compareCIDs(b.list[i].CID, s.CID) <= 0 {
			return
		}
		b.list = slices.Delete(b.list, i, i+1)
	}
	i, _ := slices.BinarySearchFunc(b.list, s.CID, func(a msg.Signed, id cid.Cid) int { return compareCIDs(a.CID, id) })
	b.list = slices.Insert(b.list, i, s)
}

// of is the index of a peer's order, -1: none.
func (b *orderBook) of(id peer.ID) int {
	return slices.IndexFunc(b.list, func(s msg.Signed) bool { return s.From == id })
}

func (b *orderBook) find(id cid.Cid) (msg.Signed, bool) {
	for _, s := range b.list {
		if s.CID.Equals(id) {
			return s, true
		}
	}
	return msg.Signed{}, false
}

// usefulOrders are those that would take effect in this round, as far as can be
// told, sorted.
func (m *Machine) usefulOrders(h *height) []cid.Cid {
	effective, _ := m.rules.ordered(h.parent.Record, m.orders.list)
	var ids []cid.Cid
	for _, s := range effective {
		ids = append(ids, s.CID)
	}
	return ids
}

// give signs an order of Self's and keeps it in front of the others until it
// took effect.
func (m *Machine) give(g Give) {
	course := courseOf(m.head.Record)
	v := g.Order
	v.Run, v.Peer, v.Seq = m.rules.run, m.cfg.Self, max(course.Seq, m.orders.lastSeq)+1
	if m.cfg.Self != m.cfg.Manifest.Launcher {
		// Orders of several peers count together if they have one number.
		for _, s := range m.orders.list {
			o, same := s.Message.(*msg.Order), v
			if same.Seq = o.Seq; s.From != m.cfg.Self && same.Same(o) {
				v.Seq = o.Seq
			}
		}
	}
	s, err := m.cfg.Sign(&v)
	if err != nil {
		return
	}
	m.emit(Store{s})
	m.emit(Publish{s})
	m.orders.own, m.orders.lastSeq = &s, v.Seq
	m.orders.wait = m.timing.Repeat
	m.orders.at = m.now.Add(m.orders.wait)
	if i := m.orders.of(s.From); i >= 0 {
		m.orders.list = slices.Delete(m.orders.list, i, i+1)
	}
	m.addOrder(s)
}

// restoreOrder takes an order that Self gave before a restart.
func (m *Machine) restoreOrder(s msg.Signed, o *msg.Order) {
	if m.orders.lastSeq = max(m.orders.lastSeq, o.Seq); o.Seq <= courseOf(m.head.Record).Seq {
		return
	}
	if b := &m.orders; b.own == nil || b.own.Message.(*msg.Order).Seq < o.Seq {
		b.own, b.at, b.wait = &s, m.now, m.timing.Repeat
	}
}

// repeatOrder publishes the own order again.
func (m *Machine) repeatOrder() {
	b := &m.orders
	if b.own == nil || m.cur == nil || m.now.Before(b.at) {
		return
	}
	m.emit(Publish{*b.own})
	m.addOrder(*b.own)
	b.wait = min(2*b.wait, maxPatience*m.timing.Repeat)
	b.at = m.now.Add(b.wait)
}

// obeyed drops the orders that the head has left behind.
func (m *Machine) obeyed() {
	course := courseOf(m.head.Record)
	m.orders.list = slices.DeleteFunc(m.orders.list, func(s msg.Signed) bool {
		return s.Message.(*msg.Order).Seq <= course.Seq || !m.rules.HasSay(s.From, m.head.Record)
	})
	if o := m.orders.own; o != nil && o.Message.(*msg.Order).Seq <= course.Seq {
		m.orders.own = nil
	}
	m.orders.since = time.Time{}
}

// haveDeadline is when a have is given whatever is there.
func (m *Machine) haveDeadline(h *height) time.Time {
	d := m.deadline(h)
	if h.paused {
		if joins, _ := m.useful(h); len(joins) == 0 {
			d *= pausedPeriods
		}
	}
	if h.results != nil && !h.paused {
		d += msg.MaxAttempt * m.timing.Attempt // in which the cells come to something
	}
	return h.began.Add(d)
}

// orderIsDue reports whether it is time for haves of a paused round, because
// there is an order or others see one.
func (m *Machine) orderIsDue(h *height) bool {
	if h.haveCount() > h.f {
		return true
	}
	if len(m.usefulOrders(h)) == 0 {
		m.orders.since = time.Time{}
		return false
	}
	if m.orders.since.IsZero() {
		m.orders.since = m.now
	}
	return !m.now.Before(m.orders.since.Add(m.timing.Grace))
}
