package pull

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/shard"
)

func TestFetchFromOne(t *testing.T) {
	t.Parallel()
	bs, root, size := dagOf(t, 1, 20*mib+5)
	seed := newNode(t, bs, nodeOptions{})
	n := newNode(t, memory(), nodeOptions{seeds: []*node{seed}})
	w := &watcher{t: t}
	begun := time.Now()
	if err := n.p.Fetch(within(t, time.Minute), root, FetchOptions{MaxBytes: size, Progress: w.progress}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB in %v", size/mib, time.Since(begun))
	wantAll(t, n.bs, bs)
	if w.done != size || w.total != size {
		t.Errorf("progress ended at %d of %d, want %d", w.done, w.total, size)
	}
	if got, want := n.p.Stats(), (Stats{PulledBytes: uint64(size)}); got != want {
		t.Errorf("puller: %+v, want %+v", got, want)
	}
	if got, want := seed.p.Stats(), (Stats{SentBytes: uint64(size)}); got != want {
		t.Errorf("seed: %+v, want %+v", got, want)
	}
	// Again: nothing is asked for.
	seed.stop()
	w = &watcher{t: t}
	if err := n.p.Fetch(within(t, time.Minute), root, FetchOptions{Progress: w.progress}); err != nil || w.done != size {
		t.Errorf("second fetch: %v, %d bytes", err, w.done)
	}
}

// The root of a small file is its only leaf.
func TestSingleLeaf(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 5, mib} {
		bs, root, size := dagOf(t, 2, n)
		seed := newNode(t, bs, nodeOptions{})
		to := newNode(t, memory(), nodeOptions{seeds: []*node{seed}})
		w := &watcher{t: t}
		if err := to.p.Fetch(within(t, time.Minute), root, FetchOptions{MaxBytes: size, Progress: w.progress}); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		wantAll(t, to.bs, bs)
		if w.done != size || w.total != size {
			t.Errorf("progress ended at %d of %d, want %d", w.done, w.total, size)
		}
	}
}

// A peer is named, not connected.
func TestFetchDialsProviders(t *testing.T) {
	t.Parallel()
	bs, root, _ := dagOf(t, 3, 3*mib)
	seed := newNode(t, bs, nodeOptions{})
	n := newNode(t, memory(), nodeOptions{})
	info := seed.h.Libp2p().Peerstore().PeerInfo(seed.h.ID())
	n.h.Libp2p().Peerstore().AddAddrs(info.ID, info.Addrs, time.Hour)
	o := FetchOptions{Providers: []peer.ID{n.h.ID(), seed.h.ID()}}
	if err := n.p.Fetch(within(t, time.Minute), root, o); err != nil {
		t.Fatal(err)
	}
	wantAll(t, n.bs, bs)
}

