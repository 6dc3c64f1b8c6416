package shard

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// node reads and decodes a block. Data is nil for all but leaves.
func (s *Store) node(ctx context.Context, c cid.Cid) (n *node, leaf []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	data, err := s.get(c)
	if err != nil {
		return nil, nil, err
	}
	if n, err = decodeNode(c, data); err != nil {
		return nil, nil, err
	}
	if n.kind == kindLeaf {
		leaf = data
	}
	return n, leaf, nil
}

// incomplete makes of a missing block an error that says so.
func incomplete(err error) error {
	if ipld.IsNotFound(err) {
		return fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return err
}

// child reads the block of link i of n and checks what n says about it.
func (s *Store) child(ctx context.Context, n *node, i int) (*node, []byte, error) {
	l := n.links[i]
	sub, leaf, err := s.node(ctx, l.CID)
	if err != nil {
		return nil, nil, err
	}
	return sub, leaf, n.checkChild(i, sub)
}

// checkChild tests the claims of link i against the block below it. A
// directory has no content, and no part of a file is that small.
func (n *node) checkChild(i int, sub *node) error {
	l := n.links[i]
	switch {
	case sub.size != l.Size:
		return fmt.Errorf("block %s: %w: a link to it claims %d bytes, there are %d", l.CID, ErrInvalid, l.Size, sub.size)
	case n.kind == kindFile && sub.fileSize != n.blockSizes[i]:
		return fmt.Errorf("block %s: %w: a link to it claims %d bytes of content, there are %d", l.CID, ErrInvalid, n.blockSizes[i], sub.fileSize)
	}
	return nil
}

// File reads a UnixFS file at any offset. Each leaf is verified when it is
// read. It is safe for concurrent use.
type File struct {
	// constant after OpenFile
	ctx  context.Context // of OpenFile, because io.ReaderAt has no place for one
	s    *Store
	root *node
	name cid.Cid

	mu       sync.Mutex
	nodes    map[cid.Cid]*node // guarded by mu: file nodes that were read, at most fileNodes
	last     []byte            // guarded by mu: the leaf that was read last
	lastFrom int64             // guarded by mu: where it begins
}

// fileNodes bounds the nodes that a File remembers: each covers 1 GiB.
const fileNodes = 64

// OpenFile opens the UnixFS file root. Its leaves need not be local yet; to
// read one that is not gives an error that wraps [ErrIncomplete]. The context
// bounds all reading from the file.
func (s *Store) OpenFile(ctx context.Context, root cid.Cid) (*File, error) {
	n, leaf, err := s.node(ctx, root)
	if err != nil {
		return nil, fmt.Errorf("open file %s: %w", root, incomplete(err))
	}
	if n.kind == kindDir {
		return nil, fmt.Errorf("open file %s: %w: a directory", root, ErrInvalid)
	}
	return &File{ctx: ctx, s: s, root: n, name: root, nodes: make(map[cid.Cid]*node), last: leaf}, nil
}

// Size is the length of the file.
func (f *File) Size() int64 { return int64(f.root.fileSize) }

// ReadAt implements [io.ReaderAt].
func (f *File) ReadAt(p []byte, off int64) (read int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("read file %s: negative offset", f.name)
	}
	for read < len(p) {
		if off >= f.Size() {
			return read, io.EOF
		}
		leaf, from, err := f.leafAt(off)
		if err != nil {
			return read, fmt.Errorf("read file %s at %d: %w", f.name, off, incomplete(err))
		}
		n := copy(p[read:], leaf[off-from:])
		read += n
		off += int64(n)
	}
	return read, nil
}

// leafAt returns the leaf that holds the byte at off, which is below Size,
// and where it begins.
func (f *File) leafAt(off int64) (leaf []byte, from int64, err error) {
	f.mu.Lock()
	leaf, from = f.last, f.lastFrom
	f.mu.Unlock()
	if leaf != nil && off >= from && off < from+int64(len(leaf)) {
		return leaf, from, nil
	}
	n, i, from, err := f.seek(off)
	if err != nil {
		return nil, 0, err
	}
	_, leaf, err = f.s.child(f.ctx, n, i)
	if err != nil {
		return nil, 0, err
	}
	f.mu.Lock()
	f.last, f.lastFrom = leaf, from
	f.mu.Unlock()
	return leaf, from, nil
}

