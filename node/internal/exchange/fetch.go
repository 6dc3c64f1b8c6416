package exchange

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"

	"github.com/moot-net/moot/node/internal/traffic"
	"github.com/moot-net/moot/shard"
)

const (
	window    = 48      // blocks asked for at once
	maxDepth  = 32      // nodes from the root to a leaf, as in shard
	maxBlocks = 1 << 24 // distinct blocks of a DAG, as in shard
)

// ErrTooLarge is what Fetch says about a DAG that is, or claims to be, larger
// than it may be.
var ErrTooLarge = errors.New("too large")

// ErrClosed is what Fetch says after the end of Run.
var ErrClosed = errors.New("exchange is closed")

// FetchOptions are the particulars of one [Exchange.Fetch].
type FetchOptions struct {
	// MaxBytes is the most that the blocks of the DAG may be together, by
	// what they claim and by what they are. 0: as much as shard accepts.
	MaxBytes int64

	// Providers are peers that are likely to have the DAG. They are dialled
	// if needed; other connected peers are asked too.
	Providers []peer.ID

	// Use is what the bytes are for. Default: traffic.Seeding.
	Use traffic.Use

	// Leaves, if not nil, are the raw blocks that are wanted; others stay
	// where they are. All inner nodes are made local in any case.
	Leaves map[cid.Cid]bool

	// Before, if not nil, is called once, before the first leaf is asked
	// for, when all inner nodes are local: how many bytes are missing, of how
	// many. Its error ends the fetch. Package exchange does not know yet which
	// leaves are local, and says how many bytes may be missing at most.
	Before func(missing, total int64) error

	// Progress is told how many bytes of distinct blocks are local, of how
	// many. Done never falls; total is what the root claims and falls where
	// blocks turn out to repeat. It is called by one goroutine at a time,
	// and holds up the fetch.
	Progress func(done, total int64)
}

// Fetch makes the DAG below root local and returns nil when all of it is.
// What is local already is not asked for, so that a fetch that was interrupted
// goes on where it was.
//
// It goes on asking until ctx is done; then the error says how far it came. A
// DAG that is larger than allowed ([ErrTooLarge]), or breaks a rule of shard's
// format (shard.ErrInvalid), ends it at once.
func (e *Exchange) Fetch(ctx context.Context, root cid.Cid, o FetchOptions) error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return fmt.Errorf("fetch %s: %w", root, ErrClosed)
	}
	e.fetching.Add(1)
	e.mu.Unlock()
	defer e.fetching.Done()

	f := &fetch{e: e, o: o, root: root, known: make(map[cid.Cid]uint64), grown: make(chan struct{}, window)}
	if err := f.run(ctx); err != nil {
		return fmt.Errorf("fetch %s: %w", root, err)
	}
	return nil
}

// part is a block that is not known to be local.
type part struct {
	cid   cid.Cid
	size  uint64 // of all below it, as a link claims; 0 for the root
	root  bool
	depth int
}

// fetch is one fetch under way.
type fetch struct {
	e    *Exchange
	o    FetchOptions
	root cid.Cid

	mu      sync.Mutex
	known   map[cid.Cid]uint64 // guarded by mu: distinct blocks that were met, with their claimed size
	nodes   []part             // guarded by mu: to do, and first, for they lead to leaves
	leaves  []part             // guarded by mu: to do, in no order
	busy    int                // guarded by mu: parts taken and not finished
	inner   int                // guarded by mu: of these, inner nodes
	blocks  int                // guarded by mu: distinct blocks that are local
	done    int64              // guarded by mu: their bytes
	total   int64              // guarded by mu: bytes claimed by the root, less repetitions
	arrived time.Time          // guarded by mu: the last block from a peer
	session *session           // guarded by mu: nil until something must be asked for

	fail  context.CancelCauseFunc // constant once run has set it
	grown chan struct{}           // there is more to do, or nothing is left; of capacity window
	first sync.Once               // of Before
	early error                   // what Before said; constant after first
	tell  sync.Mutex              // held while Progress is called
	told  int64                   // guarded by tell
}

