package pull

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/shard"
)

const (
	// After so many bytes, or so long, what was stored is made durable.
	syncBytes = 64 << 20
	syncTime  = 5 * time.Second

	writers    = 2 // that store blocks
	writeBatch = 8 // blocks that one of them stores at once
	waitStore  = 4 // blocks that wait for one of them
	maxTotal   = 1 << 50
	namedPeers = 4 // in an error
)

// piece is a block that was not local when it was met.
type piece struct {
	cid   cid.Cid
	size  int64 // of the block if it is a leaf, as a link claims; 0 if unknown
	claim uint64
	root  bool
	depth int
	leaf  int // its number; -1 if it is an inner node or the root

	// the rest is guarded by fetch.mu
	todo   int // where it is in fetch.todo; -1 when it is not
	taken  bool
	here   bool
	copies int // live requests for it
	holder int // sources that have it; for leaves only
	near   int // of these, on this machine or the LAN
	askers int // sources that have asked for it, as they say

	live     [maxParts]int8 // requests for each part of it
	begun    bool           // it is asked for in parts, and in fetch.begun
	partial  []byte         // room for it, with some parts; nil if none came
	have     [maxParts]bool // the parts that are there
	parts    []contribution // who gave them
	whole    bool           // it is not asked for in parts any more
	suspects []contribution // who gave parts of what was wrong together
}

// fetch is one fetch under way.
type fetch struct {
	p       *Puller
	o       FetchOptions
	root    cid.Cid
	ended   chan struct{}           // closed when Fetch is about to return
	indexed chan struct{}           // closed when dag and leaves are set
	full    chan struct{}           // closed when all is local
	arrived chan arrival            // not stored yet
	fail    context.CancelCauseFunc // constant once run has set it

	mu        sync.Mutex
	known     map[cid.Cid]uint64 // guarded by mu: distinct blocks that were met, with their claimed size
	nodes     int                // guarded by mu: inner nodes that were met and are not settled
	todo      []*piece           // guarded by mu: to be asked for, in no order
	begun     []*piece           // guarded by mu: those that are asked for in parts
	leaves    []*piece           // guarded by mu: by number; nil if it was local
	dag       *dag               // guarded by mu: nil until the inner nodes are local
	left      int                // guarded by mu: leaves that are not known to be local
	counted   bool               // guarded by mu: all that was local at the beginning is in done
	scanned   bool               // guarded by mu: likewise, and leaves may be asked for
	blocks    int                // guarded by mu: distinct blocks that are local
	done      int64              // guarded by mu: their bytes
	total     int64              // guarded by mu: bytes claimed by the root, less repetitions
	sources   map[peer.ID]*source
	suggested map[peer.ID]*candidate // guarded by mu, as sources
	last      time.Time              // guarded by mu: when a block came
	fell      bool                   // guarded by mu: the fallback has been at work
	mute      error                  // guarded by mu: why the last peer that does not speak the protocol does not

	came atomic.Int64 // bytes that were asked for and stored

	first sync.Once // of Before
	early error     // what Before said; constant after first

	tell sync.Mutex // held while Progress is called
	told int64      // guarded by tell
}

// arrival is a block on its way to the store. If the store checks hashes, that
// of the block was not checked yet.
type arrival struct {
	piece  *piece
	block  blocks.Block
	source *source
	parts  []contribution // if it came in parts
}

func newFetch(p *Puller, root cid.Cid, o FetchOptions) *fetch {
	f := &fetch{
		p: p, o: o, root: root,
		ended: make(chan struct{}), indexed: make(chan struct{}), full: make(chan struct{}),
		arrived:   make(chan arrival, waitStore),
		known:     make(map[cid.Cid]uint64),
		sources:   make(map[peer.ID]*source),
		suggested: make(map[peer.ID]*candidate),
		told:      -1,
	}
	f.suggest(o.Providers, true)
	return f
}

