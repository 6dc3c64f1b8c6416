package exchange

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/p2p"
	"github.com/moot-net/moot/shard"
)

const mib = 1 << 20

func memory() blockstore.Blockstore {
	return blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
}

// content is n bytes that differ by seed.
func content(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = mrand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// dag is a file of n bytes in a memory store, with the sum of its blocks.
func dag(t testing.TB, seed byte, n int) (bs blockstore.Blockstore, root cid.Cid, size int64) {
	t.Helper()
	st := openShard(t, t.TempDir())
	root, err := st.PutBytes(t.Context(), content(seed, n))
	if err != nil {
		t.Fatal(err)
	}
	bs = memory()
	return bs, root, copyAll(t, bs, st)
}

func openShard(t testing.TB, dir string) *shard.Store {
	t.Helper()
	st, err := shard.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// copyAll copies the blocks of one store to another, and sums them up.
func copyAll(t testing.TB, to, from blockstore.Blockstore) (size int64) {
	t.Helper()
	keys, err := from.AllKeysChan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for k := range keys {
		b, err := from.Get(t.Context(), k)
		if err != nil {
			// Stores tell keys by hash alone.
			if b, err = from.Get(t.Context(), cid.NewCidV1(cid.DagProtobuf, k.Hash())); err != nil {
				t.Fatal(err)
			}
		}
		if err := to.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		size += int64(len(b.RawData()))
	}
	return size
}

// wantAll checks that to has just the blocks of from, and good ones.
func wantAll(t *testing.T, to, from blockstore.Blockstore) {
	t.Helper()
	keys, err := from.AllKeysChan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for k := range keys {
		want, err := from.Get(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		got, err := to.Get(t.Context(), k)
		if err != nil {
			t.Errorf("block %s: %v", k, err)
			continue
		}
		if !bytes.Equal(got.RawData(), want.RawData()) {
			t.Errorf("block %s has other bytes", k)
		}
	}
	wantClean(t, to)
}

// wantClean checks that each block of a store is what its CID says.
func wantClean(t *testing.T, bs blockstore.Blockstore) {
	t.Helper()
	keys, err := bs.AllKeysChan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for k := range keys {
		b, err := bs.Get(t.Context(), k)
		if err != nil {
			t.Error(err)
			continue
		}
		if sum, err := k.Prefix().Sum(b.RawData()); err != nil || !bytes.Equal(sum.Hash(), k.Hash()) {
			t.Errorf("a forged block is in the store under %s", k)
		}
	}
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
}

func newNode(t *testing.T, bs blockstore.Blockstore, o nodeOptions) *node {
	t.Helper()
	if o.key == nil {
		o.key = newKey(t)
	}
	if o.listen == "" {
		o.listen = "/ip4/127.0.0.1/tcp/0"
	}
	h, err := p2p.New(p2p.Options{Key: o.key, Listen: []string{o.listen}})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{h: h, bs: bs}
	n.e, err = New(h.Libp2p(), bs, Options{Router: h, Ban: func(p peer.ID, reason string) {
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
		if err := h.Connect(t.Context(), s.h.Addrs()[0]); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func newKey(t *testing.T) crypto.PrivKey {
	t.Helper()
	k, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// within is a context that ends after d, or with the test.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute for: %s", what)
		}
	}
}

// watcher checks what progress tells.
type watcher struct {
	t           *testing.T
	done, total int64
	at          func(done int64) // may be nil
}

func (w *watcher) progress(done, total int64) {
	if done < w.done || done > total {
		w.t.Errorf("progress went from %d of %d to %d of %d", w.done, w.total, done, total)
	}
	w.done, w.total = done, total
	if w.at != nil {
		w.at(done)
	}
}

func TestFetchFromOne(t *testing.T) {
	t.Parallel()
	bs, root, size := dag(t, 1, 20*mib+5)
	seed := newNode(t, bs, nodeOptions{})
	n := newNode(t, memory(), nodeOptions{seeds: []*node{seed}})
	w := &watcher{t: t}
	begun := time.Now()
	if err := n.e.Fetch(within(t, time.Minute), root, FetchOptions{MaxBytes: size, Progress: w.progress}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB in %v", size/mib, time.Since(begun))
	wantAll(t, n.bs, bs)
	if w.done != size || w.total != size {
		t.Errorf("progress ended at %d of %d, want %d", w.done, w.total, size)
	}
	// Bitswap asks for a block twice now and then.
	got, sent := n.e.Stats(), seed.e.Stats()
	if got.PulledBytes != uint64(size) || got.DuplicateBytes > uint64(size)/4 || got.UnwantedBytes != 0 || got.SentBytes != 0 {
		t.Errorf("puller: %+v, want %d pulled", got, size)
	}
	if sent != (Stats{SentBytes: got.PulledBytes + got.DuplicateBytes}) {
		t.Errorf("seed: %+v; puller: %+v", sent, got)
	}
	// Again: nothing is asked for.
	seed.stop()
	w = &watcher{t: t}
	if err := n.e.Fetch(within(t, time.Minute), root, FetchOptions{Progress: w.progress}); err != nil || w.done != size {
		t.Errorf("second fetch: %v, %d bytes", err, w.done)
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
	copyAll(t, bs, st)
	seed := newNode(t, bs, nodeOptions{})
	n := newNode(t, memory(), nodeOptions{seeds: []*node{seed}})
	if err := n.e.Fetch(within(t, time.Minute), imp.Root, FetchOptions{}); err != nil {
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
	b, err := other.e.proto.session(t.Context()).GetBlock(within(t, time.Minute), empty)
	if err != nil || len(b.RawData()) != 0 {
		t.Errorf("the empty block: %v", err)
	}
}

func TestFetchFromThree(t *testing.T) {
	t.Parallel()
	bs, root, size := dag(t, 2, 20*mib)
	var seeds []*node
	for range 3 {
		// None so fast that the others are not needed.
		seeds = append(seeds, newNode(t, slowly{bs, nil}, nodeOptions{}))
	}
	n := newNode(t, memory(), nodeOptions{seeds: seeds})
	if err := n.e.Fetch(within(t, time.Minute), root, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	wantAll(t, n.bs, bs)
	var sent uint64
	used := 0
	for _, s := range seeds {
		if s.e.Stats().SentBytes > 0 {
			used++
		}
		sent += s.e.Stats().SentBytes
	}
	if used < 2 {
		t.Errorf("%d of 3 seeds sent something", used)
	}
	got := n.e.Stats()
	t.Logf("%+v", got)
	if got.PulledBytes != uint64(size) || got.UnwantedBytes != 0 {
		t.Errorf("pulled %d, unwanted %d; want %d, 0", got.PulledBytes, got.UnwantedBytes, size)
	}
	// What bitswap asks of two peers because one is late is its own affair.
	t.Logf("%d bytes came twice", sent-uint64(size))
	if len(n.bans()) > 0 {
		t.Errorf("banned %v", n.bans())
	}
}

// A peer is named, not connected; the router knows where it is.
func TestFetchDialsProviders(t *testing.T) {
	t.Parallel()
	bs, root, _ := dag(t, 3, 3*mib)
	seed := newNode(t, bs, nodeOptions{})
	n := newNode(t, memory(), nodeOptions{})
	info := seed.h.Libp2p().Peerstore().PeerInfo(seed.h.ID())
	n.h.Libp2p().Peerstore().AddAddrs(info.ID, info.Addrs, time.Hour)
	o := FetchOptions{Providers: []peer.ID{n.h.ID(), seed.h.ID()}}
	if err := n.e.Fetch(within(t, time.Minute), root, o); err != nil {
		t.Fatal(err)
	}
	wantAll(t, n.bs, bs)
}

// Nobody is named, and the one connected peer has nothing but the DHT.
func TestFetchFindsProviders(t *testing.T) {
	t.Parallel()
	bs, root, _ := dag(t, 4, mib)
	boot := newNode(t, memory(), nodeOptions{})
	seed := newNode(t, bs, nodeOptions{seeds: []*node{boot}})
	n := newNode(t, memory(), nodeOptions{seeds: []*node{boot}})
	for _, o := range []*node{boot, seed, n} {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- o.h.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-ended })
	}
	if err := seed.h.Provide(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	if err := n.e.Fetch(within(t, time.Minute), root, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	wantAll(t, n.bs, bs)
}

// forger has every block, and gives others bytes instead of a leaf.
type forger struct{ blockstore.Blockstore }

func (f forger) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	b, err := f.Blockstore.Get(ctx, c)
	if err != nil || len(b.RawData()) < mib {
		return b, err
	}
	bad := bytes.Clone(b.RawData())
	bad[len(bad)/2] ^= 1
	return blocks.NewBlockWithCid(bad, c)
}

func TestForgedBlocksAreNeverStored(t *testing.T) {
	t.Parallel()
	bs, root, size := dag(t, 5, 20*mib)
	bad := newNode(t, forger{bs}, nodeOptions{})
	n := newNode(t, memory(), nodeOptions{seeds: []*node{bad}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- n.e.Fetch(ctx, root, FetchOptions{}) }()
	waitFor(t, "the forger's ban", func() bool { return n.h.Blocked(bad.h.ID()) })
	wantClean(t, n.bs)
	if s := n.e.Stats(); s.UnwantedBytes < maxStrikes*mib || s.PulledBytes > 1<<16 {
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
	// Blocks that were under way can earn it another one.
	if got := slices.Compact(n.bans()); len(got) != 1 || got[0] != bad.h.ID() {
		t.Errorf("banned %v, the forger is %s", got, bad.h.ID())
	}
	if s := n.e.Stats(); s.PulledBytes != uint64(size) {
		t.Errorf("pulled %d bytes, want %d", s.PulledBytes, size)
	}
}

func TestForgerAmongGoodPeers(t *testing.T) {
	t.Parallel()
	bs, root, _ := dag(t, 15, 20*mib)
	bad := newNode(t, forger{bs}, nodeOptions{})
	good := newNode(t, bs, nodeOptions{})
	n := newNode(t, memory(), nodeOptions{seeds: []*node{bad, good}})
	if err := n.e.Fetch(within(t, time.Minute), root, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	wantAll(t, n.bs, bs)
	for _, p := range n.bans() {
		if p != bad.h.ID() {
			t.Errorf("%s was banned, the forger is %s", p, bad.h.ID())
		}
	}
}

func TestSourceDiesInTheMiddle(t *testing.T) {
	t.Parallel()
	bs, root, size := dag(t, 6, 20*mib)
	dying, living := newNode(t, slowly{bs, nil}, nodeOptions{}), newNode(t, slowly{bs, nil}, nodeOptions{})
	n := newNode(t, memory(), nodeOptions{seeds: []*node{dying, living}})
	var kill sync.Once
	w := &watcher{t: t, at: func(done int64) {
		if done > size/4 {
			kill.Do(func() { dying.h.Close() })
		}
	}}
	if err := n.e.Fetch(within(t, time.Minute), root, FetchOptions{Progress: w.progress}); err != nil {
		t.Fatal(err)
	}
	wantAll(t, n.bs, bs)
	// What it had handed to the network before counts as sent.
	if dying.e.Stats().SentBytes == 0 {
		t.Error("the source that died had sent nothing")
	}
}

// slowly takes a moment for each block, or until a channel is closed.
type slowly struct {
	blockstore.Blockstore
	until <-chan struct{}
}

func (s slowly) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	if s.until == nil {
		time.Sleep(5 * time.Millisecond)
	} else {
		<-s.until
	}
	return s.Blockstore.Get(ctx, c)
}

// The only source dies and comes back at the same address.
func TestOnlySourceComesBack(t *testing.T) {
	t.Parallel()
	bs, root, size := dag(t, 7, 20*mib)
	key := newKey(t)
	seed := newNode(t, slowly{bs, nil}, nodeOptions{key: key})
	listen := seed.h.Libp2p().Addrs()[0].String()
	n := newNode(t, memory(), nodeOptions{seeds: []*node{seed}})
	half := make(chan struct{})
	var once sync.Once
	w := &watcher{t: t, at: func(done int64) {
		if done > size/3 {
			once.Do(func() { close(half) })
		}
	}}
	ended := make(chan error, 1)
	go func() {
		ended <- n.e.Fetch(within(t, time.Minute), root, FetchOptions{Progress: w.progress, Providers: []peer.ID{seed.h.ID()}})
	}()
	<-half
	seed.stop()
	back := newNode(t, bs, nodeOptions{key: key, listen: listen})
	if err := back.h.Connect(t.Context(), n.h.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	wantAll(t, n.bs, bs)
}

func TestFetchResumesAfterRestart(t *testing.T) {
	t.Parallel()
	bs, root, size := dag(t, 8, 20*mib)
	seed := newNode(t, slowly{bs, nil}, nodeOptions{})
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
	if err := n.e.Fetch(ctx, root, FetchOptions{Progress: w.progress}); !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted fetch: %v", err)
	}
	n.stop()
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}

	st = openShard(t, dir)
	_, have, _, err := st.Missing(t.Context(), root)
	if err != nil || have < size/3 {
		t.Fatalf("%d bytes are local after the restart (%v)", have, err)
	}
	n = newNode(t, st, nodeOptions{seeds: []*node{seed}})
	w = &watcher{t: t}
	if err := n.e.Fetch(within(t, time.Minute), root, FetchOptions{Progress: w.progress}); err != nil {
		t.Fatal(err)
	}
	if got := n.e.Stats().PulledBytes; got != uint64(size-have) {
		t.Errorf("pulled %d bytes after the restart, want %d", got, size-have)
	}
	if w.done != size {
		t.Errorf("progress ended at %d of %d", w.done, size)
	}
	got, err := st.ReadBytes(t.Context(), root, size)
	if err != nil || !bytes.Equal(got, content(8, 20*mib)) {
		t.Errorf("the file reads as %d bytes, %v", len(got), err)
	}
}

func TestFolderWithRepetitions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 6 {
		name := filepath.Join(dir, fmt.Sprint("d", i%2), fmt.Sprint("f", i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		// Three of the six are equal, and have equal chunks.
		b := append(content(9, mib), content(9, mib)...)
		if i >= 3 {
			b = append(b, content(byte(i), mib/2)...)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	st := openShard(t, t.TempDir())
	imp, err := st.ImportDir(t.Context(), dir, shard.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bs := memory()
	size := copyAll(t, bs, st)
	n := newNode(t, openShard(t, t.TempDir()), nodeOptions{seeds: []*node{newNode(t, bs, nodeOptions{})}})
	w := &watcher{t: t}
	if err := n.e.Fetch(within(t, time.Minute), imp.Root, FetchOptions{Progress: w.progress}); err != nil {
		t.Fatal(err)
	}
	if w.done != size || w.total != size || n.e.Stats().PulledBytes != uint64(size) {
		t.Errorf("progress ended at %d of %d, pulled %d; want %d", w.done, w.total, n.e.Stats().PulledBytes, size)
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := n.bs.(*shard.Store).Materialize(t.Context(), imp.Root, out, shard.MaterializeOptions{MaxBytes: 100 * mib}); err != nil {
		t.Error(err)
	}
}

func TestSeveralFetchesOfOneDAG(t *testing.T) {
	t.Parallel()
	bs, root, size := dag(t, 10, 5*mib)
	n := newNode(t, memory(), nodeOptions{seeds: []*node{newNode(t, bs, nodeOptions{})}})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			w := &watcher{t: t}
			if err := n.e.Fetch(within(t, time.Minute), root, FetchOptions{Progress: w.progress}); err != nil || w.done != size {
				t.Errorf("fetch: %v, %d of %d bytes", err, w.done, size)
			}
		})
	}
	wg.Wait()
	wantAll(t, n.bs, bs)
	if s := n.e.Stats(); s.UnwantedBytes != 0 || len(n.bans()) != 0 {
		t.Errorf("%+v, banned %v", s, n.bans())
	}
}

// A peer that listens and never answers.
func TestSilentProvider(t *testing.T) {
	t.Parallel()
	silent, err := p2p.New(p2p.Options{Key: newKey(t), Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	silent.Libp2p().SetStreamHandler(bsnet.ProtocolBitswap, func(network.Stream) {})
	_, root, _ := dag(t, 11, 10)
	n := newNode(t, memory(), nodeOptions{})
	if err := n.h.Connect(t.Context(), silent.Addrs()[0]); err != nil {
		t.Fatal(err)
	}
	err = n.e.Fetch(within(t, time.Second), root, FetchOptions{Providers: []peer.ID{silent.ID()}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Fetch() = %v, want the deadline", err)
	}
	for _, want := range []string{root.String(), "nothing of it came", silent.ID().String()} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

func TestErrorSaysHowFarItCame(t *testing.T) {
	t.Parallel()
	bs, root, _ := dag(t, 12, 3*mib)
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
	err = n.e.Fetch(within(t, 2*time.Second), root, FetchOptions{})
	for _, want := range []string{root.String(), "3 of 4 blocks", seed.h.ID().String(), context.DeadlineExceeded.Error()} {
		if err == nil || !strings.Contains(err.Error(), want) {
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
	h, err := p2p.New(p2p.Options{Key: newKey(t), Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	e, err := New(h.Libp2p(), bs, Options{}) // not run
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{t: t}
	if err := e.Fetch(within(t, time.Minute), root, FetchOptions{Progress: w.progress}); err != nil || w.done != size {
		t.Errorf("Fetch() = %v, %d of %d bytes", err, w.done, size)
	}
}
