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
	forgotten := make(map[peer.ID]int)     // how often in a row
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
		for _, p := range g.unheard(forgotten) {
			g.log.DebugContext(ctx, "peer was left, for it has to say again what it wants to hear", "peer", p)
			_ = g.host.Network().ClosePeer(p) // what is under way over it is asked for again
		}
	}
}

// unheard lists the peers of which pubsub does not know to what they listen, and
// who say it only when they come: what they said was too early, or it was forgotten, as
// pubsub does when the stream to a peer ends before that of the peer.
func (g *Gossip) unheard(forgotten map[peer.ID]int) (list []peer.ID) {
	if g.met != nil {
		list = g.met.again()
	}
	now := make(map[peer.ID]bool)
	with := g.ps.ListPeers("")
	for _, topic := range g.ps.GetTopics() {
		known := g.ps.ListPeers(topic)
		for _, p := range g.said.listening(topic) {
			if slices.Contains(with, p) && !slices.Contains(known, p) {
				now[p] = true
			}
		}
	}
	for p := range forgotten {
		if !now[p] {
			delete(forgotten, p)
		}
	}
	for p := range now {
		if forgotten[p]++; forgotten[p] > 1 {
			delete(forgotten, p)
			list = append(list, p)
		}
	}
	return list
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