func (f *fetch) run(ctx context.Context) error {
	outer := ctx
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	f.fail = fail
	// What is local first: it needs no network.
	f.known[f.root] = 0
	f.nodes = 1
	defer f.unindex()
	if err := f.meet(ctx, []*piece{{cid: f.root, root: true, depth: 1, leaf: -1, todo: -1}}); err != nil {
		if ctx.Err() != nil {
			err = f.explain(err)
		}
		return err
	}
	select {
	case <-f.full:
		return nil
	case <-ctx.Done():
		return f.explain(context.Cause(ctx))
	case <-f.p.ready:
	}
	stop := context.AfterFunc(f.p.ctx, func() { fail(ErrClosed) })
	defer stop()

	var wg sync.WaitGroup
	defer f.forget()
	for range writers {
		wg.Go(func() {
			if err := f.write(ctx); err != nil {
				fail(err)
			}
		})
	}
	wg.Go(func() {
		if err := f.sync(ctx); err != nil {
			fail(err)
		}
	})
	wg.Go(func() { f.manage(ctx) })
	select {
	case <-f.full:
		fail(nil)
	case <-ctx.Done():
	}
	wg.Wait()
	if f.p.shards != nil {
		if err := f.p.shards.Sync(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("store blocks: %w", err)
		}
	}
	select {
	case <-f.full: // perhaps at the last moment
		return nil
	default:
	}
	err := context.Cause(ctx)
	if errors.Is(err, errFull) {
		return nil
	}
	if outer.Err() != nil || errors.Is(err, ErrClosed) {
		return f.explain(err)
	}
	return err
}

func (f *fetch) unindex() {
	f.mu.Lock()
	d := f.dag
	f.mu.Unlock()
	if d != nil {
		f.p.unfollow(f.root)
	}
}

// meet settles the blocks that are local, and those below them, and puts the
// others on the list of what is to do. Leaves are not looked at before all
// inner nodes are settled; the root is a node here whatever it is.
func (f *fetch) meet(ctx context.Context, ps []*piece) error {
	for len(ps) > 0 {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		q := ps[len(ps)-1]
		ps = ps[:len(ps)-1]
		b, err := f.p.store.Get(ctx, q.cid)
		switch {
		case ipld.IsNotFound(err):
			f.mu.Lock()
			f.addTodo(q)
			f.mu.Unlock()
		case err != nil:
			return err
		default:
			below, err := f.settleNode(ctx, q, b)
			if err != nil {
				return err
			}
			ps = append(ps, below...)
		}
	}
	f.wakeAll()
	return nil
}

// settleNode counts an inner node, or the root, that is local, and returns the
// nodes below it that were not met before.
func (f *fetch) settleNode(ctx context.Context, q *piece, b blocks.Block) ([]*piece, error) {
	links, err := shard.Links(b)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	q.here = true
	below, err := f.account(q, uint64(len(b.RawData())), links)
	f.nodes--
	finished := f.nodes == 0
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if finished {
		return nil, f.index(ctx)
	}
	return below, nil
}

// account is called with f.mu held.
func (f *fetch) account(q *piece, size uint64, links []shard.Link) (nodes []*piece, err error) {
	below := size
	for _, l := range links {
		if below += l.Size; below < l.Size {
			return nil, fmt.Errorf("%w: block %s claims more than there can be", shard.ErrInvalid, q.cid)
		}
	}
	if q.root {
		if err := f.checkSize(below, "claims"); err != nil {
			return nil, err
		}
		f.total = int64(below)
	} else if below != q.claim {
		return nil, fmt.Errorf("%w: block %s has %d bytes at and below it, its link says %d", shard.ErrInvalid, q.cid, below, q.claim)
	}
	if err := f.count(size); err != nil {
		return nil, err
	}
	for _, l := range links {
		claimed, known := f.known[l.CID]
		switch {
		case known && claimed != l.Size:
			return nil, fmt.Errorf("%w: two links to %s differ in size", shard.ErrInvalid, l.CID)
		case known:
			f.total -= int64(l.Size)
			continue
		case q.depth >= maxDepth:
			return nil, fmt.Errorf("%w: more than %d blocks in each other", shard.ErrInvalid, maxDepth)
		case len(f.known) >= maxBlocks:
			return nil, fmt.Errorf("%w: more than %d blocks", ErrTooLarge, maxBlocks)
		}
		f.known[l.CID] = l.Size
		if !isLeaf(l.CID) {
			nodes = append(nodes, &piece{cid: l.CID, claim: l.Size, depth: q.depth + 1, leaf: -1, todo: -1})
		}
	}
	f.nodes += len(nodes)
	return nodes, nil
}

// count adds a block that is local. It is called with f.mu held.
func (f *fetch) count(size uint64) error {
	f.blocks++
	f.done += int64(size)
	return f.checkSize(uint64(f.done), "has")
}

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

