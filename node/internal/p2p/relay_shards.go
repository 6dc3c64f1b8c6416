package p2p

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/multiformats/go-multiaddr"
)

// MinRelayShardBytes is the least of a connection that a relay which carries shards
// allows: less is for requests.
const MinRelayShardBytes = 16 << 20

// relayedShardsTime is how long a connection lasts on which shards are carried.
const relayedShardsTime = time.Hour

func (h *Host) relayLimit() *relay.RelayLimit {
	if h.opt.RelayShardBytes < MinRelayShardBytes {
		return &relay.RelayLimit{Duration: relayedTime, Data: relayedBytes}
	}
	return &relay.RelayLimit{Duration: relayedShardsTime, Data: h.opt.RelayShardBytes}
}

// CarriesShards says whether shards may travel over a connection as far as the way
// is concerned: it is direct, or the relay said that it carries so much.
func CarriesShards(c network.Conn) bool {
	s := c.Stat()
	if !s.Limited {
		return true
	}
	n, ok := s.Extra[client.StatLimitData].(uint64)
	return ok && n >= MinRelayShardBytes
}

// RelayMeter bounds what a node carries for others.
type RelayMeter interface {
	// MayCarry says whether another connection may be relayed. While it may not,
	// no peer gets a place at the relay: who has none looks for another relay.
	MayCarry() bool

	// Carry waits until n more bytes may be relayed, and counts them.
	Carry(ctx context.Context, n int) error
}

// MeterRelay has what this node relays bounded, if it carries shards. Requests
// alone are too little for that.
func (h *Host) MeterRelay(m RelayMeter) {
	if h.opt.RelayShardBytes >= MinRelayShardBytes {
		h.carried.meter.Store(&m)
	}
}

// carried is called by libp2p's relay for all that it does. Nothing is copied
// while BytesTransferred is waited for.
type carried struct {
	relay.MetricsTracer

	ctx   context.Context            // of the host
	meter atomic.Pointer[RelayMeter] // nil: nothing is bounded
}

func (h *Host) newCarried() *carried {
	c := &carried{MetricsTracer: noMetrics{}, ctx: h.ctx}
	if h.opt.Metrics != nil {
		c.MetricsTracer = relay.NewMetricsTracer(relay.WithRegisterer(h.opt.Metrics))
	}
	return c
}

func (c *carried) AllowReserve(peer.ID, multiaddr.Multiaddr) bool { return c.mayCarry() }

func (c *carried) AllowConnect(peer.ID, multiaddr.Multiaddr, peer.ID) bool { return c.mayCarry() }

func (c *carried) mayCarry() bool {
	m := c.meter.Load()
	return m == nil || (*m).MayCarry()
}

func (c *carried) BytesTransferred(n int) {
	if m := c.meter.Load(); m != nil {
		_ = (*m).Carry(c.ctx, n) // an error is the host's end
	}
	c.MetricsTracer.BytesTransferred(n)
}

// noMetrics is what libp2p counts when nobody wants to know.
type noMetrics struct{}

func (noMetrics) RelayStatus(bool)                         {}
func (noMetrics) ConnectionOpened()                        {}
func (noMetrics) ConnectionClosed(time.Duration)           {}
func (noMetrics) ConnectionRequestHandled(circuit.Status)  {}
func (noMetrics) ReservationAllowed(bool)                  {}
func (noMetrics) ReservationClosed(int)                    {}
func (noMetrics) ReservationRequestHandled(circuit.Status) {}
func (noMetrics) BytesTransferred(int)                     {}