func (f *fetch) run(ctx context.Context) error {
	if err := checkCID(f.root); err != nil {
		return err
	}
	f.nodes = []part{{cid: f.root, root: true, depth: 1}}
	f.known[f.root] = 0
	outer, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	f.fail = fail
	g, ctx := errgroup.WithContext(outer)
	for range window {
		g.Go(func() error { return f.work(ctx) })
	}
	err := g.Wait()
	if err != nil && outer.Err() != nil {
		err = f.explain(err)
	}
	return err
}

// checkCID refuses what no store of shards could hold, before anyone is asked.
// The CIDs of links are checked by shard.
func checkCID(c cid.Cid) error {
	if !c.Defined() {
		return fmt.Errorf("%w: no CID", shard.ErrInvalid)
	}
	p := c.Prefix()
	if p.Version != 1 || p.MhType != multihash.SHA2_256 || p.MhLength != 32 || (p.Codec != cid.Raw && p.Codec != cid.DagProtobuf) {
		return fmt.Errorf("%w: CID is not version 1, raw or dag-pb, sha2-256", shard.ErrInvalid)
	}
	return nil
}

// work does parts until none is left.
func (f *fetch) work(ctx context.Context) error {
	for {
		p, ok, finished := f.take()
		if finished {
			return nil
		}
		if !ok {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-f.grown:
			}
			continue
		}
		err := f.do(ctx, p)
		f.finish(p)
		if err != nil {
			return err
		}
	}
}

// isLeaf says whether there is nothing below a part. The root counts as a node.
func (p *part) isLeaf() bool { return !p.root && p.cid.Prefix().Codec == cid.Raw }

// take draws a part: nodes first, and leaves, at random, when all nodes are
// local.
func (f *fetch) take() (p part, ok, finished bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from := &f.nodes
	if len(*from) == 0 {
		from = &f.leaves
	}
	n := len(*from)
	switch {
	case n == 0:
		return part{}, false, f.busy == 0
	case from == &f.leaves && f.inner > 0:
		return part{}, false, false
	}
	i := rand.IntN(n)
	p = (*from)[i]
	(*from)[i] = (*from)[n-1]
	*from = (*from)[:n-1]
	f.busy++
	if !p.isLeaf() {
		f.inner++
	}
	return p, true, false
}

func (f *fetch) finish(p part) {
	f.mu.Lock()
	f.busy--
	if !p.isLeaf() {
		f.inner--
	}
	todo := len(f.nodes) + len(f.leaves)
	if f.busy == 0 && todo == 0 {
		todo = window // wake all, they are finished
	}
	f.mu.Unlock()
	for range min(todo, window) {
		select {
		case f.grown <- struct{}{}:
		default:
			return
		}
	}
}

// do makes one block local and adds the ones below it to what is to do.
func (f *fetch) do(ctx context.Context, p part) error {
	if p.isLeaf() {
		if err := f.before(); err != nil {
			return err
		}
		// The size is enough to know that it is there; the store checks the
		// bytes whenever it reads them.
		if n, err := f.e.store.GetSize(ctx, p.cid); err == nil && uint64(n) == p.size {
			return f.settle(p, p.size, nil)
		}
	}
	b, err := f.e.store.Get(ctx, p.cid)
	if ipld.IsNotFound(err) {
		b, err = f.pull(ctx, p)
	}
	if err != nil {
		return err
	}
	links, err := shard.Links(b)
	if err != nil {
		return err
	}
	return f.settle(p, uint64(len(b.RawData())), links)
}

// before calls Before, at the first leaf.
func (f *fetch) before() error {
	f.first.Do(func() {
		f.mu.Lock()
		done, total := f.done, f.total
		f.mu.Unlock()
		if f.o.Before != nil {
			f.early = f.o.Before(total-done, total)
		}
	})
	return f.early
}

// settle counts a block that is local and takes note of its links.
func (f *fetch) settle(p part, size uint64, links []shard.Link) error {
	f.mu.Lock()
	err := f.account(p, size, links)
	done, total := f.done, f.total
	f.mu.Unlock()
	if err != nil {
		return err
	}
	f.progress(done, total)
	return nil
}

