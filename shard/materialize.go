package shard

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/ipfs/go-cid"
)

// MaterializeOptions are the options of [Store.Materialize].
type MaterializeOptions struct {
	// MaxBytes bounds the bytes of content that are written. It must be set:
	// a few blocks that are linked to often can stand for a petabyte.
	MaxBytes int64
	// Progress, if not nil, is called from one goroutine; done never
	// decreases.
	Progress func(done, total int64)
}

// Materialize writes the DAG root, a directory that is all local, as the
// folder dir, which must not exist or be empty. It appears complete or not at
// all. Until then it grows beside it as dir.XXXXXXXX.partial (the end of the
// CID); after an interruption the next call with the same root and dir keeps
// what is there and right.
func (s *Store) Materialize(ctx context.Context, root cid.Cid, dir string, opts MaterializeOptions) error {
	if err := s.materialize(ctx, root, dir, opts); err != nil {
		return fmt.Errorf("write %s to %s: %w", root, dir, incomplete(err))
	}
	return nil
}

func (s *Store) materialize(ctx context.Context, root cid.Cid, dir string, opts MaterializeOptions) error {
	if opts.MaxBytes <= 0 {
		return errors.New("no limit of bytes was given")
	}
	missing, _, _, err := s.Missing(ctx, root)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %d blocks are missing, %s first", ErrIncomplete, len(missing), missing[0])
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := checkVacant(dir); err != nil {
		return err
	}
	p := newPlan(opts.MaxBytes)
	if err := p.add(ctx, s, root, ".", 1); err != nil {
		return err
	}
	name := root.String()
	partial := fmt.Sprintf("%s.%s.partial", dir, name[len(name)-8:])
	if !s.beginMaterialize(partial) {
		return fmt.Errorf("another call is writing %s", partial)
	}
	defer s.endMaterialize(partial)
	if err := os.MkdirAll(partial, 0o755); err != nil {
		return err
	}
	if err := p.write(ctx, s, partial, opts.Progress); err != nil {
		return err
	}
	return s.publish(partial, dir)
}

func (s *Store) beginMaterialize(partial string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.materializing[partial] {
		return false
	}
	s.materializing[partial] = true
	return true
}

func (s *Store) endMaterialize(partial string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.materializing, partial)
}

// checkVacant refuses a target that holds something.
func checkVacant(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%w, and is not empty", fs.ErrExist)
	}
	return nil
}

// publish gives the complete folder its name.
func (s *Store) publish(partial, dir string) error {
	// Windows does not rename over a folder, not even an empty one.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.disk.rename(partial, dir); err != nil {
		return err
	}
	return s.disk.syncFolder(filepath.Dir(dir))
}

// plan lists what a directory DAG becomes on disk. Its paths are made of
// names that decodeNode checked.
type plan struct {
	maxBytes int64
	bytes    int64
	folders  []string // each after the one it is in
	files    []planned
	kinds    map[string]bool // of each path: is it a folder
	nodes    map[cid.Cid]*node
}

type planned struct {
	path string
	cid  cid.Cid
	size int64
}

func newPlan(maxBytes int64) *plan {
	return &plan{maxBytes: maxBytes, kinds: map[string]bool{".": true}, nodes: make(map[cid.Cid]*node)}
}