// Nobody is named; the router knows who has it.
func TestFetchAsksRouter(t *testing.T) {
	t.Parallel()
	bs, root, _ := dagOf(t, 4, mib)
	boot := newNode(t, memory(), nodeOptions{})
	seed := newNode(t, bs, nodeOptions{seeds: []*node{boot}})
	n := newNode(t, memory(), nodeOptions{seeds: []*node{boot}})
	for _, o := range []*node{boot, seed, n} {
		running(t, o.h.Run)
	}
	if err := seed.h.Provide(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	if err := n.p.Fetch(within(t, time.Minute), root, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	wantAll(t, n.bs, bs)
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
	if err := n.p.Fetch(within(t, time.Minute), root, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	wantAll(t, n.bs, bs)
	var sent uint64
	for i, s := range seeds[:3] {
		if s.p.Stats().SentBytes == 0 {
			t.Errorf("seed %d sent nothing", i)
		}
		sent += s.p.Stats().SentBytes
	}
	if got := n.p.Stats(); got.PulledBytes != uint64(size) || sent != got.PulledBytes+got.DuplicateBytes {
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
	go func() { ended <- last.p.Fetch(within(t, time.Minute), root, FetchOptions{}) }()
	if err := middle.h.Connect(t.Context(), seed.h.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	if err := middle.p.Fetch(within(t, time.Minute), root, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	wantAll(t, last.bs, bs)
	if got := middle.p.Stats().SentBytes; got != uint64(size) {
		t.Errorf("the one in the middle sent %d bytes, want %d", got, size)
	}
}

func TestForgerAlone(t *testing.T) {
	t.Parallel()
	bs, root, size := dagOf(t, 7, 8*mib)
	bad := newNode(t, forger(bs), nodeOptions{})
	n := newNode(t, memory(), nodeOptions{seeds: []*node{bad}})
	ended := make(chan error, 1)
	w := &watcher{t: t}
	go func() { ended <- n.p.Fetch(within(t, time.Minute), root, FetchOptions{Progress: w.progress}) }()
	waitFor(t, "the forger's ban", func() bool { return n.h.Blocked(bad.h.ID()) })
	wantClean(t, n.bs)
	if s := n.p.Stats(); s.PulledBytes > 4096 {
		t.Errorf("with a forger alone: %+v", s)
	}
	// The fetch goes on, and a good peer comes.
	seed := newNode(t, bs, nodeOptions{})
	if err := n.h.Connect(t.Context(), seed.h.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	wantAll(t, n.bs, bs)
	if got := n.bans.list(); len(got) != 1 || got[0] != bad.h.ID() {
		t.Errorf("banned %v, the forger is %s", got, bad.h.ID())
	}
	if s := n.p.Stats(); s.PulledBytes != uint64(size) || w.done != size {
		t.Errorf("pulled %d bytes, progress %d, want %d", s.PulledBytes, w.done, size)
	}
	if !n.p.isBanned(bad.h.ID()) {
		t.Error("the ban was forgotten")
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
		if err := n.p.Fetch(within(t, time.Minute), root, FetchOptions{}); err != nil {
			t.Fatal(err)
		}
		wantAll(t, n.bs, bs)
		if got := n.bans.list(); len(got) != 1 || got[0] != bad.h.ID() {
			t.Errorf("%s: banned %v, the forger is %s", name, got, bad.h.ID())
		}
		if got := n.p.Stats().PulledBytes; got != uint64(size) {
			t.Errorf("%s: pulled %d bytes, want %d", name, got, size)
		}
		if !n.p.buffers.left.TryAcquire(maxBuffered) {
			t.Errorf("%s: some memory was not given back", name)
		}
	}
}

func TestSourceDiesInTheMiddle(t *testing.T) {
	t.Parallel()
	bs, root, size := dagOf(t, 9, 20*mib)
	dying, living := newNode(t, slowly(bs, 5*time.Millisecond), nodeOptions{}), newNode(t, slowly(bs, 5*time.Millisecond), nodeOptions{})
	n := newNode(t, memory(), nodeOptions{seeds: []*node{dying, living}})
	var kill sync.Once
	w := &watcher{t: t, at: func(done int64) {
		if done > size/4 {
			kill.Do(func() { dying.h.Close() })
		}
	}}
	if err := n.p.Fetch(within(t, time.Minute), root, FetchOptions{Progress: w.progress}); err != nil {
		t.Fatal(err)
	}
	wantAll(t, n.bs, bs)
	if s := dying.p.Stats().SentBytes; s == 0 || s >= uint64(size) {
		t.Errorf("the source that died had sent %d bytes", s)
	}
	if len(n.bans.list()) > 0 {
		t.Errorf("banned %v", n.bans.list())
	}
}

// The only source dies and comes back at the same address.
func TestOnlySourceComesBack(t *testing.T) {
	t.Parallel()
	bs, root, size := dagOf(t, 10, 20*mib)
	key := newKey(t)
	seed := newNode(t, slowly(bs, 5*time.Millisecond), nodeOptions{key: key})
	listen := seed.h.Libp2p().Addrs()[0].String()
	n := newNode(t, memory(), nodeOptions{seeds: []*node{seed}})
	third := make(chan struct{})
	var once sync.Once
	w := &watcher{t: t, at: func(done int64) {
		if done > size/3 {
			once.Do(func() { close(third) })
		}
	}}
	ended := make(chan error, 1)
	go func() {
		ended <- n.p.Fetch(within(t, time.Minute), root, FetchOptions{Progress: w.progress, Providers: []peer.ID{seed.h.ID()}})
	}()
	<-third
	seed.stop()
	newNode(t, bs, nodeOptions{key: key, listen: listen})
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	wantAll(t, n.bs, bs)
}

func TestFetchResumesAfterRestart(t *testing.T) {
	t.Parallel()
	bs, root, size := dagOf(t, 11, 20*mib)
	seed := newNode(t, slowly(bs, 5*time.Millisecond), nodeOptions{})
	dir := t.TempDir()

	st := openShard(t, dir)
	n := newNode(t, st, nodeOptions{seeds: []*node{seed}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := &watcher{t: t, at: func(done int64) {
		if done > size/3 {
			cancel()
		}
	}}
	if err := n.p.Fetch(ctx, root, FetchOptions{Progress: w.progress}); !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted fetch: %v", err)
	}
	n.stop()
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}

	st = openShard(t, dir)
	_, have, _, err := st.Missing(t.Context(), root)
	if err != nil || have < size/3 || have == size {
		t.Fatalf("%d bytes are local after the restart (%v)", have, err)
	}
	n = newNode(t, st, nodeOptions{seeds: []*node{seed}})
	first := int64(-1)
	w = &watcher{t: t, at: func(done int64) {
		if n.p.Stats().PulledBytes == 0 {
			first = done
		}
	}}
	if err := n.p.Fetch(within(t, time.Minute), root, FetchOptions{Progress: w.progress}); err != nil {
		t.Fatal(err)
	}
	if first != have {
		t.Errorf("progress began at %d bytes, %d are local", first, have)
	}
	if got := n.p.Stats().PulledBytes; got != uint64(size-have) {
		t.Errorf("pulled %d bytes after the restart, want %d", got, size-have)
	}
	if w.done != size {
		t.Errorf("progress ended at %d of %d", w.done, size)
	}
	got, err := st.ReadBytes(t.Context(), root, size)
	if err != nil || !bytes.Equal(got, content(11, 20*mib)) {
		t.Errorf("the file reads as %d bytes, %v", len(got), err)
	}
}

// folder imports a folder in which files and leaves repeat, with directories
// in directories.
func folder(t *testing.T) (st *shard.Store, root cid.Cid, size int64) {
	t.Helper()
	dir := t.TempDir()
	for i := range 6 {
		name := filepath.Join(dir, fmt.Sprint("d", i%2), "e", fmt.Sprint("f", i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		b := append(content(9, mib), content(9, mib)...)
		if i >= 3 {
			b = append(b, content(byte(i), mib/2)...)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	st = openShard(t, t.TempDir())
	imp, err := st.ImportDir(t.Context(), dir, shard.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, have, _, err := st.Missing(t.Context(), imp.Root)
	if err != nil {
		t.Fatal(err)
	}
	return st, imp.Root, have
}

func TestFolderWithRepetitions(t *testing.T) {
	t.Parallel()
	st, root, size := folder(t)
	seed := newNode(t, st, nodeOptions{})
	n := newNode(t, openShard(t, t.TempDir()), nodeOptions{seeds: []*node{seed}})
	w := &watcher{t: t}
	if err := n.p.Fetch(within(t, time.Minute), root, FetchOptions{Progress: w.progress}); err != nil {
		t.Fatal(err)
	}
	if w.done != size || w.total != size || n.p.Stats().PulledBytes != uint64(size) {
		t.Errorf("progress ended at %d of %d, pulled %d; want %d", w.done, w.total, n.p.Stats().PulledBytes, size)
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := n.bs.(*shard.Store).Materialize(t.Context(), root, out, shard.MaterializeOptions{MaxBytes: 100 * mib}); err != nil {
		t.Error(err)
	}
}

// The order of leaves is what two peers must agree on.
func TestOrderOfLeaves(t *testing.T) {
	st, root, _ := folder(t)
	d, err := openDAG(t.Context(), st, root)
	if err != nil {
		t.Fatal(err)
	}
	var want []digest
	for _, b := range [][]byte{content(9, mib), content(4, mib/2), content(3, mib/2), content(5, mib/2)} {
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

func TestSeveralFetchesOfOneDAG(t *testing.T) {
	t.Parallel()
	bs, root, size := dagOf(t, 12, 5*mib)
	seed := newNode(t, bs, nodeOptions{})
	n := newNode(t, memory(), nodeOptions{})
	info := seed.h.Libp2p().Peerstore().PeerInfo(seed.h.ID())
	n.h.Libp2p().Peerstore().AddAddrs(info.ID, info.Addrs, time.Hour)
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			w := &watcher{t: t}
			o := FetchOptions{Progress: w.progress}
			if i == 2 {
				o.Providers = []peer.ID{seed.h.ID()} // whichever is first, it gets to know
			}
			if err := n.p.Fetch(within(t, time.Minute), root, o); err != nil || w.done != size {
				t.Errorf("fetch: %v, %d of %d bytes", err, w.done, size)
			}
		})
	}
	wg.Wait()
	wantAll(t, n.bs, bs)
	if s := n.p.Stats(); s.PulledBytes != uint64(size) || s.DuplicateBytes != 0 {
		t.Errorf("%+v", s)
	}
}

func TestErrorSaysHowFarItCame(t *testing.T) {
	t.Parallel()
	bs, root, _ := dagOf(t, 13, 3*mib)
	b, err := bs.Get(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	links, err := shard.Links(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := bs.DeleteBlock(t.Context(), links[1].CID); err != nil {
		t.Fatal(err)
	}
	seed := newNode(t, bs, nodeOptions{})
	n := newNode(t, memory(), nodeOptions{seeds: []*node{seed}})
	err = n.p.Fetch(within(t, time.Second), root, FetchOptions{})
	for _, want := range []string{root.String(), "3 of 4 blocks", seed.h.ID().String(), context.DeadlineExceeded.Error()} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
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
	w := &watcher{t: t}
	if err := p.Fetch(within(t, time.Minute), root, FetchOptions{Progress: w.progress}); err != nil || w.done != size {
		t.Errorf("Fetch() = %v, %d of %d bytes", err, w.done, size)
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
	if err := n.p.Fetch(within(t, time.Minute), root, FetchOptions{}); !errors.Is(err, errDiskFull) {
		t.Errorf("Fetch() = %v, want %v", err, errDiskFull)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute for: %s", what)
		}
	}
}
