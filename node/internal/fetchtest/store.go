package fetchtest

import (
	"bytes"
	"context"
	mrand "math/rand/v2"
	"testing"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"

	"github.com/moot-net/moot/shard"
)

// MiB is the size of a leaf.
const MiB = 1 << 20

// Memory is a store that checks nothing and keeps what it is given.
func Memory() blockstore.Blockstore {
	return blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
}

// Content is n bytes that differ by seed.
func Content(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = mrand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// DAG is a file of n bytes in a store in memory, with the sum of its blocks.
func DAG(t testing.TB, seed byte, n int) (bs blockstore.Blockstore, root cid.Cid, size int64) {
	t.Helper()
	st := OpenShard(t, t.TempDir())
	root, err := st.PutBytes(t.Context(), Content(seed, n))
	if err != nil {
		t.Fatal(err)
	}
	bs = Memory()
	return bs, root, Copy(t, bs, st, nil)
}

// OpenShard opens a store on disk until the test ends.
func OpenShard(t testing.TB, dir string) *shard.Store {
	t.Helper()
	st, err := shard.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() }) // a test may have done it
	return st
}

// Copy copies blocks of one store to another, all if which is nil, and sums up
// their bytes.
func Copy(t testing.TB, to, from blockstore.Blockstore, which func(cid.Cid) bool) (size int64) {
	t.Helper()
	keys, err := from.AllKeysChan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for k := range keys {
		if which != nil && !which(k) {
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

// WantAll checks that to has the blocks of from, and only good ones.
func WantAll(t *testing.T, to, from blockstore.Blockstore) {
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
	WantClean(t, to)
}

// WantClean checks that each block of a store is what its CID says.
func WantClean(t *testing.T, bs blockstore.Blockstore) {
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

// Altered is a store that gives other bytes than it has.
type Altered struct {
	blockstore.Blockstore
	Alter func(ctx context.Context, c cid.Cid, b blocks.Block) (blocks.Block, error)
}

// Get implements blockstore.Blockstore.
func (a Altered) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	b, err := a.Blockstore.Get(ctx, c)
	if err != nil {
		return b, err
	}
	return a.Alter(ctx, c, b)
}

// Forger has every block, and gives others wrong bytes instead of a leaf of some
// size.
func Forger(bs blockstore.Blockstore) blockstore.Blockstore {
	return Altered{bs, func(_ context.Context, c cid.Cid, b blocks.Block) (blocks.Block, error) {
		if c.Prefix().Codec != cid.Raw || len(b.RawData()) < MiB {
			return b, nil
		}
		bad := bytes.Clone(b.RawData())
		bad[len(bad)/2] ^= 1
		return blocks.NewBlockWithCid(bad, c)
	}}
}