// leafCID returns the name and the size of the leaf at off without reading it.
func (f *File) leafCID(off int64) (c cid.Cid, size int64, err error) {
	if f.root.kind == kindLeaf {
		return f.name, f.Size(), nil
	}
	n, i, _, err := f.seek(off)
	if err != nil {
		return cid.Undef, 0, err
	}
	return n.links[i].CID, int64(n.blockSizes[i]), nil
}

// seek finds the link to the leaf that holds the byte at off: link i of n,
// whose leaf begins at from.
func (f *File) seek(off int64) (n *node, i int, from int64, err error) {
	n = f.root
	for range maxDepth {
		if n.kind == kindLeaf {
			return nil, 0, 0, fmt.Errorf("%w: no leaf at %d", ErrInvalid, off)
		}
		for i = 0; off >= from+int64(n.blockSizes[i]); i++ { // they add up to the file size
			from += int64(n.blockSizes[i])
		}
		if n.links[i].CID.Prefix().Codec == rawCodec {
			return n, i, from, nil
		}
		if n, err = f.childNode(n, i); err != nil {
			return nil, 0, 0, err
		}
	}
	return nil, 0, 0, fmt.Errorf("%w: more than %d nodes above a leaf", ErrInvalid, maxDepth)
}

// childNode returns the file node at link i of n.
func (f *File) childNode(n *node, i int) (*node, error) {
	c := n.links[i].CID
	f.mu.Lock()
	sub := f.nodes[c]
	f.mu.Unlock()
	if sub != nil {
		return sub, n.checkChild(i, sub)
	}
	sub, _, err := f.s.child(f.ctx, n, i)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.nodes) >= fileNodes {
		clear(f.nodes)
	}
	f.nodes[c] = sub
	return sub, nil
}

// ReadBytes reads the UnixFS file root whole. A file larger than limit gives
// an error that wraps [ErrTooLarge] before anything of it is allocated.
func (s *Store) ReadBytes(ctx context.Context, root cid.Cid, limit int64) ([]byte, error) {
	f, err := s.OpenFile(ctx, root)
	if err != nil {
		return nil, err
	}
	if f.Size() > limit {
		return nil, fmt.Errorf("read file %s: %w: %d bytes, at most %d are allowed", root, ErrTooLarge, f.Size(), limit)
	}
	// What is allocated grows with what is there, not with what is claimed.
	out := make([]byte, 0, min(f.Size(), MaxBlockBytes))
	for off := int64(0); off < f.Size(); {
		leaf, from, err := f.leafAt(off)
		if err != nil {
			return nil, fmt.Errorf("read file %s at %d: %w", root, off, incomplete(err))
		}
		out = append(out, leaf[off-from:]...)
		off = from + int64(len(leaf))
	}
	return out, nil
}

// Entry is one file or folder of a directory.
type Entry struct {
	Name string // checked by CheckName
	CID  cid.Cid
	Dir  bool
	Size int64 // bytes of content, 0 for a folder
}

// ReadDir lists the directory root, sorted by name. To tell files from
// folders it reads the nodes (not the leaves) it links to.
func (s *Store) ReadDir(ctx context.Context, root cid.Cid) ([]Entry, error) {
	entries, err := s.readDir(ctx, root)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", root, incomplete(err))
	}
	return entries, nil
}

func (s *Store) readDir(ctx context.Context, root cid.Cid) ([]Entry, error) {
	n, _, err := s.node(ctx, root)
	if err != nil {
		return nil, err
	}
	if n.kind != kindDir {
		return nil, fmt.Errorf("%w: a file, not a directory", ErrInvalid)
	}
	entries := make([]Entry, len(n.links))
	read := make(map[cid.Cid]*node) // each once, however many links lead to it
	for i := range n.links {
		if entries[i], err = s.entry(ctx, n, i, read); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// entry describes link i of a directory. Nodes it needs are kept in read.
func (s *Store) entry(ctx context.Context, n *node, i int, read map[cid.Cid]*node) (Entry, error) {
	l := n.links[i]
	e := Entry{Name: l.Name, CID: l.CID, Size: int64(l.Size)}
	if l.CID.Prefix().Codec == rawCodec {
		return e, nil
	}
	sub := read[l.CID]
	if sub == nil {
		var err error
		if sub, _, err = s.node(ctx, l.CID); err != nil {
			return Entry{}, fmt.Errorf("%s: %w", l.Name, err)
		}
		read[l.CID] = sub
	}
	if err := n.checkChild(i, sub); err != nil {
		return Entry{}, fmt.Errorf("%s: %w", l.Name, err)
	}
	e.Dir, e.Size = sub.kind == kindDir, int64(sub.fileSize)
	return e, nil
}
