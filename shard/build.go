package shard

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"

	"github.com/ipfs/go-cid"
)

// ref is a block that was made: what a link to it says. It is filled in by
// builder.wait.
type ref struct {
	cid      cid.Cid
	size     uint64 // of the block and all below
	fileSize uint64 // bytes of content of a file
	height   int    // blocks from here down to the lowest leaf, both counted
}

// builder makes the blocks of a DAG and stores them, or only hashes them when
// it has no store. Leaves are hashed and written by several goroutines; nodes
// need the CIDs below them and come after wait.
type builder struct {
	s *Store // nil: hash only
	w *writer

	mu     sync.Mutex
	blocks map[digest]int // guarded by mu: distinct blocks, and how often each was held
	free   [][]byte       // guarded by mu: buffers to use again
}

func newBuilder(ctx context.Context, s *Store) *builder {
	return &builder{s: s, w: s.newWriter(ctx), blocks: make(map[digest]int)}
}

// close lets Delete have the blocks again. The caller has published the root
// by then, or given it up.
func (b *builder) close() {
	if b.s != nil {
		b.s.release(b.blocks)
	}
}

// buffer returns ChunkBytes to read into.
func (b *builder) buffer() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.free); n > 0 {
		buf := b.free[n-1]
		b.free = b.free[:n-1]
		return buf[:ChunkBytes]
	}
	return make([]byte, ChunkBytes)
}

// keep counts a block and, if there is a store, keeps Delete away from it.
func (b *builder) keep(d digest) {
	b.mu.Lock()
	b.blocks[d]++
	b.mu.Unlock()
	if b.s != nil {
		b.s.hold(d)
	}
}

// count counts a block that is not stored.
func (b *builder) count(d digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.blocks[d]; !ok {
		b.blocks[d] = 0
	}
}

// leaf starts to store data, which belongs to the builder from now on.
// It blocks while enough leaves are on their way.
func (b *builder) leaf(data []byte, reuse bool) *ref {
	r := new(ref)
	b.w.group.Go(func() error {
		d := digest(sha256.Sum256(data))
		*r = ref{cid: newCID(rawCodec, d), size: uint64(len(data)), fileSize: uint64(len(data)), height: 1}
		b.keep(d)
		err := b.w.ctx.Err()
		if b.s != nil {
			err = b.w.write(d, data)
		}
		if reuse {
			b.mu.Lock()
			b.free = append(b.free, data)
			b.mu.Unlock()
		}
		return err
	})
	return r
}

// wait ends the leaves; their refs are filled in afterwards.
func (b *builder) wait() error { return b.w.group.Wait() }

// finish makes everything durable.
func (b *builder) finish() error {
	if b.s == nil {
		return b.w.group.Wait()
	}
	return b.w.finish()
}

// now stores one block at once; to be called after wait.
func (b *builder) now(codec uint64, data []byte) (cid.Cid, error) {
	d := digest(sha256.Sum256(data))
	b.keep(d)
	if b.s == nil {
		return newCID(codec, d), nil
	}
	return newCID(codec, d), b.w.writeNow(d, data)
}

// node stores a node above blocks of the given height. What we make must be
// what we accept.
func (b *builder) node(n *node, below int) (*ref, error) {
	if below >= maxDepth {
		return nil, fmt.Errorf("%w: more than %d blocks in each other: put less folders into folders", ErrTooLarge, maxDepth)
	}
	data := n.encode()
	if _, err := decodeNode(newCID(dagPB, sha256.Sum256(data)), data); err != nil {
		return nil, err
	}
	c, err := b.now(dagPB, data)
	r := &ref{cid: c, size: uint64(len(data)), fileSize: n.fileSize, height: below + 1}
	for _, l := range n.links {
		r.size += l.Size
	}
	return r, err
}

// chunks reads r to its end and starts to store its leaves. Progress is told
// after each.
func (b *builder) chunks(r io.Reader, progress func(n int)) (leaves []*ref, size int64, err error) {
	for {
		if err := b.w.ctx.Err(); err != nil {
			return nil, 0, err
		}
		buf := b.buffer()
		n, err := io.ReadFull(r, buf)
		size += int64(n)
		// A file without bytes is one leaf without bytes.
		if n > 0 || (err != nil && len(leaves) == 0) {
			leaves = append(leaves, b.leaf(buf[:n], true))
			if progress != nil {
				progress(n)
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return leaves, size, nil
		default:
			return nil, 0, err
		}
	}
}

// file makes the nodes above leaves, at most importFileLinks below each, all
// leaves at one depth. To be called after wait.
func (b *builder) file(level []*ref) (*ref, error) {
	for len(level) > 1 {
		var above []*ref
		for len(level) > 0 {
			part := level[:min(len(level), importFileLinks)]
			level = level[len(part):]
			n := &node{kind: kindFile}
			for _, r := range part {
				n.links = append(n.links, Link{CID: r.cid, Size: r.size})
				n.blockSizes = append(n.blockSizes, r.fileSize)
				n.fileSize += r.fileSize
			}
			r, err := b.node(n, part[0].height)
			if err != nil {
				return nil, err
			}
			above = append(above, r)
		}
		level = above
	}
	return level[0], nil
}

// folder makes a directory node.
func (b *builder) folder(entries map[string]*ref) (*ref, error) {
	n := &node{kind: kindDir}
	height := 0
	for name, r := range entries {
		height = max(height, r.height)
		n.links = append(n.links, Link{Name: name, CID: r.cid, Size: r.size})
	}
	sort.Slice(n.links, func(i, j int) bool { return n.links[i].Name < n.links[j].Name })
	r, err := b.node(n, height)
	if err != nil {
		return nil, fmt.Errorf("folder of %d entries: %w", len(entries), err)
	}
	return r, nil
}

// PutBytes stores data as a UnixFS file and returns its root: the CID of the
// raw leaf up to 1 MiB, else of a dag-pb node.
func (s *Store) PutBytes(ctx context.Context, data []byte) (cid.Cid, error) {
	c, err := bytesDAG(ctx, s, data)
	if err != nil {
		return cid.Undef, fmt.Errorf("store %d bytes: %w", len(data), err)
	}
	return c, nil
}

// BytesCID returns what [Store.PutBytes] would return, without storing.
func BytesCID(data []byte) (cid.Cid, error) {
	return bytesDAG(context.Background(), nil, data)
}

func bytesDAG(ctx context.Context, s *Store, data []byte) (cid.Cid, error) {
	b := newBuilder(ctx, s)
	defer b.close()
	var leaves []*ref
	for len(data) > 0 || len(leaves) == 0 {
		part := data[:min(len(data), ChunkBytes)]
		data = data[len(part):]
		leaves = append(leaves, b.leaf(part, false))
	}
	if err := b.wait(); err != nil {
		return cid.Undef, err
	}
	root, err := b.file(leaves)
	if err != nil {
		return cid.Undef, err
	}
	return root.cid, b.finish()
}
