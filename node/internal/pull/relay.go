package pull

import (
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/p2p"
)

// Blocks travel over a relay if it, the asker and the giver allow that, and only
// while no peer gives them that is connected directly.

var (
	errRelayed = errors.New("connected over a relay alone, over which shards travel only if the relay, the peer and this node allow it")
	errDirect  = errors.New("blocks come without a relay now")
)

// onlyRelayed says whether a peer is connected over relays alone.
func (p *Puller) onlyRelayed(id peer.ID) bool {
	return p.host.Network().Connectedness(id) == network.Limited
}

// mayRelay says whether one of a peer's connections carries blocks.
func (p *Puller) mayRelay(id peer.ID) bool {
	if !p.opt.OverRelay {
		return false
	}
	for _, c := range p.host.Network().ConnsToPeer(id) {
		if p2p.CarriesShards(c) {
			return true
		}
	}
	return false
}

// direct says whether blocks come from peers that are connected directly. It is
// called with f.mu held.
func (f *fetch) direct(now time.Time) bool {
	for _, s := range f.sources {
		if !s.relayed && !s.stall && now.Sub(s.begun) < patience || s.gives(now) {
			return true
		}
	}
	return false
}

// gives says whether bytes came from a source of late that needs no relay.
func (s *source) gives(now time.Time) bool {
	return !s.relayed && !s.last.IsZero() && now.Sub(s.last) < patience
}

// leaveRelays ends the sessions over relays when peers without one give blocks,
// or the peer itself is connected without one. It is called with f.mu held.
func (f *fetch) leaveRelays(now time.Time) {
	for _, s := range f.sources {
		if !s.relayed {
			continue
		}
		if !f.p.onlyRelayed(s.id) {
			s.end(errDirect)
			continue
		}
		for _, o := range f.sources {
			if o.gives(now) {
				s.end(errDirect)
				break
			}
		}
	}
}
