package round

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// A witness lists requests for a seat only up to a share of seats for each
// network, as it sees the networks of peers itself. So no address has to be
// agreed upon: a request takes effect when enough witnesses list it.

// Exempt is the network of peers that no bound is for: the own one.
const Exempt = "local"

// Place is in which network a peer is, as far as Self can see: "" if it cannot.
type Place struct {
	Peer    peer.ID
	Network string
}

// Seen tells where the peers are that have a seat or want one. It replaces what
// was told before. Without one there is no bound.
type Seen struct{ Places []Place }

func (Seen) event() {}

const (
	networkPart = 8 // of all seats, for one network
	unknownPart = 4 // likewise, for all peers whose network is not known
	leastShare  = 3 // in any case
)

// share is how many seats of a network a witness lets in.
func (ru *Rules) share(network string) int {
	part := networkPart
	if network == "" {
		part = unknownPart
	}
	return max(int(ru.manifest.Seats)/part, leastShare)
}

// seen notes where peers are.
func (m *Machine) seen(ev Seen) {
	places := make(map[peer.ID]string, len(ev.Places))
	changed := m.places == nil
	for _, p := range ev.Places {
		old, ok := m.places[p.Peer]
		changed = changed || !ok || old != p.Network
		places[p.Peer] = p.Network
	}
	m.places = places
	if changed {
		m.joins.changes++ // other requests are useful now
	}
}

// Asking returns who has a seat or wants one.
func (m *Machine) Asking() []peer.ID {
	list := slices.Clone(m.joins.peers)
	for _, s := range m.head.Record.NextSeats {
		list = append(list, s.Peer)
	}
	return list
}

// fitting returns the requests for whose networks there are seats left.
func (m *Machine) fitting(h *height, d door, requests []msg.Signed) []msg.Signed {
	if m.places == nil {
		return requests
	}
	seats := make(map[string]int)
	for _, s := range h.seats {
		seats[m.places[s.Peer]]++
	}
	var out []msg.Signed
	for _, s := range d.inOrder(requests) {
		if s.Message.(*msg.JoinRequest).Leave || s.From == m.cfg.Self {
			out = append(out, s)
			continue
		}
		network := m.places[s.From]
		if network != Exempt && seats[network] >= m.rules.share(network) {
			continue
		}
		seats[network]++
		out = append(out, s)
	}
	return out
}
