package exchange

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/fetchtest"
	"github.com/moot-net/moot/node/internal/p2p"
	"github.com/moot-net/moot/shard"
)

const mib = fetchtest.MiB

// What the suite brings along.
var (
	memory    = fetchtest.Memory
	content   = fetchtest.Content
	dag       = fetchtest.DAG
	openShard = fetchtest.OpenShard
	wantAll   = fetchtest.WantAll
	within    = fetchtest.Within
	waitFor   = fetchtest.WaitFor
	forger    = fetchtest.Forger
	slowly    = fetchtest.Slowly
)

type watcher = fetchtest.Watcher

func TestFetcher(t *testing.T) {
	fetchtest.Fetcher(t, func(t *testing.T, bs blockstore.Blockstore, o fetchtest.NodeOptions) *fetchtest.Node {
		n := newNode(t, bs, nodeOptions{key: o.Key, listen: o.Listen})
		for _, s := range o.Seeds {
			fetchtest.Connect(t, n.h, s.Host.Addrs()[0])
		}
		return &fetchtest.Node{
			Host: n.h, Store: bs, Stop: n.stop, Banned: n.bans,
			Fetch: func(ctx context.Context, root cid.Cid, o fetchtest.FetchOptions) error {
				return n.e.Fetch(ctx, root, FetchOptions{MaxBytes: o.MaxBytes, Providers: o.Providers, Progress: o.Progress})
			},
			Pulled: func() uint64 { return n.e.Stats().PulledBytes },
			Sent:   func() uint64 { return n.e.Stats().SentBytes },
		}
	})
}

// node is a host on loopback with an exchange that runs.
type node struct {
	h    *p2p.Host
	e    *Exchange
	bs   blockstore.Blockstore
	stop func() // of the exchange, and then the host

	mu     sync.Mutex
	banned []peer.ID
}

func (n *node) bans() []peer.ID {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]peer.ID(nil), n.banned...)
}

type nodeOptions struct {
	key    crypto.PrivKey
	listen string
	seeds  []*node // to connect to
	serves func(peer.ID, cid.Cid) bool
}

func newNode(t *testing.T, bs blockstore.Blockstore, o nodeOptions) *node {
	t.Helper()
	if o.key == nil {
		o.key = fetchtest.NewKey(t)
	}
	if o.listen == "" {
		o.listen = "/ip4/127.0.0.1/tcp/0"
	}
	h, err := p2p.New(p2p.Options{Key: o.key, Listen: []string{o.listen}})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{h: h, bs: bs}
	n.e, err = New(h.Libp2p(), bs, Options{Router: h, Serves: o.serves, Ban: func(p peer.ID, reason string) {
		n.mu.Lock()
		n.banned = append(n.banned, p)
		n.mu.Unlock()
		h.Block(p, reason, time.Hour)
	}})
	if err != nil {
		t.Fatal(err)
	}
	n.e.guard.start = time.Now().Add(-time.Hour) // not just begun
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.e.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run() = %v", err)
		}
		h.Close()
	})
	t.Cleanup(n.stop)
	for _, s := range o.seeds {
		fetchtest.Connect(t, h, s.h.Addrs()[0])
	}
	return n
}

