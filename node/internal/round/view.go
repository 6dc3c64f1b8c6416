package round

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// View returns what people are shown.
func (m *Machine) View() View {
	v := View{
		Head: m.head, Round: m.head.Record.Round + 1, Phase: m.phase(), Seat: -1,
		WantsSeat: m.want == wantSeat, Orders: m.pending(),
	}
	for _, id := range slices.SortedFunc(slices.Values(m.members.peers), comparePeers) {
		e := m.members.byPeer[id]
		v.Members = append(v.Members, Member{Status: e.status, Seen: e.seen, Silent: e.seen.Add(m.silent(id))})
	}
	h := m.cur
	if h == nil {
		return v
	}
	v.Seat, v.Seats, v.Began = h.self, slices.Clone(h.seats), h.began
	v.Haves = h.haveCount()
	own := h
	if h.sub != nil {
		own = h.sub
	}
	for i, list := range own.commits {
		if len(list) > 0 {
			v.Commits++
		}
		if own.held(i) {
			v.Held++
		}
	}
	for a := uint32(0); !h.t0.IsZero() && a <= msg.MaxAttempt && !m.now.Before(m.attemptAt(h, a)); a++ {
		v.Attempt = a
	}
	return v
}

func comparePeers(a, b peer.ID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Deadline is when Step(Tick) has something to do, if no event comes first;
// zero: never.
func (m *Machine) Deadline() time.Time {
	if !m.started {
		return m.now
	}
	var next time.Time
	at := func(t time.Time) {
		if t.After(m.now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	at(m.statusAt)
	at(m.syncBefore)
	at(m.wishAt)
	if m.orders.own != nil {
		at(m.orders.at)
	}
	for _, id := range m.members.peers {
		if due := m.askDue(m.members.byPeer[id]); !due.IsZero() {
			at(due)
		}
	}
	for _, h := range []*height{m.cur, m.prev} {
		if h == nil {
			continue
		}
		for _, l := range h.missing {
			at(l.askAt)
		}
	}
	if h := m.cur; h != nil {
		m.cellDeadlines(h, at)
		for _, r := range m.repeats {
			at(r.at)
		}
		at(m.haveDeadline(h))
		at(m.lateHaveAt(h))
		if !m.orders.since.IsZero() {
			at(m.orders.since.Add(m.timing.Grace))
		}
		if !h.assembled.IsZero() {
			at(h.assembled.Add(m.timing.Grace))
		}
		if !h.quorumAt.IsZero() {
			at(h.quorumAt.Add(m.graceOf(h)))
		}
		for a := uint32(1); !h.t0.IsZero() && a <= msg.MaxAttempt; a++ {
			at(m.attemptAt(h, a))
		}
		if !h.t0.IsZero() {
			at(m.settledAt(h))
		}
	}
	return next
}
