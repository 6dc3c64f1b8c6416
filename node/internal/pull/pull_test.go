package pull

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/fetchtest"
	"github.com/moot-net/moot/shard"
)

func TestFetcher(t *testing.T) {
	fetchtest.Fetcher(t, func(t *testing.T, bs blockstore.Blockstore, o fetchtest.NodeOptions) *fetchtest.Node {
		n := newNode(t, bs, nodeOptions{key: o.Key, listen: o.Listen})
		for _, s := range o.Seeds {
			fetchtest.Connect(t, n.h, s.Host.Addrs()[0])
		}
		return &fetchtest.Node{
			Host: n.h, Store: bs, Stop: n.stop, Banned: n.bans.list,
			Fetch: func(ctx context.Context, root cid.Cid, o fetchtest.FetchOptions) error {
				return n.p.Fetch(ctx, root, FetchOptions{MaxBytes: o.MaxBytes, Providers: o.Providers, Progress: o.Progress})
			},
			Pulled: func() uint64 { return n.p.Stats().PulledBytes },
			Sent:   func() uint64 { return n.p.Stats().SentBytes },
		}
	})
}

func TestFetchFromOne(t *testing.T) {
	t.Parallel()
	bs, root, size := dagOf(t, 1, 20*mib+5)
	seed := newNode(t, bs, nodeOptions{})
	n := newNode(t, memory(), nodeOptions{seeds: []*node{seed}})
	w := &watcher{T: t}
	begun := time.Now()
	if err := n.p.Fetch(within(t, 3*time.Minute), root, FetchOptions{MaxBytes: size, Progress: w.Progress}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB in %v", size/mib, time.Since(begun))
	wantAll(t, n.bs, bs)
	if w.Done != size || w.Total != size {
		t.Errorf("progress ended at %d of %d, want %d", w.Done, w.Total, size)
	}
	got, sent := n.p.Stats(), seed.p.Stats()
	if time.Since(begun) > stallTime { // on a machine that did nothing for so long a block may have been asked for again
		got.DuplicateBytes, sent.SentBytes = 0, min(sent.SentBytes, uint64(size))
	}
	if want := (Stats{PulledBytes: uint64(size)}); got != want {
		t.Errorf("puller: %+v, want %+v", got, want)
	}
	if want := (Stats{SentBytes: uint64(size)}); sent != want {
		t.Errorf("seed: %+v, want %+v", sent, want)
	}
	// Again: nothing is asked for.
	seed.stop()
	w = &watcher{T: t}
	if err := n.p.Fetch(within(t, 3*time.Minute), root, FetchOptions{Progress: w.Progress}); err != nil || w.Done != size {
		t.Errorf("second fetch: %v, %d bytes", err, w.Done)
	}
}

// The root of a small file is its only leaf.
func TestSingleLeaf(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 5, mib} {
		bs, root, size := dagOf(t, 2, n)
		seed := newNode(t, bs, nodeOptions{})
		to := newNode(t, memory(), nodeOptions{seeds: []*node{seed}})
		w := &watcher{T: t}
		if err := to.p.Fetch(within(t, 3*time.Minute), root, FetchOptions{MaxBytes: size, Progress: w.Progress}); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		wantAll(t, to.bs, bs)
		if w.Done != size || w.Total != size {
			t.Errorf("progress ended at %d of %d, want %d", w.Done, w.Total, size)
		}
	}
}

