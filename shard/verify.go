package shard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"sync"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"
)

// Check is what a verification found.
type Check struct {
	Blocks int   // that were read, and were right
	Bytes  int64 // of them
	// Damaged is how many were not what they should be. They count as missing
	// from now on.
	Damaged int
	// Broken are files of roots of which something is missing, damaged or not.
	Broken []BrokenFile
}

// BrokenFile is a file of a root that is not all there.
type BrokenFile struct {
	Root    cid.Cid
	Path    string // below the root; "." for the root itself
	Disk    string // where it is on the disk, if it lies in a folder
	Missing int    // blocks
	Bytes   int64  // of them, as far as is known
}

// CheckOptions are the options of [Store.Check].
type CheckOptions struct {
	// Roots are what is checked. Default: all that the store holds, and the
	// files of all roots that it keeps.
	Roots []cid.Cid
	// Progress, if not nil, is called with the bytes that were read, from one
	// goroutine at a time.
	Progress func(done, total int64)
}

// Check reads what the store holds and compares it with its hashes, on all
// cores. Damaged blocks are removed; a file in a folder is left as it is.
func (s *Store) Check(ctx context.Context, opts CheckOptions) (Check, error) {
	c := &checking{s: s, opts: opts}
	roots := opts.Roots
	var err error
	if len(roots) == 0 {
		for _, r := range s.Roots() {
			roots = append(roots, r.CID)
		}
		err = c.everything(ctx)
	} else {
		err = c.roots(ctx, roots)
	}
	for _, r := range roots {
		if err == nil {
			err = c.findBroken(ctx, r)
		}
	}
	if err != nil {
		return Check{}, fmt.Errorf("verify: %w", err)
	}
	return c.Check, nil
}

type checking struct {
	s    *Store
	opts CheckOptions

	mu sync.Mutex
	Check
	total int64 // guarded by mu
	seen  int64 // guarded by mu
}

func (c *checking) note(right bool, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen += size; c.opts.Progress != nil {
		c.opts.Progress(min(c.seen, c.total), c.total)
	}
	if right {
		c.Blocks++
		c.Bytes += size
		return
	}
	c.Damaged++
}

// everything reads all blocks and all folders.
func (c *checking) everything(ctx context.Context) error {
	var blocks []digest
	err := c.s.each(ctx, func(d digest, size int64) error {
		blocks = append(blocks, d)
		c.total += size
		return nil
	})
	if err != nil {
		return err
	}
	trees := *c.s.trees.Load()
	for _, t := range trees {
		_, size, err := t.bytes()
		if err != nil {
			return err
		}
		c.total += size
	}
	if err := c.blocks(ctx, blocks); err != nil {
		return err
	}
	for _, t := range trees {
		if err := c.tree(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// roots reads what some roots need.
func (c *checking) roots(ctx context.Context, roots []cid.Cid) error {
	all := make(map[cid.Cid]bool)
	for _, r := range roots {
		if err := checkCID(r); err != nil {
			return err
		}
		_, have, _, err := c.s.Missing(ctx, r)
		if err != nil && !errors.Is(err, ErrInvalid) {
			return err
		}
		c.total += have
		if err := c.s.collect(ctx, r, all, 1); err != nil {
			return err
		}
	}
	var blocks []digest
	inTrees := make(map[digest]bool)
	for _, r := range roots {
		t := c.s.tree(r)
		if t == nil {
			continue
		}
		if err := t.each(func(d digest, _ leafAt) error { inTrees[d] = true; return nil }); err != nil {
			return err
		}
		if err := c.tree(ctx, t); err != nil {
			return err
		}
	}
	for b := range all {
		if d, ok := digestOf(b); ok && !inTrees[d] {
			blocks = append(blocks, d)
		}
	}
	return c.blocks(ctx, blocks)
}

// blocks reads blocks, and leaves in whatever folder.
func (c *checking) blocks(ctx context.Context, ds []digest) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers())
	for _, d := range ds {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			data, good, err := c.s.load(d)
			if err == nil && !good {
				good, err = c.s.removeDamaged(d, &data)
			}
			if errors.Is(err, fs.ErrNotExist) { // in a folder, or nowhere
				data, err = c.s.getFromTrees(d)
				good = err == nil
				if errors.Is(err, errNoLeaf) {
					return nil
				}
				if isNotFound(err) {
					err = nil
				}
			}
			if err == nil {
				c.note(good, int64(len(data)))
			}
			return err
		})
	}
	return g.Wait()
}

