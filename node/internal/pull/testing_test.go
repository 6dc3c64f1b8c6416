package pull

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	mrand "math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/crypto"
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

// dagOf is a file of n bytes in a memory store, with the sum of its blocks.
func dagOf(t testing.TB, seed byte, n int) (bs blockstore.Blockstore, root cid.Cid, size int64) {
	t.Helper()
	st := openShard(t, t.TempDir())
	root, err := st.PutBytes(t.Context(), content(seed, n))
	if err != nil {
		t.Fatal(err)
	}
	bs = memory()
	return bs, root, copySome(t, bs, st, func(cid.Cid) bool { return true })
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

// copySome copies blocks of one store to another, and sums up their bytes.
func copySome(t testing.TB, to, from blockstore.Blockstore, which func(cid.Cid) bool) (size int64) {
	t.Helper()
	keys, err := from.AllKeysChan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for k := range keys {
		if !which(k) {
			continue
		}
		b, err := from.Get(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		if err := to.Put(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		size += int64(len(b.RawData()))
	}
	return size
}

// wantAll checks that to has the blocks of from, and only good ones.
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

// bans are the peers that were banned.
type bans struct {
	mu  sync.Mutex
	ids []peer.ID
}

func (b *bans) add(p peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ids = append(b.ids, p)
}

func (b *bans) list() []peer.ID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]peer.ID(nil), b.ids...)
}

// node is a host on loopback with a puller that runs.
type node struct {
	h    *p2p.Host
	p    *Puller
	bs   blockstore.Blockstore
	bans bans
	stop func() // of the puller, and then the host
}

type nodeOptions struct {
	key    crypto.PrivKey
	listen string
	seeds  []*node // to connect to
	alone  bool    // asks no router
	opt    Options
}

func newNode(t testing.TB, bs blockstore.Blockstore, o nodeOptions) *node {
	t.Helper()
	if o.listen == "" {
		o.listen = "/ip4/127.0.0.1/tcp/0"
	}
	n := &node{h: newHost(t, o.key, o.listen), bs: bs}
	if !o.alone {
		o.opt.Router = n.h
	}
	o.opt.Ban = func(p peer.ID, reason string) {
		n.bans.add(p)
		n.h.Block(p, reason, time.Hour)
	}
	var err error
	if n.p, err = New(n.h.Libp2p(), bs, o.opt); err != nil {
		t.Fatal(err)
	}
	stop := running(t, n.p.Run)
	n.stop = sync.OnceFunc(func() {
		stop()
		n.h.Close()
	})
	t.Cleanup(n.stop)
	for _, s := range o.seeds {
		if err := n.h.Connect(t.Context(), s.h.Addrs()[0]); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func newHost(t testing.TB, key crypto.PrivKey, listen string) *p2p.Host {
	t.Helper()
	if key == nil {
		key = newKey(t)
	}
	h, err := p2p.New(p2p.Options{Key: key, Listen: []string{listen}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// running runs something until stop is called, or the test ends.
func running(t testing.TB, run func(context.Context) error) (stop func()) {
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

func newKey(t testing.TB) crypto.PrivKey {
	t.Helper()
	k, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// within is a context that ends after d, or with the test.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// watcher checks what progress tells.
type watcher struct {
	t           testing.TB
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

// altered is a store that gives other bytes than it has.
type altered struct {
	blockstore.Blockstore
	get func(ctx context.Context, c cid.Cid, b blocks.Block) (blocks.Block, error)
}

func (a altered) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	b, err := a.Blockstore.Get(ctx, c)
	if err != nil {
		return b, err
	}
	return a.get(ctx, c, b)
}

// forger has every block, and gives others wrong bytes instead of a leaf.
func forger(bs blockstore.Blockstore) blockstore.Blockstore {
	return altered{bs, func(_ context.Context, c cid.Cid, b blocks.Block) (blocks.Block, error) {
		if c.Prefix().Codec != cid.Raw {
			return b, nil
		}
		bad := bytes.Clone(b.RawData())
		bad[len(bad)/2] ^= 1
		return blocks.NewBlockWithCid(bad, c)
	}}
}

// slowly takes a moment for each block.
func slowly(bs blockstore.Blockstore, d time.Duration) blockstore.Blockstore {
	return altered{bs, func(_ context.Context, _ cid.Cid, b blocks.Block) (blocks.Block, error) {
		time.Sleep(d)
		return b, nil
	}}
}

// full is a store that takes nothing.
type full struct{ blockstore.Blockstore }

var errDiskFull = errors.New("no space left on device")

func (full) Put(context.Context, blocks.Block) error       { return errDiskFull }
func (full) PutMany(context.Context, []blocks.Block) error { return errDiskFull }
