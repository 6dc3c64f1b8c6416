package p2p

import (
	"context"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// Two nodes that know no node of ours find each other's content by the DHT of
// another network, if and only if both want it.
func TestIPFSNetwork(t *testing.T) {
	public, err := New(Options{Key: newKey(t), Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { public.Close() })
	server, err := dht.New(public.Libp2p(), dht.Mode(dht.ModeServer))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	// Not the DHT of ours, by which they would find each other too.
	public.Libp2p().RemoveStreamHandler("/moot/kad/1.0.0")

	start := func(bootstrap ...string) *Host {
		h, err := New(Options{Key: newKey(t), Listen: []string{"/ip4/127.0.0.1/tcp/0"}, IPFSBootstrap: bootstrap})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- h.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		return h
	}
	mh, err := multihash.Sum([]byte("a model"), multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	c := cid.NewCidV1(cid.Raw, mh)
	a, b, alone := start(public.Addrs()...), start(public.Addrs()...), start()
	if err := a.Provide(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	find := func(h *Host, d time.Duration) []peer.AddrInfo {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		found, err := h.FindProviders(ctx, c)
		if err != nil {
			t.Error(err)
		}
		return found
	}
	var found []peer.AddrInfo
	for end := time.Now().Add(3 * time.Minute); len(found) == 0 && time.Now().Before(end); {
		found = find(b, 10*time.Second)
	}
	if len(found) != 1 || found[0].ID != a.ID() || len(found[0].Addrs) == 0 {
		t.Errorf("found %v, want %s", found, a.ID())
	}
	if found := find(alone, time.Second); len(found) != 0 {
		t.Errorf("a node outside of that network found %v", found)
	}
	if _, err := New(Options{Key: newKey(t), IPFSBootstrap: []string{"/ip4/127.0.0.1/tcp/1"}}); err == nil {
		t.Error("an address without a peer was accepted")
	}
}