// index begins with the leaves, when all inner nodes are local.
func (f *fetch) index(ctx context.Context) error {
	if isLeaf(f.root) {
		f.mu.Lock()
		f.counted = true
		f.mu.Unlock()
		f.progress()
		close(f.full)
		return nil
	}
	d, err := f.p.follow(ctx, f.root)
	if err != nil {
		return fmt.Errorf("walk the inner nodes: %w", err)
	}
	f.mu.Lock()
	f.dag = d // from here on it is given back at the end
	f.leaves = make([]*piece, len(d.leaves))
	f.left = len(d.leaves)
	f.mu.Unlock()
	for i, l := range d.leaves {
		c := l.leaf()
		claim := f.known[c] // nobody writes it any more
		if f.o.Leaves != nil && !f.o.Leaves[c] {
			f.mu.Lock()
			f.left--
			f.total -= int64(claim)
			f.mu.Unlock()
			continue
		}
		here, err := f.hasLeaf(ctx, c, claim)
		if err != nil {
			return err
		}
		f.mu.Lock()
		if here {
			f.left--
			err = f.count(claim)
		} else {
			f.leaves[i] = &piece{cid: c, size: int64(claim), claim: claim, leaf: i, todo: -1}
			f.addTodo(f.leaves[i])
		}
		f.mu.Unlock()
		if err != nil {
			return err
		}
		if here {
			d.set(i)
		}
	}
	f.mu.Lock()
	done, total := f.done, f.total
	finished := f.left == 0
	f.mu.Unlock()
	if finished && f.p.shards != nil {
		if err := f.p.shards.Recheck(ctx, f.root); err != nil {
			return err
		}
		if finished, err = f.recount(ctx, d); err != nil {
			return err
		}
	}
	if !finished {
		if err := f.before(total-done, total); err != nil {
			return err
		}
		if finished, err = f.recount(ctx, d); err != nil {
			return err
		}
	}
	f.mu.Lock()
	f.counted = true
	f.scanned = true // from here on leaves are asked for
	f.mu.Unlock()
	f.progress()
	close(f.indexed)
	if finished {
		close(f.full)
	}
	f.wakeAll()
	return nil
}