func TestFetchFromOne(t *testing.T) {
	t.Parallel()
	bs, root, size := dag(t, 1, 20*mib+5)
	seed := newNode(t, bs, nodeOptions{})
	n := newNode(t, memory(), nodeOptions{seeds: []*node{seed}})
	w := &watcher{T: t}
	begun := time.Now()
	if err := n.e.Fetch(within(t, 3*time.Minute), root, FetchOptions{MaxBytes: size, Progress: w.Progress}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB in %v", size/mib, time.Since(begun))
	wantAll(t, n.bs, bs)
	if w.Done != size || w.Total != size {
		t.Errorf("progress ended at %d of %d, want %d", w.Done, w.Total, size)
	}
	// Bitswap asks for a block twice now and then, above all on a busy machine, and
	// what comes the second time may be on its way still.
	waitFor(t, "what was sent to arrive", func() bool {
		got, sent := n.e.Stats(), seed.e.Stats()
		return sent == (Stats{SentBytes: got.PulledBytes + got.DuplicateBytes})
	})
	if got := n.e.Stats(); got.PulledBytes != uint64(size) || got.DuplicateBytes > uint64(size) || got.UnwantedBytes != 0 || got.SentBytes != 0 {
		t.Errorf("puller: %+v, want %d pulled", got, size)
	}
	// Again: nothing is asked for.
	seed.stop()
	w = &watcher{T: t}
	if err := n.e.Fetch(within(t, 3*time.Minute), root, FetchOptions{Progress: w.Progress}); err != nil || w.Done != size {
		t.Errorf("second fetch: %v, %d bytes", err, w.Done)
	}
}

// What a peer may not have it does not get by bitswap either, and others do.
func TestServes(t *testing.T) {
	t.Parallel()
	bs, root, size := dag(t, 7, 3*mib)
	var friend atomic.Pointer[peer.ID]
	seed := newNode(t, bs, nodeOptions{serves: func(p peer.ID, _ cid.Cid) bool {
		f := friend.Load()
		return f != nil && p == *f
	}})
	stranger := newNode(t, memory(), nodeOptions{seeds: []*node{seed}})
	if err := stranger.e.Fetch(within(t, 2*time.Second), root, FetchOptions{MaxBytes: size, Providers: []peer.ID{seed.h.ID()}}); err == nil {
		t.Error("a stranger gets it")
	}
	if got := stranger.e.Stats(); got.PulledBytes != 0 {
		t.Errorf("a stranger got %d bytes", got.PulledBytes)
	}
	n := newNode(t, memory(), nodeOptions{seeds: []*node{seed}})
	id := n.h.ID()
	friend.Store(&id)
	if err := n.e.Fetch(within(t, 3*time.Minute), root, FetchOptions{MaxBytes: size}); err != nil {
		t.Fatal(err)
	}
}

// Bitswap does not carry a file without bytes.
func TestEmptyFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, b := range map[string][]byte{"empty": nil, "full": content(1, 5)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	st := openShard(t, t.TempDir())
	imp, err := st.ImportDir(t.Context(), dir, shard.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bs := memory()
	fetchtest.Copy(t, bs, st, nil)
	seed := newNode(t, bs, nodeOptions{})
	n := newNode(t, memory(), nodeOptions{seeds: []*node{seed}})
	if err := n.e.Fetch(within(t, 3*time.Minute), imp.Root, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	wantAll(t, n.bs, bs)

	// Who does not know that it is empty, as other programs, gets it too.
	empty, err := shard.BytesCID(nil)
	if err != nil {
		t.Fatal(err)
	}
	other := newNode(t, memory(), nodeOptions{seeds: []*node{seed}})
	<-other.e.ready
	b, err := other.e.proto.session(t.Context()).GetBlock(within(t, 3*time.Minute), empty)
	if err != nil || len(b.RawData()) != 0 {
		t.Errorf("the empty block: %v", err)
	}
}

func TestFetchFromThree(t *testing.T) {
	t.Parallel()
	bs, root, size := dag(t, 2, 20*mib)
	var seeds []*node
	for range 3 {
		// None so fast that the others are not needed, also where one is late.
		seeds = append(seeds, newNode(t, slowly(bs, 50*time.Millisecond), nodeOptions{}))
	}
	n := newNode(t, memory(), nodeOptions{seeds: seeds})
	if err := n.e.Fetch(within(t, 3*time.Minute), root, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	wantAll(t, n.bs, bs)
	var sent uint64
	waitFor(t, "two of the seeds to have sent something", func() bool { // one counts what it sent when it was sent
		used := 0
		sent = 0
		for _, s := range seeds {
			if s.e.Stats().SentBytes > 0 {
				used++
			}
			sent += s.e.Stats().SentBytes
		}
		return used >= 2
	})
	got := n.e.Stats()
	t.Logf("%+v", got)
	if got.PulledBytes != uint64(size) || got.UnwantedBytes != 0 {
		t.Errorf("pulled %d, unwanted %d; want %d, 0", got.PulledBytes, got.UnwantedBytes, size)
	}
	// What bitswap asks of two peers because one is late is its own affair.
	t.Logf("%d bytes were sent, of %d", sent, size)
	if len(n.bans()) > 0 {
		t.Errorf("banned %v", n.bans())
	}
}

func TestForgerAmongGoodPeers(t *testing.T) {
	t.Parallel()
	bs, root, _ := dag(t, 15, 20*mib)
	bad := newNode(t, forger(bs), nodeOptions{})
	good := newNode(t, bs, nodeOptions{})
	n := newNode(t, memory(), nodeOptions{seeds: []*node{bad, good}})
	if err := n.e.Fetch(within(t, 3*time.Minute), root, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	wantAll(t, n.bs, bs)
	for _, p := range n.bans() {
		if p != bad.h.ID() {
			t.Errorf("%s was banned, the forger is %s", p, bad.h.ID())
		}
	}
}

// A peer that listens and never answers.
func TestSilentProvider(t *testing.T) {
	t.Parallel()
	silent, err := p2p.New(p2p.Options{Key: fetchtest.NewKey(t), Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	silent.Libp2p().SetStreamHandler(bsnet.ProtocolBitswap, func(network.Stream) {})
	_, root, _ := dag(t, 11, 10)
	n := newNode(t, memory(), nodeOptions{})
	fetchtest.Connect(t, n.h, silent.Addrs()[0])
	for d := time.Second; d < 5*time.Minute; d *= 4 { // until it was asked at all
		err = n.e.Fetch(within(t, d), root, FetchOptions{Providers: []peer.ID{silent.ID()}})
		if err == nil || strings.Contains(err.Error(), silent.ID().String()) {
			break
		}
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Fetch() = %v, want the deadline", err)
	}
	for _, want := range []string{root.String(), "nothing of it came", silent.ID().String()} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

func TestFetchEndsWithRun(t *testing.T) {
	t.Parallel()
	_, root, _ := dag(t, 13, 10)
	n := newNode(t, memory(), nodeOptions{})
	ended := make(chan error, 1)
	go func() { ended <- n.e.Fetch(context.WithoutCancel(t.Context()), root, FetchOptions{}) }()
	waitFor(t, "the fetch to ask", func() bool {
		n.e.guard.mu.Lock()
		defer n.e.guard.mu.Unlock()
		return len(n.e.guard.wanted) == 1
	})
	n.stop()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("Fetch() = %v, want ErrClosed", err)
	}
	if err := n.e.Fetch(t.Context(), root, FetchOptions{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Fetch() after Run = %v, want ErrClosed", err)
	}
}

func TestLocalDAGNeedsNoNetwork(t *testing.T) {
	bs, root, size := dag(t, 14, 3*mib)
	h, err := p2p.New(p2p.Options{Key: fetchtest.NewKey(t), Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	e, err := New(h.Libp2p(), bs, Options{}) // not run
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{T: t}
	if err := e.Fetch(within(t, 3*time.Minute), root, FetchOptions{Progress: w.Progress}); err != nil || w.Done != size {
		t.Errorf("Fetch() = %v, %d of %d bytes", err, w.Done, size)
	}
}
