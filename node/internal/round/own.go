package round

import (
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

// signedFor is what Self signed for one head. It signs nothing of one kind
// twice, also when it comes back to a head that it had left.
type signedFor struct {
	commit, have, vote *msg.Signed
	report             *msg.Signed
	proposals          [msg.MaxAttempt + 1]*msg.Signed
	// forgotten: something was signed and is not known any more, so nothing
	// is signed for that head again.
	forgotten bool
	// told: some of it came from others, who may have kept it for long. That is
	// no memory of the round.
	told bool
}

const (
	keepHeads   = 8    // of which Self's messages are kept
	rememberFor = 8192 // heads, and their cells, for which Self is known to have signed
)

// isSole reports whether there is one seat, which is Self's: then nobody else can go on,
// and nobody to be told two things.
func (m *Machine) isSole(head cid.Cid) bool {
	l, ok := m.chain.link(head)
	return ok && len(l.Record.NextSeats) == 1 && l.Record.NextSeats[0].Peer == m.cfg.Self
}

// ownBook is what Self signed, by head.
type ownBook struct {
	byHead map[cid.Cid]*signedFor
	heads  []cid.Cid // oldest first
}

func (b *ownBook) at(head cid.Cid) *signedFor {
	if e := b.byHead[head]; e != nil {
		return e
	}
	return &signedFor{}
}

// forget notes that Self signed something for a head, and for its cell.
func (b *ownBook) forget(head cid.Cid) {
	for _, slot := range []cid.Cid{head, cellSlot(head)} {
		if b.byHead[slot] == nil {
			b.heads = append(b.heads, slot)
		}
		b.byHead[slot] = &signedFor{forgotten: true}
	}
	b.bound()
}

// bound drops the oldest heads.
func (b *ownBook) bound() {
	for len(b.heads) > rememberFor {
		delete(b.byHead, b.heads[0])
		b.heads = b.heads[1:]
	}
}

// add takes an own message. It must not be one of a kind that is there.
func (b *ownBook) add(s msg.Signed) {
	head, _, ok := slotOf(s.Message)
	if !ok {
		return
	}
	e := b.byHead[head]
	if e == nil {
		e = &signedFor{}
		b.byHead[head] = e
		b.heads = append(b.heads, head)
		if n := len(b.heads); n > keepHeads {
			b.byHead[b.heads[n-1-keepHeads]] = &signedFor{forgotten: true}
		}
		b.bound()
	}
	if e.forgotten {
		return
	}
	switch v := s.Message.(type) {
	case *msg.Commit:
		e.commit = &s
	case *msg.Have:
		e.have = &s
	case *msg.Vote:
		e.vote = &s
	case *msg.Report:
		e.report = &s
	case *msg.Proposal:
		e.proposals[v.Attempt] = &s
	}
}

// all returns the messages in the order in which they are of use to others.
func (e *signedFor) all() []msg.Signed {
	var list []msg.Signed
	for _, s := range append([]*msg.Signed{e.report, e.commit, e.have}, append(e.proposals[:], e.vote)...) {
		if s != nil {
			list = append(list, *s)
		}
	}
	return list
}

// doubt gives up a head whose record shows that Self had part in its round, if Self
// knows nothing of that: its folder is a new one, or an older one was put back, so it may have
// signed for this head, too, what it does not know. Nobody tells it in time: of its own
// messages it hears only what is in others' proposals and certificates. From the next head on it
// knows what it signed.
func (m *Machine) doubt(head Link) {
	r := head.Record
	i := seatOf(r.NextSeats, m.cfg.Self)
	switch {
	case i < 0, r.NextSeats[i].Missed > 0, seatOf(r.Seats, m.cfg.Self) < 0, len(r.NextSeats) == 1:
		return
	}
	for _, slot := range []cid.Cid{r.Parent, cellSlot(r.Parent)} {
		if e := m.own.at(slot); !e.told && len(e.all()) > 0 {
			return
		}
	}
	for _, slot := range []cid.Cid{head.ID, cellSlot(head.ID)} {
		if e := m.own.byHead[slot]; e != nil && !e.told {
			return // it knows what it signed for this one
		}
	}
	m.own.forget(head.ID)
	m.emit(Doubt{Round: r.Round + 1, Head: head.ID})
}

// recall takes a message that Self signed and does not know: its folder was restored
// from an older one, or somebody runs another node with its key. What others put into
// their proposals and certificates is what Self said.
func (m *Machine) recall(s msg.Signed) {
	if s.From != m.cfg.Self {
		return
	}
	slot, at, ok := slotOf(s.Message)
	if !ok || m.own.at(slot).said(s.Message) {
		return
	}
	if b := &m.own; at < m.head.Record.Round && b.byHead[slot] == nil {
		// Of long ago, or of another branch: it takes the place of nothing newer.
		b.byHead[slot] = &signedFor{forgotten: true}
		b.heads = slices.Insert(b.heads, 0, slot)
		b.bound()
		return
	}
	m.own.add(s)
	m.own.at(slot).told = true
	m.emit(Store{s})
	h := m.cur
	if h != nil && h.sub != nil && slot.Equals(h.sub.slot()) {
		h = h.sub
	}
	if h == nil || !slot.Equals(h.slot()) {
		return
	}
	switch s.Message.(type) {
	case *msg.Have:
		if h.t0.IsZero() {
			h.t0 = m.now
		}
	case *msg.Commit:
		m.trainOrStop()
	}
}

// said reports whether something of the kind of v was said for the head, or may have
// been.
func (e *signedFor) said(v msg.Message) bool {
	switch v := v.(type) {
	case *msg.Commit:
		return e.forgotten || e.commit != nil
	case *msg.Have:
		return e.forgotten || e.have != nil
	case *msg.Vote:
		return e.forgotten || e.vote != nil
	case *msg.Report:
		return e.forgotten || e.report != nil
	case *msg.Proposal:
		return e.forgotten || e.proposals[v.Attempt] != nil
	}
	return true
}

// headOf returns the head and round that a message is for; not ok for those
// that are for none.
func headOf(m msg.Message) (cid.Cid, msg.Round, bool) {
	switch m := m.(type) {
	case *msg.Commit:
		return m.Head, m.Round, true
	case *msg.Have:
		return m.Head, m.Round, true
	case *msg.Vote:
		return m.Head, m.Round, true
	case *msg.Report:
		return m.Head, m.Round, true
	case *msg.CellResult:
		return m.Summary.Head, m.Summary.Round, true
	case *msg.Proposal:
		r, err := m.Decoded()
		if err != nil {
			return cid.Undef, 0, false
		}
		return r.Parent, r.Round, true
	}
	return cid.Undef, 0, false
}

// send signs a message, keeps it, and publishes it. It returns false if the
// message is not of form, which for a commit is the trainer's doing.
func (m *Machine) send(v msg.Message) (msg.Signed, bool) {
	s, err := m.cfg.Sign(v)
	if err != nil {
		return msg.Signed{}, false
	}
	m.own.add(s)
	m.emit(Store{s})
	m.emit(Publish{s})
	return s, true
}