// add plans the directory c as the folder at.
func (p *plan) add(ctx context.Context, s *Store, c cid.Cid, at string, depth int) error {
	n, err := p.node(ctx, s, c)
	if err != nil {
		return err
	}
	switch {
	case n.kind != kindDir:
		return fmt.Errorf("%w: a file, not a directory", ErrInvalid)
	case depth > maxDepth:
		return fmt.Errorf("%w: more than %d folders in each other", ErrInvalid, maxDepth)
	}
	p.folders = append(p.folders, at)
	for i, l := range n.links {
		name := path.Join(at, l.Name)
		switch {
		case len(name) > maxPathBytes:
			return fmt.Errorf("%w: path of %d bytes, at most %d are allowed", ErrTooLarge, len(name), maxPathBytes)
		case len(p.kinds) > maxEntries:
			return fmt.Errorf("%w: more than %d files and folders", ErrTooLarge, maxEntries)
		}
		sub := &node{kind: kindLeaf, size: l.Size, fileSize: l.Size}
		if l.CID.Prefix().Codec != rawCodec {
			if sub, err = p.node(ctx, s, l.CID); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if err := n.checkChild(i, sub); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		p.kinds[name] = sub.kind == kindDir
		if sub.kind == kindDir {
			if err := p.add(ctx, s, l.CID, name, depth+1); err != nil {
				return err
			}
			continue
		}
		size := int64(sub.fileSize)
		if size > p.maxBytes-p.bytes {
			return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, p.maxBytes)
		}
		p.bytes += size
		p.files = append(p.files, planned{path: name, cid: l.CID, size: size})
	}
	return nil
}

// node reads a node once, for a directory may be in a DAG many times.
func (p *plan) node(ctx context.Context, s *Store, c cid.Cid) (*node, error) {
	if n := p.nodes[c]; n != nil {
		return n, ctx.Err()
	}
	n, _, err := s.node(ctx, c)
	if err == nil {
		p.nodes[c] = n
	}
	return n, err
}

// write makes dir hold what is planned and nothing else, and syncs it.
func (p *plan) write(ctx context.Context, s *Store, dir string, progress func(done, total int64)) error {
	// Through an os.Root nothing outside dir can be reached, whatever lies in it.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // nothing to lose
	if err := p.clean(root); err != nil {
		return err
	}
	for _, f := range p.folders[1:] {
		if err := root.Mkdir(filepath.FromSlash(f), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	var done int64
	for _, f := range p.files {
		err := writeFile(ctx, s, root, f, func(n int) {
			done += int64(n)
			if progress != nil {
				progress(done, p.bytes)
			}
		})
		if err != nil {
			return fmt.Errorf("%s: %w", f.path, err)
		}
	}
	for i := range p.folders {
		if err := s.disk.syncFolder(filepath.Join(dir, filepath.FromSlash(p.folders[len(p.folders)-1-i]))); err != nil {
			return err
		}
	}
	return nil
}

// clean removes what an earlier call left and this one does not want.
func (p *plan) clean(root *os.Root) error {
	var unwanted []string
	err := fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if dir, ok := p.kinds[name]; ok && dir == e.IsDir() && (dir || e.Type().IsRegular()) {
			return nil
		}
		unwanted = append(unwanted, name)
		if e.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range unwanted {
		if err := root.RemoveAll(filepath.FromSlash(name)); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes one file leaf by leaf, but for leaves that are there
// already.
func writeFile(ctx context.Context, s *Store, root *os.Root, f planned, progress func(n int)) error {
	src, err := s.OpenFile(ctx, f.cid)
	if err != nil {
		return err
	}
	dst, err := root.OpenFile(filepath.FromSlash(f.path), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer dst.Close()
	fi, err := dst.Stat()
	if err != nil {
		return err
	}
	there := fi.Size()
	buf := make([]byte, min(there, MaxBlockBytes))
	for off := int64(0); off < f.size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, n, err := src.leafCID(off)
		if err != nil {
			return err
		}
		if off+n > there || !holds(dst, off, buf[:n], c) {
			leaf, _, err := src.leafAt(off)
			if err != nil {
				return err
			}
			if _, err := dst.WriteAt(leaf, off); err != nil {
				return err
			}
		}
		off += n
		progress(int(n))
	}
	if there > f.size {
		if err := dst.Truncate(f.size); err != nil {
			return err
		}
	}
	if err := dst.Sync(); err != nil {
		return err
	}
	return dst.Close()
}

// holds reports whether r has the leaf c at off.
func holds(r io.ReaderAt, off int64, buf []byte, c cid.Cid) bool {
	if _, err := r.ReadAt(buf, off); err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	d, ok := digestOf(c)
	return ok && sha256.Sum256(buf) == d
}
