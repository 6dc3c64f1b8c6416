package shard

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// hashed is a file whose leaves are being hashed.
type hashed struct {
	file
	leaves []digest
	stamp  stamp
}

// importInPlace makes a DAG whose leaves stay in the files. Without a store it
// only finds the root.
func importInPlace(ctx context.Context, s *Store, root *os.Root, top *folder, opts ImportOptions) (Import, error) {
	dir, err := filepath.Abs(root.Name())
	if err != nil {
		return Import{}, err
	}
	files, total, err := top.toHash()
	if err != nil {
		return Import{}, err
	}
	var done int64
	err = hashLeaves(ctx, root, feedFiles(files), func(r hashResult) error {
		f := files[r.tag]
		if r.short {
			return fmt.Errorf("%s: %w", f.path, errChanged)
		}
		f.leaves[r.off/ChunkBytes] = r.digest
		if done += r.size; opts.Progress != nil {
			opts.Progress(done, total)
		}
		return nil
	})
	if err != nil {
		return Import{}, err
	}
	b := newBuilder(ctx, s)
	defer b.close()
	if err := b.wait(); err != nil { // there are no leaves to store
		return Import{}, err
	}
	byPath := make(map[string]*hashed, len(files))
	for _, f := range files {
		byPath[f.path] = f
	}
	r, err := b.importNodes(top, func(f file) []*ref { return byPath[f.path].refs(b) })
	if err != nil {
		return Import{}, err
	}
	imp := Import{Root: r.cid, Bytes: total, Files: len(files), Blocks: len(b.blocks)}
	if s == nil {
		return imp, nil
	}
	if err := b.finish(); err != nil {
		return Import{}, err
	}
	h := &treeHead{Root: r.cid.String(), Dir: dir}
	for _, f := range files {
		h.Files = append(h.Files, treeFile{Path: f.path, Linked: f.link, Size: f.info.Size(), Leaves: len(f.leaves), Stamp: f.stamp})
	}
	leaves := func(yield func(leafPlace) error) error {
		for _, f := range files {
			for i, d := range f.leaves {
				if err := yield(leafPlace{d, int64(i) * ChunkBytes}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if opts.TakeTo != nil {
		return imp, s.take(ctx, h, dir, opts.TakeTo(r.cid), leaves)
	}
	return imp, s.refer(ctx, h, leaves)
}

// toHash lists the files of a folder and below, in order of the DAG.
func (f *folder) toHash() (files []*hashed, total int64, err error) {
	count := int64(0)
	err = f.all(func(f file) error {
		n := max((f.info.Size()+ChunkBytes-1)/ChunkBytes, 1)
		if count += n; count > maxTreeLeaves {
			return fmt.Errorf("%w: more than %d MiB in one folder", ErrTooLarge, maxTreeLeaves)
		}
		files = append(files, &hashed{file: f, leaves: make([]digest, n)})
		total += f.info.Size()
		return nil
	})
	return files, total, err
}

// feedFiles makes jobs of the leaves of all files.
func feedFiles(files []*hashed) func(yield func(hashJob) bool) error {
	return func(yield func(hashJob) bool) error {
		for tag, f := range files {
			hf := &hashFile{path: f.path, link: f.link}
			hf.left.Store(int64(len(f.leaves)))
			hf.closing = func(open *os.File) (err error) {
				f.stamp, err = f.unchanged(open)
				return err
			}
			size := f.info.Size()
			for i := range f.leaves {
				off := int64(i) * ChunkBytes
				if !yield(hashJob{file: hf, off: off, size: min(ChunkBytes, size-off), tag: tag}) {
					return nil // whoever stopped it says why
				}
			}
		}
		return nil
	}
}

// refs are the leaves as the builder has them.
func (f *hashed) refs(b *builder) []*ref {
	refs := make([]*ref, len(f.leaves))
	left := uint64(f.info.Size())
	for i, d := range f.leaves {
		size := min(left, ChunkBytes)
		left -= size
		refs[i] = &ref{cid: newCID(rawCodec, d), size: size, fileSize: size, height: 1}
		b.count(d)
	}
	return refs
}

// refer takes in a folder of the user's. A folder of our own with all of it in
// it stays.
func (s *Store) refer(ctx context.Context, h *treeHead, leaves func(yield func(leafPlace) error) error) error {
	old, err := s.own(ctx, h)
	if err != nil || old != nil && !old.incomplete() {
		return err
	}
	if old != nil { // the user's folder has what it lacks
		if _, err := s.removeTree(old); err != nil {
			return err
		}
	}
	_, err = s.addTree(h, leaves)
	return err
}

// take moves a folder to where it stays, and takes it in.
func (s *Store) take(ctx context.Context, h *treeHead, dir, to string, leaves func(yield func(leafPlace) error) error) error {
	to, err := filepath.Abs(to)
	if err != nil {
		return err
	}
	old, err := s.own(ctx, h)
	if err != nil {
		return err
	}
	if old != nil && !old.incomplete() {
		return os.RemoveAll(dir)
	}
	if old != nil {
		if _, err := s.removeTree(old); err != nil {
			return err
		}
	}
	if err := s.removeFolder(to); err != nil { // what a killed import left, or an older version wrote
		return err
	}
	for _, f := range h.Files {
		if err := syncPath(filepath.Join(dir, filepath.FromSlash(f.Path))); err != nil {
			return err
		}
	}
	if err := s.disk.rename(dir, to); err != nil {
		return err
	}
	if err := s.disk.syncFolder(filepath.Dir(to)); err != nil {
		return err
	}
	h.Dir, h.Ours = to, true
	t, err := s.addTree(h, leaves)
	if err != nil {
		return err
	}
	return s.removeCopies(t)
}

// own returns the folder of our own for a root, if there is one.
func (s *Store) own(ctx context.Context, h *treeHead) (*leafTree, error) {
	for _, t := range *s.trees.Load() {
		if !t.ours || t.root.String() != h.Root {
			continue
		}
		_, err := s.settled(ctx, t, FolderOptions{})
		if isNotFound(err) {
			err = nil
		}
		return t, err
	}
	return nil, nil
}

// incomplete reports whether leaves are missing.
func (t *leafTree) incomplete() bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.growing || t.left > 0
}

func syncPath(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
