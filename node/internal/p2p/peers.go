package p2p

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sync/errgroup"
)

const (
	pingEvery   = 20 * time.Second
	pingTimeout = 10 * time.Second
	maxAgent    = 64 // bytes of a peer's agent that are shown
)

// Where says how far away a peer is.
type Where string

// The places of a peer.
const (
	Loopback Where = "loopback" // on this machine
	LAN      Where = "lan"      // a private address
	Internet Where = "internet"
	Relayed  Where = "relay" // over a third node
)

// Peer is a connected peer.
type Peer struct {
	ID      peer.ID
	Addr    string        // the address of the connection
	Addrs   []string      // all that are known
	Agent   string        // what it says it is; printable
	Latency time.Duration // moving average of pings; 0: not measured yet
	Inbound bool          // it dialled us
	Where   Where
	Since   time.Time
	Conns   int // usually one
}

// Peers lists the connected peers, by ID.
func (h *Host) Peers() []Peer {
	var out []Peer
	for _, p := range h.host.Network().Peers() {
		conns := h.host.Network().ConnsToPeer(p)
		if len(conns) == 0 {
			continue
		}
		out = append(out, h.describe(p, conns))
	}
	slices.SortFunc(out, func(a, b Peer) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out
}

func (h *Host) describe(p peer.ID, conns []network.Conn) Peer {
	best := conns[0]
	for _, c := range conns[1:] {
		if best.Stat().Limited && !c.Stat().Limited {
			best = c
		}
	}
	d := Peer{
		ID:      p,
		Addr:    best.RemoteMultiaddr().String(),
		Latency: h.host.Peerstore().LatencyEWMA(p),
		Inbound: best.Stat().Direction == network.DirInbound,
		Where:   where(best),
		Since:   best.Stat().Opened,
		Conns:   len(conns),
	}
	for _, a := range h.host.Peerstore().Addrs(p) {
		d.Addrs = append(d.Addrs, a.String())
	}
	slices.Sort(d.Addrs)
	if v, err := h.host.Peerstore().Get(p, "AgentVersion"); err == nil {
		if s, ok := v.(string); ok {
			d.Agent = printable(s)
		}
	}
	return d
}

func where(c network.Conn) Where {
	a := c.RemoteMultiaddr()
	switch {
	case c.Stat().Limited:
		return Relayed
	case manet.IsIPLoopback(a):
		return Loopback
	case manet.IsPrivateAddr(a):
		return LAN
	}
	return Internet
}

// Near says whether a peer is connected from this machine or the LAN.
func (h *Host) Near(p peer.ID) bool {
	for _, c := range h.host.Network().ConnsToPeer(p) {
		if w := where(c); w == Loopback || w == LAN {
			return true
		}
	}
	return false
}

// printable is at most 64 bytes of s without control characters, for a peer
// chooses its agent and people read it on a terminal.
func printable(s string) string {
	s = s[:min(len(s), maxAgent)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
}

// Ping measures the round trip to a peer.
func (h *Host) Ping(ctx context.Context, p peer.ID) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case r := <-ping.Ping(ctx, h.host, p):
		return r.RTT, r.Error
	}
}

// runPings keeps latencies fresh; libp2p records them.
func (h *Host) runPings(ctx context.Context) error {
	t := time.NewTicker(pingEvery)
	defer t.Stop()
	for {
		var g errgroup.Group
		g.SetLimit(dialsAtOnce)
		for _, p := range h.host.Network().Peers() {
			g.Go(func() error {
				_, _ = h.Ping(ctx, p) // a dead connection is noticed by libp2p
				return nil
			})
		}
		_ = g.Wait()
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
