package fetchtest

import (
	"context"
	"crypto/rand"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/moot-net/moot/node/internal/p2p"
)

// Node is a host on loopback with a fetcher of a store, both running.
type Node struct {
	Host  *p2p.Host
	Store blockstore.Blockstore
	Stop  func() // of the fetcher, and then the host

	Fetch  func(ctx context.Context, root cid.Cid, o FetchOptions) error
	Pulled func() uint64 // bytes
	Sent   func() uint64
	Banned func() []peer.ID
}

// FetchOptions are those of exchange.FetchOptions that the suite uses.
type FetchOptions struct {
	MaxBytes  int64
	Providers []peer.ID
	Progress  func(done, total int64)
}

// NodeOptions are how a node is made; all are optional.
type NodeOptions struct {
	Key    crypto.PrivKey
	Listen string
	Seeds  []*Node // to connect to
}

// NewKey is a new identity.
func NewKey(t testing.TB) crypto.PrivKey {
	t.Helper()
	k, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// NewHost listens on loopback until the test ends. It is not run.
func NewHost(t testing.TB, key crypto.PrivKey, listen string) *p2p.Host {
	t.Helper()
	if key == nil {
		key = NewKey(t)
	}
	if listen == "" {
		listen = "/ip4/127.0.0.1/tcp/0"
	}
	h, err := p2p.New(p2p.Options{Key: key, Listen: []string{listen}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() }) // a test may have done it
	return h
}

// Running runs something until stop is called, or the test ends.
func Running(t testing.TB, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run() = %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// Within is a context that ends after d, or with the test.
func Within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// Connect connects to an address, until it is known what the other one speaks. On a
// machine that does nothing for a while that may take too long: then it tries again.
func Connect(t testing.TB, h *p2p.Host, addr string) {
	t.Helper()
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var known []protocol.ID
		if err = h.Connect(t.Context(), addr); err == nil { // which waits for what it speaks
			known, err = h.Libp2p().Peerstore().GetProtocols(info.ID)
		}
		if err == nil && len(known) > 0 {
			return
		}
		_ = h.Libp2p().Network().ClosePeer(info.ID) // nobody asks twice over one connection
	}
	t.Fatalf("%s is not connected, or does not say what it speaks: %v", addr, err)
}

// WaitFor waits until ok.
func WaitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited three minutes for: %s", what)
		}
	}
}

// Watcher checks what progress tells.
type Watcher struct {
	T           testing.TB
	Done, Total int64
	At          func(done int64) // may be nil
}

// Progress is the function to hand to a fetch.
func (w *Watcher) Progress(done, total int64) {
	if done < w.Done || done > total {
		w.T.Errorf("progress went from %d of %d to %d of %d", w.Done, w.Total, done, total)
	}
	w.Done, w.Total = done, total
	if w.At != nil {
		w.At(done)
	}
}
