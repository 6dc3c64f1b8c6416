package shard

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// Missing walks what is local of the DAG root. It returns the distinct blocks
// that are referenced and not there, in order of the files they belong to;
// the bytes of the blocks that are there; and the bytes of all, where
// of a missing block the claim of its link is taken, which counts blocks that
// repeat below it again (0 while the root is missing).
//
// Leaves are judged by their size on disk, not read; see [Store.Verify]. A DAG that
// breaks a rule of FORMAT.md gives an error that wraps [ErrInvalid] or [ErrTooLarge].
func (s *Store) Missing(ctx context.Context, root cid.Cid) (missing []cid.Cid, have, total int64, err error) {
	w := &walk{s: s, seen: make(map[cid.Cid]*seen)}
	if err := w.run(ctx, root); err != nil {
		return nil, 0, 0, fmt.Errorf("walk %s: %w", root, err)
	}
	return w.missing, int64(w.have), int64(w.have + w.claimed), nil
}

// Verify reads every block of the DAG root. Damaged blocks are removed, and
// returned together with the missing ones.
func (s *Store) Verify(ctx context.Context, root cid.Cid) (missing []cid.Cid, err error) {
	w := &walk{s: s, seen: make(map[cid.Cid]*seen), readLeaves: true}
	if err := w.run(ctx, root); err != nil {
		return nil, fmt.Errorf("verify %s: %w", root, err)
	}
	return w.missing, nil
}

// walk visits each block of a DAG once.
type walk struct {
	s          *Store
	readLeaves bool

	seen    map[cid.Cid]*seen
	missing []cid.Cid
	have    uint64 // bytes of distinct blocks that are there
	claimed uint64 // bytes that links claim below distinct missing blocks
}

// seen is what is remembered of a visited block, to check further links to it.
type seen struct {
	kind     kind
	fileSize uint64
	size     uint64
	missing  bool
}

func (w *walk) run(ctx context.Context, root cid.Cid) error {
	if err := checkCID(root); err != nil {
		return err
	}
	_, err := w.visit(ctx, root, nil, 1)
	return err
}