// recount looks again for the leaves that were local: to make room for a folder,
// the store hashes those that an earlier process wrote to it.
func (f *fetch) recount(ctx context.Context, d *dag) (finished bool, err error) {
	for i, l := range d.leaves {
		c := l.leaf()
		if f.leaves[i] != nil || (f.o.Leaves != nil && !f.o.Leaves[c]) {
			continue
		}
		claim := f.known[c]
		here, err := f.hasLeaf(ctx, c, claim)
		if err != nil {
			return false, err
		}
		if here {
			continue
		}
		d.lose(i)
		f.mu.Lock()
		f.left++
		f.blocks--
		f.done -= int64(claim)
		f.leaves[i] = &piece{cid: c, size: int64(claim), claim: claim, leaf: i, todo: -1}
		f.addTodo(f.leaves[i])
		f.mu.Unlock()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left == 0, nil
}

// before calls Before, once, whether leaves are asked for here or by the
// fallback.
func (f *fetch) before(missing, total int64) error {
	f.first.Do(func() {
		if f.o.Before != nil {
			f.early = f.o.Before(missing, total)
		}
	})
	return f.early
}

// hasLeaf says whether a leaf is local. Its size is enough to know; the store
// checks the bytes whenever it reads them.
func (f *fetch) hasLeaf(ctx context.Context, c cid.Cid, claim uint64) (bool, error) {
	n, err := f.p.store.GetSize(ctx, c)
	switch {
	case ipld.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, err
	case uint64(n) == claim:
		return true, nil
	}
	b, err := f.p.store.Get(ctx, c) // damaged, or the claim is wrong
	switch {
	case ipld.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, err
	}
	return false, f.wrongSize(c, len(b.RawData()), claim)
}

func (f *fetch) wrongSize(c cid.Cid, n int, claim uint64) error {
	return fmt.Errorf("%w: block %s has %d bytes at and below it, its link says %d", shard.ErrInvalid, c, n, claim)
}

// addTodo is called with f.mu held.
func (f *fetch) addTodo(q *piece) {
	if q.todo >= 0 || q.taken || q.here {
		return
	}
	q.todo = len(f.todo)
	f.todo = append(f.todo, q)
}

// dropTodo is called with f.mu held.
func (f *fetch) dropTodo(q *piece) {
	if q.todo < 0 {
		return
	}
	end := f.todo[len(f.todo)-1]
	f.todo[q.todo], end.todo = end, q.todo
	f.todo = f.todo[:len(f.todo)-1]
	q.todo = -1
}

// take takes the answer to r, and queues it for the store unless another one
// was there first.
func (f *fetch) take(ctx context.Context, r *request, b blocks.Block, parts []contribution) error {
	f.mu.Lock()
	first := f.claim(r.piece)
	if first {
		r.source.kept += int64(len(b.RawData()))
	}
	f.last = time.Now()
	r.source.gave = true
	f.finished(r)
	f.mu.Unlock()
	r.source.poke()
	if !first {
		defer f.p.buffers.put(b.RawData())
		if f.p.shards != nil && digest(sha256.Sum256(b.RawData())) != digestOf(b.Cid()) {
			if len(parts) > 0 {
				return nil // one of several lied; the block is here already
			}
			return wrongBytesError{b.Cid()}
		}
		f.p.duplicate.Add(uint64(len(b.RawData())))
		return nil
	}
	select {
	case <-ctx.Done():
		// The session ends, not the fetch: another has to bring the block.
		f.unclaim(r.piece)
		f.settled(r.source, b)
		return ctx.Err()
	case f.arrived <- arrival{r.piece, b, r.source, parts}:
		return nil
	}
}

// settled gives back the memory of a block that take kept.
func (f *fetch) settled(s *source, b blocks.Block) {
	n := len(b.RawData())
	f.p.buffers.put(b.RawData())
	f.mu.Lock()
	s.kept -= int64(n)
	f.mu.Unlock()
	s.poke()
}

// unclaim gives up what claim promised.
func (f *fetch) unclaim(q *piece) {
	f.mu.Lock()
	q.taken = false
	if q.open() {
		f.addTodo(q)
	}
	f.mu.Unlock()
	f.wakeAll()
}

// claim says whether the caller is the first to have a block, and must see
// that it is stored and counted. It is called with f.mu held.
func (f *fetch) claim(q *piece) bool {
	first := !q.taken && !q.here
	q.taken = true
	f.dropTodo(q)
	f.dropParts(q)
	return first
}

// write stores what arrives.
func (f *fetch) write(ctx context.Context) error {
	var got []arrival
	var bs []blocks.Block
	for {
		got, bs = got[:0], bs[:0]
		select {
		case <-ctx.Done():
			return nil
		case a := <-f.arrived:
			got = append(got, a)
		}
		for more := true; more && len(got) < writeBatch; {
			select {
			case a := <-f.arrived:
				got = append(got, a)
			default:
				more = false
			}
		}
		for _, a := range got {
			bs = append(bs, a.block)
		}
		err := f.put(ctx, bs)
		if f.p.shards != nil && errors.Is(err, shard.ErrInvalid) {
			if got = f.sortOut(ctx, got); len(got) == 0 {
				continue
			}
			bs = bs[:0]
			for _, a := range got {
				bs = append(bs, a.block)
			}
			err = f.put(ctx, bs)
		}
		if err != nil {
			err = fmt.Errorf("store blocks: %w", err)
		}
		for _, a := range got {
			if err == nil {
				n := len(a.block.RawData())
				f.p.pulled.Add(uint64(n))
				f.came.Add(int64(n))
				err = f.stored(ctx, a.piece, a.block)
			}
			f.settled(a.source, a.block)
		}
		if err != nil {
			return err
		}
		clear(got)
		clear(bs)
	}
}

// put stores blocks; sync makes them durable.
func (f *fetch) put(ctx context.Context, bs []blocks.Block) error {
	ctx = context.WithoutCancel(ctx)
	if f.p.shards != nil {
		return f.p.shards.PutLater(ctx, bs)
	}
	return f.p.store.PutMany(ctx, bs)
}

// sync makes durable what was stored, now and then until ctx is done.
func (f *fetch) sync(ctx context.Context) error {
	if f.p.shards == nil {
		return nil
	}
	t := time.NewTicker(tickTime)
	defer t.Stop()
	var synced int64 // of f.came
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-t.C:
			came := f.came.Load()
			if came-synced < syncBytes && (came == synced || now.Sub(last) < syncTime) {
				continue
			}
			if err := f.p.shards.Sync(context.WithoutCancel(ctx)); err != nil {
				return fmt.Errorf("store blocks: %w", err)
			}
			synced, last = came, now
		}
	}
}

