package pull

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/multiformats/go-multiaddr"

	"github.com/moot-net/moot/node/internal/p2p"
)

// relayed is a relay with two peers that can reach each other over it alone.
type relayed struct {
	relay  host.Host
	seed   *Puller
	puller *Puller
	root   cid.Cid
	size   int64
}

func newRelayed(t *testing.T, limit int64, seedAllows, pullerAllows bool) *relayed {
	t.Helper()
	hostOf := func(o ...libp2p.Option) host.Host {
		h, err := libp2p.New(append(o, libp2p.DisableMetrics(), libp2p.EnableRelay())...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		return h
	}
	rc := relay.DefaultResources()
	rc.Limit = &relay.RelayLimit{Duration: time.Hour, Data: limit}
	r := &relayed{relay: hostOf(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.ForceReachabilityPublic(),
		libp2p.EnableRelayService(relay.WithResources(rc)))}
	bs, root, total := dagOf(t, 41, 20*mib)
	r.root, r.size = root, total
	at := peer.AddrInfo{ID: r.relay.ID(), Addrs: r.relay.Addrs()}
	seed := hostOf(libp2p.NoListenAddrs)
	waitFor(t, "a connection", func() bool { return seed.Connect(t.Context(), at) == nil })
	// The service begins a moment after the relay says that it is public.
	waitFor(t, "a place at the relay", func() bool {
		_, err := circuit.Reserve(t.Context(), seed, at)
		return err == nil
	})
	asker := hostOf(libp2p.NoListenAddrs)
	var err error
	if r.seed, err = New(seed, bs, Options{OverRelay: seedAllows}); err != nil {
		t.Fatal(err)
	}
	if r.puller, err = New(asker, memory(), Options{OverRelay: pullerAllows}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(running(t, r.seed.Run))
	t.Cleanup(running(t, r.puller.Run))
	over := multiaddr.StringCast(r.relay.Addrs()[0].String() + "/p2p/" + r.relay.ID().String() + "/p2p-circuit")
	waitFor(t, "a connection", func() bool {
		return asker.Connect(t.Context(), peer.AddrInfo{ID: seed.ID(), Addrs: []multiaddr.Multiaddr{over}}) == nil
	})
	// A node says itself over which relays it is reached; these hosts do not.
	asker.Peerstore().AddAddrs(seed.ID(), []multiaddr.Multiaddr{over}, peerstore.PermanentAddrTTL)
	if c := asker.Network().Connectedness(seed.ID()); c != network.Limited {
		t.Fatalf("the peers are connected %s, not over the relay alone", c)
	}
	return r
}

func (r *relayed) fetch(ctx context.Context) error {
	return r.puller.Fetch(ctx, r.root, FetchOptions{Providers: []peer.ID{r.seed.host.ID()}})
}

// Blocks travel over a relay if it and both peers allow that, over several
// connections when one is not enough; else not one byte of them.
func TestOverRelay(t *testing.T) {
	const enough = 64 * mib
	for _, tt := range []struct {
		name         string
		limit        int64
		seed, puller bool
		comes        bool
	}{
		{"all allow it", enough, true, true, true},
		{"the relay less than all of it", p2p.MinRelayShardBytes, true, true, true},
		{"the relay does not", p2p.MinRelayShardBytes - 1, true, true, false},
		{"who gives does not", enough, false, true, false},
		{"who asks does not", enough, true, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRelayed(t, tt.limit, tt.seed, tt.puller)
			limit := 5 * time.Minute
			if !tt.comes {
				limit = 3 * time.Second // enough for all of it, where it is allowed
			}
			const why = "over a relay"
			err := r.fetch(within(t, limit))
			for !tt.comes && limit < 5*time.Minute && errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), why) {
				limit *= 4 // on a slow machine it was not even asked
				err = r.fetch(within(t, limit))
			}
			sent := r.seed.Stats().SentBytes
			switch {
			case tt.comes && err != nil:
				t.Errorf("after %d bytes of %d: %v", sent, r.size, err)
			case tt.comes && sent < uint64(r.size):
				t.Errorf("%d bytes of %d were sent over the relay", sent, r.size)
			case !tt.comes && !errors.Is(err, context.DeadlineExceeded):
				t.Errorf("it ended with %v", err)
			case !tt.comes && sent > 0:
				t.Errorf("%d bytes travelled over the relay", sent)
			}
			if !tt.comes && !strings.Contains(err.Error(), why) {
				t.Errorf("why nothing came is not said: %v", err)
			}
		})
	}
}

// What another peer gives that needs no relay does not travel over one.
func TestRelayIsLast(t *testing.T) {
	r := newRelayed(t, 64*mib, true, true)
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	direct, err := New(h, r.seed.store, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(running(t, direct.Run))
	waitFor(t, "a connection", func() bool {
		return r.puller.host.Connect(t.Context(), peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}) == nil
	})
	err = r.puller.Fetch(t.Context(), r.root, FetchOptions{Providers: []peer.ID{h.ID(), r.seed.host.ID()}})
	if err != nil {
		t.Fatal(err)
	}
	// One that was begun before the other answered is ended at once.
	if n := r.seed.Stats().SentBytes; n > uint64(r.size)/2 {
		t.Errorf("%d bytes of %d came over the relay", n, r.size)
	}
}

// As soon as the peer itself is connected without a relay, the rest comes that way.
func TestRelayIsLeft(t *testing.T) {
	r := newRelayed(t, 64*mib, true, true)
	asker, seed := r.puller.host, r.seed.host
	relayed := func() (n int) {
		for _, c := range asker.Network().ConnsToPeer(seed.ID()) {
			for _, s := range c.GetStreams() {
				if c.Stat().Limited && s.Protocol() == Protocol {
					n++
				}
			}
		}
		return n
	}
	leave := func() error {
		if relayed() == 0 {
			return errors.New("nothing leads over the relay")
		}
		if err := seed.Network().Listen(multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")); err != nil {
			return err
		}
		at, err := seed.Network().InterfaceListenAddresses()
		if err != nil {
			return err
		}
		if err := asker.Connect(network.WithForceDirectDial(t.Context(), "test"), peer.AddrInfo{ID: seed.ID(), Addrs: at}); err != nil {
			return err
		}
		for end := time.Now().Add(time.Minute); relayed() > 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				return errors.New("the session over the relay does not end")
			}
		}
		return r.relay.Close()
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var once sync.Once
	err := r.puller.Fetch(ctx, r.root, FetchOptions{Providers: []peer.ID{seed.ID()}, Progress: func(int64, int64) {
		once.Do(func() { // the inner nodes came, and no leaf is asked for before this returns
			if err := leave(); err != nil {
				cancel(err)
			}
		})
	}})
	if err != nil {
		t.Error(err)
	}
}

// Nobody is asked over a relay together with the first one who may need none.
func TestRelayWaits(t *testing.T) {
	r := newRelayed(t, 64*mib, true, true)
	f := newFetch(r.puller, r.root, FetchOptions{Providers: []peer.ID{"another", r.seed.host.ID()}})
	now := time.Now()
	for i, want := range []peer.ID{"another", r.seed.host.ID()} {
		due := f.due(now, now)
		if len(due) != 1 || due[0].id != want {
			t.Errorf("%d: a session begins with %v, want %v", i, due, want)
		}
	}
}
