package gossip

import (
	"context"
	"slices"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	repairEvery = 3 * time.Second
	repairAgain = 30 * time.Second // the same peer
)

func protocols() []protocol.ID {
	return []protocol.ID{pubsub.GossipSubID_v13, pubsub.GossipSubID_v12, pubsub.GossipSubID_v11}
}

// repair notices connected peers that pubsub does not know, and tells it of
// them again, until ctx is done. Pubsub tries to open a stream to a peer once,
// when the peer is identified; when that fails the two would stay deaf to each
// other for as long as they are connected.
func (g *Gossip) repair(ctx context.Context) {
	em, err := g.host.EventBus().Emitter(new(event.EvtPeerProtocolsUpdated))
	if err != nil {
		g.log.WarnContext(ctx, "streams are not repaired", "err", err)
		<-ctx.Done()
		return
	}
	defer em.Close()
	missing := make(map[peer.ID]time.Time) // since when, or when it was last repaired
	t := time.NewTicker(repairEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for _, p := range g.deaf(missing, time.Now()) {
			g.log.DebugContext(ctx, "peer was told to pubsub again", "peer", p)
			if err := em.Emit(event.EvtPeerProtocolsUpdated{Peer: p, Added: protocols()}); err != nil {
				g.log.WarnContext(ctx, "streams are not repaired", "err", err)
			}
		}
		for _, p := range g.unheard() {
			g.log.DebugContext(ctx, "peer was left, for it has to say again what it wants to hear", "peer", p)
			_ = g.host.Network().ClosePeer(p) // it is of no use either way
		}
	}
}

// unheard lists the peers that pubsub does not know to listen, and that say it only
// when they come.
func (g *Gossip) unheard() []peer.ID {
	if g.met == nil {
		return nil
	}
	return g.met.again()
}

// speaks reports whether a peer said that it gossips, or does: libp2p asks once for what
// a peer speaks, and is told once when that changes, and either may be lost.
func (g *Gossip) speaks(p peer.ID) bool {
	if ok, err := g.host.Peerstore().SupportsProtocols(p, protocols()...); err == nil && len(ok) > 0 {
		return true
	}
	for _, c := range g.host.Network().ConnsToPeer(p) {
		for _, s := range c.GetStreams() {
			if s.Stat().Direction == network.DirInbound && slices.Contains(protocols(), s.Protocol()) {
				return true
			}
		}
	}
	return false
}

// deaf lists the peers to repair: those that were missing the last time too.
func (g *Gossip) deaf(missing map[peer.ID]time.Time, now time.Time) []peer.ID {
	known := make(map[peer.ID]bool)
	for _, p := range g.ps.ListPeers("") {
		known[p] = true
	}
	there := make(map[peer.ID]bool)
	var out []peer.ID
	for _, p := range g.host.Network().Peers() {
		if known[p] || g.host.Network().Connectedness(p) != network.Connected {
			continue
		}
		if !g.speaks(p) {
			continue
		}
		there[p] = true
		since, ok := missing[p]
		switch {
		case !ok:
			missing[p] = now.Add(repairEvery/2 - repairAgain) // due the next time
		case now.Sub(since) >= repairAgain:
			missing[p] = now
			out = append(out, p)
		}
	}
	for p := range missing {
		if !there[p] {
			delete(missing, p)
		}
	}
	return out
}