// visit walks c, to which link is the link (nil for the root).
func (w *walk) visit(ctx context.Context, c cid.Cid, link *Link, depth int) (*seen, error) {
	if s := w.seen[c]; s != nil {
		return s, nil
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: more than %d blocks in each other", ErrInvalid, maxDepth)
	}
	if len(w.seen) >= maxBlocks {
		return nil, fmt.Errorf("%w: more than %d blocks", ErrTooLarge, maxBlocks)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	leaf := c.Prefix().Codec == rawCodec
	if leaf && link != nil && !w.readLeaves {
		size, err := w.s.GetSize(ctx, c)
		if err == nil && uint64(size) == link.Size {
			return w.there(c, &seen{kind: kindLeaf, size: link.Size, fileSize: link.Size}, link.Size), nil
		}
		// A wrong size is read: either the file is damaged or the link lies.
	}
	n, data, err := w.s.node(ctx, c)
	if ipld.IsNotFound(err) {
		return w.notThere(c, link)
	}
	if err != nil {
		return nil, err
	}
	s := w.there(c, &seen{kind: n.kind, size: n.size, fileSize: n.fileSize}, n.blockBytes(data))
	for i := range n.links {
		sub, err := w.visit(ctx, n.links[i].CID, &n.links[i], depth+1)
		if err != nil {
			return nil, err
		}
		if sub.missing {
			continue
		}
		if err := n.checkChild(i, &node{kind: sub.kind, size: sub.size, fileSize: sub.fileSize}); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// blockBytes is the size of the block itself.
func (n *node) blockBytes(leaf []byte) uint64 {
	if n.kind == kindLeaf {
		return uint64(len(leaf))
	}
	size := n.size
	for _, l := range n.links {
		size -= l.Size
	}
	return size
}

func (w *walk) there(c cid.Cid, s *seen, size uint64) *seen {
	w.seen[c] = s
	w.have += size
	return s
}

func (w *walk) notThere(c cid.Cid, link *Link) (*seen, error) {
	if len(w.missing) >= maxMissing {
		return nil, fmt.Errorf("%w: more than %d missing blocks", ErrTooLarge, maxMissing)
	}
	s := &seen{missing: true}
	w.seen[c] = s
	w.missing = append(w.missing, c)
	if link != nil {
		w.claimed += link.Size
	}
	return s, nil
}

// Delete removes the blocks of root that are not also blocks of one of keep,
// and returns how many bytes were freed. Blocks of imports that are under way
// stay. Nothing is removed when a DAG of keep cannot be walked.
func (s *Store) Delete(ctx context.Context, root cid.Cid, keep ...cid.Cid) (freed int64, err error) {
	freed, err = s.deleteDAG(ctx, root, keep)
	if err != nil {
		return freed, fmt.Errorf("delete %s: %w", root, err)
	}
	return freed, nil
}

func (s *Store) deleteDAG(ctx context.Context, root cid.Cid, keep []cid.Cid) (freed int64, err error) {
	// Visited by CID, for one hash can be a leaf here and a node there;
	// removed by hash, for that is what is on disk.
	kept := make(map[cid.Cid]bool)
	for _, k := range keep {
		if err := s.collect(ctx, k, kept, 1); err != nil {
			return 0, fmt.Errorf("keep %s: %w", k, err)
		}
	}
	gone := make(map[cid.Cid]bool)
	if err := s.collect(ctx, root, gone, 1); err != nil && !errors.Is(err, ErrInvalid) {
		return 0, err
	}
	stay := make(map[digest]bool, len(kept))
	for c := range kept {
		d, _ := digestOf(c)
		stay[d] = true
	}
	if t := s.tree(root); t != nil && !kept[root] {
		if freed, err = s.deleteTree(ctx, t, stay); err != nil {
			return freed, err
		}
	}
	for c := range gone {
		d, ok := digestOf(c)
		if !ok || stay[d] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return freed, err
		}
		n, err := s.remove(d)
		freed += n
		if err != nil {
			return freed, err
		}
	}
	return freed, nil
}

// deleteTree gives the folder of a root up. What else is in need of its leaves
// gets them as blocks.
func (s *Store) deleteTree(ctx context.Context, t *leafTree, stay map[digest]bool) (freed int64, err error) {
	w := s.newWriter(ctx)
	var kept int64
	err = t.each(func(d digest, l leafAt) error {
		s.mu.Lock()
		held := s.held[d] > 0
		s.mu.Unlock()
		if !held && !stay[d] || s.elsewhere(t, d) {
			return nil
		}
		data, err := t.get(d)
		if isNotFound(err) || errors.Is(err, errNoLeaf) {
			return nil
		}
		if err == nil {
			kept += l.size
			err = w.writeBlock(d, data)
		}
		return err
	})
	if err := errors.Join(err, w.finish()); err != nil {
		return 0, err
	}
	freed, err = s.removeTree(t)
	return max(freed-kept, 0), err
}

// elsewhere reports whether a leaf is here without t.
func (s *Store) elsewhere(t *leafTree, d digest) bool {
	for _, other := range *s.trees.Load() {
		if other == t {
			continue
		}
		if _, ok, err := other.size(d); ok && err == nil {
			return true
		}
	}
	_, good, err := s.load(d)
	return good && err == nil
}

// collect adds the blocks of a DAG, local or not, as far as links lead. A
// block that cannot be decoded has no links.
func (s *Store) collect(ctx context.Context, c cid.Cid, into map[cid.Cid]bool, depth int) error {
	switch {
	case into[c]:
		return nil
	case depth > maxDepth:
		return fmt.Errorf("%w: more than %d blocks in each other", ErrInvalid, maxDepth)
	case len(into) >= maxBlocks:
		return fmt.Errorf("%w: more than %d blocks", ErrTooLarge, maxBlocks)
	}
	into[c] = true
	if c.Defined() && c.Prefix().Codec == rawCodec {
		return ctx.Err()
	}
	n, _, err := s.node(ctx, c)
	switch {
	case ipld.IsNotFound(err), errors.Is(err, ErrInvalid), errors.Is(err, ErrTooLarge):
		return nil
	case err != nil:
		return err
	}
	for _, l := range n.links {
		if err := s.collect(ctx, l.CID, into, depth+1); err != nil {
			return err
		}
	}
	return nil
}
