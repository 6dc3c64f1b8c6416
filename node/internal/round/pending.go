package round

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// Pending is an order that has not taken effect, as far as this peer has heard.
// It holds until another order takes effect, or who gave it gives another one, or
// has no say any more.
type Pending struct {
	Order *msg.Order // as the first of Peers gave it
	Peers []peer.ID  // who give the same
	Notes []string   // theirs
	// Work is their part of Total, the audited work of all; two thirds are needed,
	// unless the launcher is among them.
	Work, Total uint64
	Launcher    bool
}

// pending lists the orders that have not taken effect, those with most work first.
func (m *Machine) pending() []Pending {
	work := orderWork(m.head.Record)
	var total uint64
	for _, s := range m.head.Record.Standings {
		total += work[s.Peer]
	}
	var list []Pending
	for _, s := range m.orders.list {
		o := s.Message.(*msg.Order)
		i := slices.IndexFunc(list, func(p Pending) bool { return p.Order.Same(o) })
		if i < 0 {
			i = len(list)
			list = append(list, Pending{Order: o, Total: total})
		}
		p := &list[i]
		p.Peers, p.Notes = append(p.Peers, s.From), append(p.Notes, o.Note)
		p.Work += work[s.From]
		p.Launcher = p.Launcher || s.From == m.rules.manifest.Launcher
	}
	slices.SortStableFunc(list, func(a, b Pending) int { return cmp.Compare(b.Work, a.Work) })
	return list
}