// tree reads what lies in a folder.
func (c *checking) tree(ctx context.Context, t *leafTree) error {
	if len(t.files) == 0 {
		return nil
	}
	t.mu.RLock()
	growing, here := t.growing, append(bitset(nil), t.here...)
	t.mu.RUnlock()
	// In a folder that is complete, what was missing may have been put back.
	filter := here.has
	if !growing {
		filter = nil
	}
	var read int64
	count := 0
	wrong, err := t.hashAgain(ctx, 0, len(t.files), filter, func(n int64) {
		read += n
		count++
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.seen += n; c.opts.Progress != nil {
			c.opts.Progress(min(c.seen, c.total), c.total)
		}
	})
	if errors.Is(err, fs.ErrClosed) {
		return nil // given up meanwhile
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.Blocks += max(count-wrong, 0)
	c.Bytes += read
	c.Damaged += wrong
	c.mu.Unlock()
	t.mu.RLock()
	whole := t.left == 0 && !growing
	t.mu.RUnlock()
	if whole && wrong == 0 {
		return c.s.saveTree(t)
	}
	return nil
}

// findBroken lists the files of a root of which something is missing.
func (c *checking) findBroken(ctx context.Context, root cid.Cid) error {
	b := &breakage{c: c, root: root, counted: make(map[cid.Cid]bool)}
	if t := c.s.tree(root); t != nil {
		b.inFolder = c.brokenIn(t)
	}
	missing, _, _, err := c.s.Missing(ctx, root)
	if err != nil || len(missing) == 0 {
		return err
	}
	wanted, err := c.wanted(ctx, root)
	if err != nil {
		return err
	}
	b.gone = make(map[cid.Cid]bool, len(missing))
	for _, m := range missing {
		if wanted == nil || m.Prefix().Codec != rawCodec || wanted[m] {
			b.gone[m] = true
		}
	}
	return b.visit(ctx, root, ".", 0, 1)
}

// wanted are the leaves of a root that are wanted, or nil if all are.
func (c *checking) wanted(ctx context.Context, root cid.Cid) (map[cid.Cid]bool, error) {
	layers := c.s.Layers(root)
	if layers == nil {
		return nil, nil
	}
	sel, err := c.s.SelectLayers(ctx, root, layers.First, layers.Last)
	if errors.Is(err, ErrIncomplete) || errors.Is(err, ErrInvalid) {
		return map[cid.Cid]bool{}, nil // an inner node is missing, and named
	}
	wanted := make(map[cid.Cid]bool, len(sel.Leaves))
	for _, l := range sel.Leaves {
		wanted[l] = true
	}
	return wanted, err
}

// brokenIn lists the files of a folder in which something else is than should
// be, if it was complete once.
func (c *checking) brokenIn(t *leafTree) (complete bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.growing {
		return false
	}
	for _, f := range t.files {
		b := BrokenFile{Root: t.root, Path: f.Path, Disk: filepath.Join(t.dir, filepath.FromSlash(f.Path))}
		for i := f.first; i < f.first+f.Leaves; i++ {
			if t.here.has(i) {
				continue
			}
			b.Missing++
			if l, _, err := t.leaf(i); err == nil {
				b.Bytes += l.size
			}
		}
		if b.Missing > 0 {
			c.Broken = append(c.Broken, b)
		}
	}
	return true
}

// breakage walks a root to name what is missing. A block that is at several
// places is told of once.
type breakage struct {
	c        *checking
	gone     map[cid.Cid]bool
	root     cid.Cid
	inFolder bool // leaves were told of already
	counted  map[cid.Cid]bool
}

func (b *breakage) visit(ctx context.Context, at cid.Cid, name string, size int64, depth int) error {
	if b.counted[at] || depth > maxDepth {
		return ctx.Err()
	}
	b.counted[at] = true
	leaf := at.Prefix().Codec == rawCodec
	if b.gone[at] && (!leaf || !b.inFolder) {
		b.add(name, size)
	}
	if b.gone[at] || leaf {
		return nil
	}
	n, _, err := b.c.s.node(ctx, at)
	if err != nil {
		if isNotFound(err) {
			b.add(name, size)
			return nil
		}
		return err
	}
	for _, l := range n.links {
		sub := name
		if n.kind == kindDir {
			sub = path.Join(name, l.Name)
		}
		if err := b.visit(ctx, l.CID, sub, int64(l.Size), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (b *breakage) add(name string, size int64) {
	list := &b.c.Broken
	if n := len(*list); n > 0 && (*list)[n-1].Path == name && (*list)[n-1].Root == b.root {
		(*list)[n-1].Missing++
		(*list)[n-1].Bytes += size
		return
	}
	*list = append(*list, BrokenFile{Root: b.root, Path: name, Missing: 1, Bytes: size})
}