// account is called with f.mu held.
func (f *fetch) account(p part, size uint64, links []shard.Link) error {
	below := size
	for _, l := range links {
		if below += l.Size; below < l.Size {
			return fmt.Errorf("%w: block %s claims more than there can be", shard.ErrInvalid, p.cid)
		}
	}
	if p.root {
		if err := f.checkSize(below, "claims"); err != nil {
			return err
		}
		f.total = int64(below)
	} else if below != p.size {
		return fmt.Errorf("%w: block %s has %d bytes at and below it, its link says %d", shard.ErrInvalid, p.cid, below, p.size)
	}
	f.blocks++
	f.done += int64(size)
	if err := f.checkSize(uint64(f.done), "has"); err != nil {
		return err
	}
	for _, l := range links {
		claimed, known := f.known[l.CID]
		switch {
		case known && claimed != l.Size:
			return fmt.Errorf("%w: two links to %s differ in size", shard.ErrInvalid, l.CID)
		case known:
			f.total -= int64(l.Size)
			continue
		case p.depth >= maxDepth:
			return fmt.Errorf("%w: more than %d blocks in each other", shard.ErrInvalid, maxDepth)
		case len(f.known) >= maxBlocks:
			return fmt.Errorf("%w: more than %d blocks", ErrTooLarge, maxBlocks)
		}
		f.known[l.CID] = l.Size
		if f.o.Leaves != nil && l.CID.Prefix().Codec == cid.Raw && !f.o.Leaves[l.CID] {
			f.total -= int64(l.Size)
			continue
		}
		sub := part{cid: l.CID, size: l.Size, depth: p.depth + 1}
		if l.CID.Prefix().Codec == cid.Raw {
			f.leaves = append(f.leaves, sub)
		} else {
			f.nodes = append(f.nodes, sub)
		}
	}
	return nil
}

// maxTotal is as much as a link of shard's format may claim.
const maxTotal = 1 << 50

func (f *fetch) checkSize(n uint64, what string) error {
	limit := uint64(maxTotal)
	if f.o.MaxBytes > 0 {
		limit = min(limit, uint64(f.o.MaxBytes))
	}
	if n > limit {
		return fmt.Errorf("%w: it %s %d bytes, at most %d", ErrTooLarge, what, n, limit)
	}
	return nil
}

func (f *fetch) progress(done, total int64) {
	if f.o.Progress == nil {
		return
	}
	f.tell.Lock()
	defer f.tell.Unlock()
	if done < f.told {
		return // overtaken
	}
	f.told = done
	f.o.Progress(done, total)
}

// emptyFile returns the block of a file without bytes, if c is its CID. Bitswap
// takes such a block for one that is missing.
func emptyFile(c cid.Cid) (blocks.Block, bool) {
	d := sha256.Sum256(nil)
	if c.Prefix().Codec != cid.Raw || !bytes.HasSuffix(c.Hash(), d[:]) {
		return nil, false
	}
	b, err := blocks.NewBlockWithCid([]byte{}, c)
	return b, err == nil
}

// pull asks peers for a block until it is there and stored, or ctx is done.
func (f *fetch) pull(ctx context.Context, p part) (blocks.Block, error) {
	f.e.guard.ask(p.cid)
	defer f.e.guard.release(p.cid)
	for {
		if err := f.e.opt.Meter.MayReceive(f.o.Use); err != nil {
			return nil, err
		}
		s, err := f.current(ctx)
		if err != nil {
			return nil, err
		}
		if b, ok := emptyFile(p.cid); ok {
			return b, f.keep(ctx, b)
		}
		b, err := s.get.GetBlock(s.ctx, p.cid)
		switch {
		case err == nil:
			return b, f.keep(ctx, b)
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case s.ctx.Err() == nil:
			return nil, err
		}
		// The session stalled; there is a new one.
	}
}

// keep stores a block that arrived, and tells peers who wait for it.
func (f *fetch) keep(ctx context.Context, b blocks.Block) error {
	if len(b.RawData()) > shard.MaxBlockBytes {
		return fmt.Errorf("%w: block %s of %d bytes, at most %d", ErrTooLarge, b.Cid(), len(b.RawData()), shard.MaxBlockBytes)
	}
	if err := f.e.store.Put(ctx, b); err != nil {
		return fmt.Errorf("store block %s: %w", b.Cid(), err)
	}
	f.mu.Lock()
	f.arrived = time.Now()
	f.mu.Unlock()
	return f.e.proto.stored(ctx, b)
}