// Each of three has the inner nodes and a part of the leaves; one leaf is at
// each alone. A fourth has leaves and no nodes.
func TestPartialPeers(t *testing.T) {
	t.Parallel()
	bs, root, size := dagOf(t, 5, 24*mib)
	var seeds []*node
	for i := range 4 {
		part := memory()
		nth := -1
		copySome(t, part, bs, func(c cid.Cid) bool {
			n, err := bs.GetSize(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			nth++
			if n != mib {
				return i < 3
			}
			return int(digestOf(c)[0])%3 == i || i == 3
		})
		seeds = append(seeds, newNode(t, part, nodeOptions{}))
	}
	n := newNode(t, memory(), nodeOptions{seeds: seeds})
	begun := time.Now()
	if err := n.p.Fetch(within(t, 3*time.Minute), root, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	busy := time.Since(begun) > stallTime // then what was asked for again may not have come
	wantAll(t, n.bs, bs)
	var sent uint64
	for i, s := range seeds[:3] {
		if s.p.Stats().SentBytes == 0 {
			t.Errorf("seed %d sent nothing", i)
		}
		sent += s.p.Stats().SentBytes
	}
	if got := n.p.Stats(); got.PulledBytes != uint64(size) || sent < got.PulledBytes || !busy && sent != got.PulledBytes+got.DuplicateBytes {
		t.Errorf("%+v, %d bytes were sent", got, sent)
	}
}

// What a peer gets while it is being followed goes on to the next.
func TestChain(t *testing.T) {
	t.Parallel()
	bs, root, size := dagOf(t, 6, 12*mib)
	seed := newNode(t, slowly(bs, 20*time.Millisecond), nodeOptions{alone: true})
	middle := newNode(t, memory(), nodeOptions{alone: true})
	last := newNode(t, memory(), nodeOptions{seeds: []*node{middle}, alone: true})
	last.h.Block(seed.h.ID(), "a DHT finds everybody", time.Hour)
	ended := make(chan error, 1)
	begun := time.Now()
	go func() { ended <- last.p.Fetch(within(t, 3*time.Minute), root, FetchOptions{}) }()
	fetchtest.Connect(t, middle.h, seed.h.Addrs()[0])
	if err := middle.p.Fetch(within(t, 3*time.Minute), root, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	wantAll(t, last.bs, bs)
	busy := time.Since(begun) > stallTime // then a block may have been asked for again
	if got := middle.p.Stats().SentBytes; got < uint64(size) || !busy && got != uint64(size) {
		t.Errorf("the one in the middle sent %d bytes, want %d", got, size)
	}
}

// A store on disk checks the hashes itself; a store in memory does not.
func TestForgerAmongGoodPeers(t *testing.T) {
	t.Parallel()
	bs, root, size := dagOf(t, 8, 20*mib)
	bad := newNode(t, forger(bs), nodeOptions{})
	good := newNode(t, slowly(bs, 2*time.Millisecond), nodeOptions{})
	for name, to := range map[string]blockstore.Blockstore{"memory": memory(), "disk": openShard(t, t.TempDir())} {
		n := newNode(t, to, nodeOptions{seeds: []*node{bad, good}})
		if err := n.p.Fetch(within(t, 3*time.Minute), root, FetchOptions{}); err != nil {
			t.Fatal(err)
		}
		wantAll(t, n.bs, bs)
		n.p.mu.Lock()
		struck := n.p.struck[bad.h.ID()] && len(n.p.struck) == 1
		n.p.mu.Unlock()
		if got := n.bans.list(); !struck || len(got) > 1 || (len(got) == 1 && got[0] != bad.h.ID()) {
			t.Errorf("%s: the forger was noticed: %v; banned %v, the forger is %s", name, struck, got, bad.h.ID())
		}
		if got := n.p.Stats().PulledBytes; got != uint64(size) {
			t.Errorf("%s: pulled %d bytes, want %d", name, got, size)
		}
		if !n.p.buffers.left.TryAcquire(maxBuffered) {
			t.Errorf("%s: some memory was not given back", name)
		}
	}
}

// The order of leaves is what two peers must agree on.
func TestOrderOfLeaves(t *testing.T) {
	st, root, _ := fetchtest.Folder(t)
	d, err := openDAG(t.Context(), st, root)
	if err != nil {
		t.Fatal(err)
	}
	var want []digest
	for _, b := range [][]byte{content(9, mib), content(4, mib/2), content(3, mib/2), content(5, mib/2), nil} {
		c, err := shard.BytesCID(b)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, digestOf(c))
	}
	// d0/e/f4, d1/e/f3, d1/e/f5 follow d0/e/f0, f2 and d1/e/f1.
	if !slices.Equal(d.leaves, want) {
		t.Errorf("leaves are %x, want %x", d.leaves, want)
	}
}

func TestFetchEndsWithRun(t *testing.T) {
	t.Parallel()
	_, root, _ := dagOf(t, 14, 10)
	n := newNode(t, memory(), nodeOptions{})
	ended := make(chan error, 1)
	go func() { ended <- n.p.Fetch(context.WithoutCancel(t.Context()), root, FetchOptions{}) }()
	waitFor(t, "the fetch to begin", func() bool {
		n.p.mu.Lock()
		defer n.p.mu.Unlock()
		return len(n.p.fetches) == 1
	})
	n.stop()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("Fetch() = %v, want ErrClosed", err)
	}
	if err := n.p.Fetch(t.Context(), root, FetchOptions{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Fetch() after Run = %v, want ErrClosed", err)
	}
}

func TestLocalDAGNeedsNoNetwork(t *testing.T) {
	bs, root, size := dagOf(t, 15, 3*mib)
	p, err := New(newHost(t, nil, "/ip4/127.0.0.1/tcp/0").Libp2p(), bs, Options{}) // not run
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{T: t}
	if err := p.Fetch(within(t, 3*time.Minute), root, FetchOptions{Progress: w.Progress}); err != nil || w.Done != size {
		t.Errorf("Fetch() = %v, %d of %d bytes", err, w.Done, size)
	}
	if len(p.dags)+len(p.fetches) != 0 {
		t.Errorf("%d dags and %d fetches are left", len(p.dags), len(p.fetches))
	}
}

// A fetch that may not write says so.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	bs, root, _ := dagOf(t, 16, 3*mib)
	seed := newNode(t, bs, nodeOptions{})
	n := newNode(t, full{memory()}, nodeOptions{seeds: []*node{seed}})
	if err := n.p.Fetch(within(t, 3*time.Minute), root, FetchOptions{}); !errors.Is(err, errDiskFull) {
		t.Errorf("Fetch() = %v, want %v", err, errDiskFull)
	}
}

// A peer of another version gives nothing, and the error says which one it is.
func TestOtherVersion(t *testing.T) {
	t.Parallel()
	_, root, _ := dagOf(t, 60, mib)
	old := newHost(t, nil, "/ip4/127.0.0.1/tcp/0")
	old.Libp2p().SetStreamHandler("/moot/shard/7", func(s network.Stream) {
		t.Error("it was asked for something")
		s.Reset()
	})
	n := newNode(t, memory(), nodeOptions{alone: true})
	fetchtest.Connect(t, n.h, old.Addrs()[0])
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- n.p.Fetch(ctx, root, FetchOptions{Providers: []peer.ID{old.ID()}}) }()
	waitFor(t, "the peer to be asked", func() bool {
		n.p.mu.Lock()
		f := n.p.fetches[root]
		n.p.mu.Unlock()
		if f == nil {
			return false
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.mute != nil
	})
	cancel()
	err := <-ended
	for _, want := range []string{"speaks version 7 of /moot/shard, this node version 1", "has to be updated"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Fetch() = %v, want %q in it", err, want)
		}
	}
	if len(n.bans.list()) > 0 {
		t.Error("it was banned")
	}
}
