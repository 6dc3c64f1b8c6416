package pull

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/multiformats/go-multihash"

	"github.com/moot-net/moot/shard"
)

const (
	maxDepth  = 32      // nodes from the root to a leaf, as in shard
	maxBlocks = 1 << 24 // distinct blocks of a DAG, as in shard
)

type digest [sha256.Size]byte

func digestOf(c cid.Cid) (d digest) {
	h := c.Hash()
	copy(d[:], h[len(h)-len(d):])
	return d
}

func (d digest) leaf() cid.Cid {
	mh, err := multihash.Encode(d[:], multihash.SHA2_256)
	if err != nil {
		panic("bug: " + err.Error())
	}
	return cid.NewCidV1(cid.Raw, mh)
}

// checkCID refuses what no store of shards could hold, before anyone is asked.
// The CIDs of links are checked by shard.
func checkCID(c cid.Cid) error {
	if !c.Defined() {
		return fmt.Errorf("%w: no CID", shard.ErrInvalid)
	}
	p := c.Prefix()
	if p.Version != 1 || p.MhType != multihash.SHA2_256 || p.MhLength != sha256.Size || (p.Codec != cid.Raw && p.Codec != cid.DagProtobuf) {
		return fmt.Errorf("%w: CID is not version 1, raw or dag-pb, sha2-256", shard.ErrInvalid)
	}
	return nil
}

func isLeaf(c cid.Cid) bool { return c.Prefix().Codec == cid.Raw }

// dag is the leaves of a DAG whose inner nodes are local, in their order, and
// which of them are local too. Those who tell others follow it.
type dag struct {
	leaves []digest // constant

	mu      sync.Mutex
	have    bitset        // guarded by mu
	asked   bitset        // guarded by mu: has been in the log as asked
	log     []entry       // guarded by mu: what came after the dag was made; at most two for each leaf
	changed chan struct{} // guarded by mu: closed when the log grows
}

// openDAG walks the inner nodes and looks for the leaves. An error that
// IsNotFound of go-ipld-format recognizes says that the root or an inner node
// is not local.
func openDAG(ctx context.Context, bs blockstore.Blockstore, root cid.Cid) (*dag, error) {
	d := &dag{changed: make(chan struct{})}
	if err := d.walk(ctx, bs, root, make(map[cid.Cid]bool), 1); err != nil {
		return nil, err
	}
	d.have, d.asked = newBitset(len(d.leaves)), newBitset(len(d.leaves))
	for i, l := range d.leaves {
		ok, err := bs.Has(ctx, l.leaf())
		if err != nil {
			return nil, err
		}
		if ok {
			d.have.set(i)
		}
	}
	if isLeaf(root) && !d.have.has(0) {
		return nil, ipld.ErrNotFound{Cid: root}
	}
	return d, nil
}

func (d *dag) walk(ctx context.Context, bs blockstore.Blockstore, c cid.Cid, seen map[cid.Cid]bool, depth int) error {
	if seen[c] {
		return nil
	}
	if depth > maxDepth || len(seen) >= maxBlocks {
		return fmt.Errorf("%w: more than %d blocks, or %d in each other", shard.ErrTooLarge, maxBlocks, maxDepth)
	}
	seen[c] = true
	if isLeaf(c) {
		d.leaves = append(d.leaves, digestOf(c))
		return nil
	}
	b, err := bs.Get(ctx, c)
	if err != nil {
		return err
	}
	links, err := shard.Links(b)
	if err != nil {
		return err
	}
	for _, l := range links {
		if err := d.walk(ctx, bs, l.CID, seen, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// set says that a leaf is local.
func (d *dag) set(i int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.have.set(i) {
		d.append(newEntry(i, kindHave))
	}
}

// lose says that a leaf is not local after all. Who was told otherwise sees when it
// asks.
func (d *dag) lose(i int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.have.clear(i)
}

// ask says that somebody was asked for a leaf.
func (d *dag) ask(i int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.have.has(i) && d.asked.set(i) {
		d.append(newEntry(i, kindAsked))
	}
}

// append is called with d.mu held.
func (d *dag) append(e entry) {
	d.log = append(d.log, e)
	close(d.changed)
	d.changed = make(chan struct{})
}

// snapshot returns what is local, and where in the log that was.
func (d *dag) snapshot() (have bitset, at int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append(bitset(nil), d.have...), len(d.log)
}

// since returns up to limit entries from at on, or what to wait for when there
// are none.
func (d *dag) since(at, limit int) ([]entry, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at >= len(d.log) {
		return nil, d.changed
	}
	es := d.log[at:min(at+limit, len(d.log))]
	return append([]entry(nil), es...), nil
}
