package p2p

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// maxBlocked bounds the ban list. When it is full, the ban that would end
// first is dropped.
const maxBlocked = 4096

// gater refuses connections from and to banned peers.
type gater struct {
	now func() time.Time // constant

	mu      sync.Mutex
	blocked map[peer.ID]time.Time // guarded by mu: until when
}

func newGater() *gater {
	return &gater{now: time.Now, blocked: make(map[peer.ID]time.Time)}
}

func (g *gater) block(p peer.ID, d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	until := now.Add(d)
	if until.Before(g.blocked[p]) {
		return
	}
	g.blocked[p] = until
	if len(g.blocked) <= maxBlocked {
		return
	}
	first := p
	for q, t := range g.blocked {
		if t.Before(g.blocked[first]) {
			first = q
		}
	}
	delete(g.blocked, first)
}

func (g *gater) isBlocked(p peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	until, ok := g.blocked[p]
	if !ok {
		return false
	}
	if g.now().After(until) {
		delete(g.blocked, p)
		return false
	}
	return true
}

func (g *gater) InterceptPeerDial(p peer.ID) bool { return !g.isBlocked(p) }

func (g *gater) InterceptAddrDial(p peer.ID, _ multiaddr.Multiaddr) bool { return !g.isBlocked(p) }

func (g *gater) InterceptAccept(network.ConnMultiaddrs) bool { return true }

func (g *gater) InterceptSecured(_ network.Direction, p peer.ID, _ network.ConnMultiaddrs) bool {
	return !g.isBlocked(p)
}

func (g *gater) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	return !g.isBlocked(c.RemotePeer()), 0
}