// forget gives back what came too late to be stored. Nothing comes any more.
func (f *fetch) forget() {
	for {
		select {
		case a := <-f.arrived:
			f.settled(a.source, a.block)
		default:
			f.mu.Lock()
			defer f.mu.Unlock()
			for len(f.begun) > 0 {
				f.dropParts(f.begun[0])
			}
			return
		}
	}
}

// sortOut drops the blocks with wrong bytes, which are asked for again, and bans
// those who sent them.
func (f *fetch) sortOut(ctx context.Context, got []arrival) (good []arrival) {
	for _, a := range got {
		if digest(sha256.Sum256(a.block.RawData())) == digestOf(a.piece.cid) {
			good = append(good, a)
			continue
		}
		f.settled(a.source, a.block)
		alone := f.suspect(a.piece, a.parts)
		f.unclaim(a.piece)
		if alone {
			a.source.end(wrongBytesError{a.piece.cid})
		}
	}
	return good
}

// wrongBytesError says that a peer sent other bytes than those of a block.
type wrongBytesError struct{ cid cid.Cid }

func (e wrongBytesError) Error() string { return fmt.Sprintf("bytes that are not block %s", e.cid) }

// stored counts a block that is in the store now.
func (f *fetch) stored(ctx context.Context, q *piece, b blocks.Block) error {
	if q.leaf >= 0 {
		if n := len(b.RawData()); uint64(n) != q.claim {
			return f.wrongSize(q.cid, n, q.claim)
		}
		f.accuse(ctx, q, b.RawData())
		return f.storedLeaf(q)
	}
	below, err := f.settleNode(ctx, q, b)
	if err != nil {
		return err
	}
	return f.meet(ctx, below)
}

func (f *fetch) storedLeaf(q *piece) error {
	f.mu.Lock()
	q.here = true
	f.left--
	finished := f.left == 0 && f.scanned
	err := f.count(q.claim)
	d := f.dag
	f.mu.Unlock()
	if err != nil {
		return err
	}
	d.set(q.leaf)
	f.progress()
	if finished {
		close(f.full)
	}
	return nil
}

// already looks whether the fallback has brought a block meanwhile, and counts
// it then.
func (f *fetch) already(ctx context.Context, q *piece) (bool, error) {
	ok, err := f.p.store.Has(ctx, q.cid)
	if err != nil || !ok {
		return false, err
	}
	b, err := f.p.store.Get(ctx, q.cid)
	if ipld.IsNotFound(err) {
		return false, nil // it was damaged
	}
	if err != nil {
		return false, err
	}
	f.mu.Lock()
	first := f.claim(q)
	f.mu.Unlock()
	if !first {
		return true, nil
	}
	return true, f.stored(ctx, q, b)
}

// progress tells how far it is, unless it was told more. It begins when all that
// is local was counted, lest it seem that an earlier process did nothing.
func (f *fetch) progress() {
	if f.o.Progress == nil {
		return
	}
	f.tell.Lock()
	defer f.tell.Unlock()
	f.mu.Lock()
	done, total, counted := f.done, f.total, f.counted
	f.mu.Unlock()
	if counted {
		f.report(done, total)
	}
}

// report is called with f.tell held.
func (f *fetch) report(done, total int64) {
	if done < f.told {
		return
	}
	f.told = done
	f.o.Progress(done, total)
}

// explain says how far a fetch came that was ended from outside.
func (f *fetch) explain(cause error) error {
	f.mu.Lock()
	have, met, done, total, mute := f.blocks, len(f.known), f.done, f.total, f.mute
	var asked []peer.ID
	for id := range f.suggested {
		asked = append(asked, id)
	}
	for id := range f.sources {
		if f.suggested[id] == nil {
			asked = append(asked, id)
		}
	}
	f.mu.Unlock()
	who := "no peer to ask"
	if n := len(asked); n > 0 {
		rand.Shuffle(n, func(i, j int) { asked[i], asked[j] = asked[j], asked[i] })
		who = "asked"
		for i, p := range asked[:min(n, namedPeers)] {
			if i > 0 {
				who += ","
			}
			who += " " + p.String()
		}
		if n > namedPeers {
			who += fmt.Sprintf(", %d more", n-namedPeers)
		}
	}
	if mute != nil {
		who += fmt.Sprintf(" (%v)", mute)
	}
	if have == 0 {
		return fmt.Errorf("nothing of it came, %s: %w", who, cause)
	}
	return fmt.Errorf("%d of %d blocks, %d of %d bytes, %s: %w", have, met, done, total, who, cause)
}
