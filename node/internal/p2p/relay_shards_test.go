package p2p

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
)

// counting is a RelayMeter.
type counting struct {
	mu     sync.Mutex
	n      int  // guarded by mu
	closed bool // guarded by mu
}

func (c *counting) MayCarry() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed
}

func (c *counting) Carry(_ context.Context, n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
	return nil
}

func (c *counting) close() (carried int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return c.n
}

// A relay says how much it carries, has it metered, and refuses connections and
// places when the meter says so; one that carries requests alone is not metered.
func TestRelayCarriesShards(t *testing.T) {
	for _, tt := range []struct {
		name    string
		bytes   int64
		carries bool
	}{{"shards", 20 << 20, true}, {"requests", 0, false}} {
		t.Run(tt.name, func(t *testing.T) {
			h, err := New(Options{
				Key: newKey(t), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Public: true, RelayShardBytes: tt.bytes,
				Metrics: prometheus.NewRegistry(),
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { h.Close() })
			meter := &counting{}
			h.MeterRelay(meter)
			at := peer.AddrInfo{ID: h.ID(), Addrs: h.Libp2p().Addrs()}
			behind := func() host.Host {
				o, err := libp2p.New(libp2p.NoListenAddrs, libp2p.EnableRelay(), libp2p.DisableMetrics())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { o.Close() })
				return o
			}
			a, b := behind(), behind()
			waitFor(t, "a connection", func() bool { return b.Connect(t.Context(), at) == nil })
			for end := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) { // the service begins a moment later
				if _, err = circuit.Reserve(t.Context(), b, at); err == nil {
					break
				}
				if time.Now().After(end) {
					t.Fatal(err)
				}
			}
			heard := make(chan bool, 1)
			b.SetStreamHandler("/echo/1", func(s network.Stream) {
				heard <- CarriesShards(s.Conn())
				_, _ = io.Copy(s, s) // until the other has enough
				s.Close()
			})
			over := peer.AddrInfo{ID: b.ID(), Addrs: []multiaddr.Multiaddr{
				multiaddr.StringCast(at.Addrs[0].String() + "/p2p/" + h.ID().String() + "/p2p-circuit"),
			}}
			waitFor(t, "a connection", func() bool { return a.Connect(t.Context(), over) == nil })
			s, err := a.NewStream(network.WithAllowLimitedConn(t.Context(), "test"), b.ID(), "/echo/1")
			if err != nil {
				t.Fatal(err)
			}
			const size = 100_000
			go func() {
				_, _ = s.Write(make([]byte, size))
				_ = s.CloseWrite()
			}()
			got, err := io.ReadAll(s)
			if err != nil || len(got) != size {
				t.Fatalf("%d bytes came back of %d: %v", len(got), size, err)
			}
			if CarriesShards(s.Conn()) != tt.carries || <-heard != tt.carries {
				t.Errorf("who dialed believes that it carries shards: %v, want %v, and likewise the other", CarriesShards(s.Conn()), tt.carries)
			}
			if !CarriesShards(a.Network().ConnsToPeer(h.ID())[0]) {
				t.Error("a direct connection carries nothing")
			}
			n := meter.close()
			// Of each direction it may have written a buffer that it has not counted yet.
			if (n >= 2*(size-relayBuffer)) != tt.carries || (n > 0) != tt.carries {
				t.Errorf("%d bytes were metered of twice %d", n, size)
			}
			a.Network().ClosePeer(b.ID())
			if err := a.Connect(t.Context(), over); (err != nil) != tt.carries {
				t.Errorf("connection when the meter is closed: %v", err)
			}
			if _, err := circuit.Reserve(t.Context(), b, at); (err != nil) != tt.carries {
				t.Errorf("place when the meter is closed: %v", err)
			}
		})
	}
}
