package p2p

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/config"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/autorelay"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	manet "github.com/multiformats/go-multiaddr/net"
)

// What a node with a public address carries for others: enough for two peers
// to punch a hole, and for requests and records between those who cannot. Shards
// travel over a relay only if it and both peers allow that.
const (
	relayedBytes     = 1 << 20 // of one connection, each way
	relayedTime      = 10 * time.Minute
	relayPlaces      = 64 // peers that can be reached over this node
	relayPlacesPerIP = 8
	relayCircuits    = 16      // connections at once to one of them
	relayBuffer      = 4 << 10 // for each direction of a connection
)

const (
	relaysWanted   = 2
	relayBootDelay = 5 * time.Second // for peers to be found among which to choose
	relaySearch    = 10 * time.Second
	relayBackoff   = time.Minute
)

// relaying sets how a node that cannot be reached is reached over others, and
// one that can be serves such.
func (h *Host) relaying(c *config.Config) {
	c.Relay, c.RelayCustom = true, true
	c.EnableHolePunching = true
	c.EnableAutoRelay = true
	c.AutoRelayOpts = []autorelay.Option{
		autorelay.WithPeerSource(h.relayCandidates),
		autorelay.WithNumRelays(relaysWanted),
		autorelay.WithMinCandidates(1),
		autorelay.WithBootDelay(relayBootDelay),
		autorelay.WithMinInterval(relaySearch),
		autorelay.WithBackoff(relayBackoff),
	}
	if !h.opt.NoRelay { // it begins when this node is known to be public
		c.EnableRelayService = true
		c.RelayServiceOpts = []relay.Option{relay.WithResources(relay.Resources{
			Limit:                 h.relayLimit(),
			ReservationTTL:        time.Hour,
			MaxReservations:       relayPlaces,
			MaxCircuits:           relayCircuits,
			BufferSize:            relayBuffer,
			MaxReservationsPerIP:  relayPlacesPerIP,
			MaxReservationsPerASN: relayPlaces,
		}), relay.WithMetricsTracer(h.carried), relay.WithACL(h.carried)}
	}
	if h.opt.Public {
		c.ForceReachability = new(network.ReachabilityPublic)
	}
}

// relayCandidates are connected peers that offer to relay and have a public
// address.
func (h *Host) relayCandidates(ctx context.Context, n int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo)
	go func() {
		defer close(out)
		if h.host == nil { // it is being built
			return
		}
		var found []peer.AddrInfo
		for _, c := range h.host.Network().Conns() {
			if c.Stat().Limited || !manet.IsPublicAddr(c.RemoteMultiaddr()) {
				continue
			}
			id := c.RemotePeer()
			if ok, err := h.host.Peerstore().SupportsProtocols(id, circuit.ProtoIDv2Hop); err == nil && len(ok) > 0 {
				found = append(found, h.host.Peerstore().PeerInfo(id))
			}
		}
		rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
		for _, ai := range found[:min(n, len(found))] {
			select {
			case out <- ai:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// Reachability says whether others can connect to this node.
type Reachability string

// The reachabilities.
const (
	ReachUnknown Reachability = "unknown" // nobody has tried yet
	ReachPublic  Reachability = "public"  // from everywhere
	ReachPrivate Reachability = "private" // over a relay, or where a hole can be punched
)

// runReachability follows what other nodes find when they try to connect.
func (h *Host) runReachability(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-h.reachEvents.Out():
			if !ok {
				return nil
			}
			ev, ok := e.(event.EvtLocalReachabilityChanged)
			if !ok {
				continue
			}
			r := ReachUnknown
			switch ev.Reachability {
			case network.ReachabilityPublic:
				r = ReachPublic
			case network.ReachabilityPrivate:
				r = ReachPrivate
			}
			h.mu.Lock()
			h.found = r
			h.mu.Unlock()
			h.log.InfoContext(ctx, "reachability changed", "reachability", string(r))
		}
	}
}

// Reachability says what other nodes found.
func (h *Host) Reachability() Reachability {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.found
}
