package shard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/ipfs/go-cid"
)

// ImportOptions are the options of an import.
type ImportOptions struct {
	// InPlace refers to the files where they are, instead of copying what is in
	// them. They stay the user's; should one change, its leaves are not served
	// any more.
	InPlace bool
	// FollowLinks takes a symbolic link to a file for that file, wherever it is,
	// as ipfs add --dereference-symlinks does. Without it, links are refused: a
	// folder of somebody else's could lead to private files. It needs InPlace.
	FollowLinks bool
	// TakeTo, if not nil, makes the folder one of the store: it moves to where
	// TakeTo says, which must be on the same file system, and the store may
	// remove it. If the store has a folder of its own for the root already, the
	// new one is removed.
	TakeTo func(root cid.Cid) (dir string)
	// Progress, if not nil, is called from one goroutine as bytes are read;
	// done never decreases.
	Progress func(done, total int64)
}

// Import is what an import made.
type Import struct {
	Root   cid.Cid
	Bytes  int64 // of content, each file counted
	Files  int
	Blocks int // of the DAG, repeated ones counted once
}

// follow says whether links are followed: not if the folder will move.
func (o *ImportOptions) follow() bool { return o.FollowLinks && o.InPlace && o.TakeTo == nil }

// ImportDir stores a folder as UnixFS. Hidden files are left out, as by ipfs
// add -r; symbolic links and names that some system cannot write are refused,
// and so is a file that changes meanwhile.
func (s *Store) ImportDir(ctx context.Context, dir string, opts ImportOptions) (Import, error) {
	imp, err := importDir(ctx, s, dir, opts)
	if err != nil {
		return Import{}, fmt.Errorf("import %s: %w", dir, err)
	}
	return imp, nil
}

func importDir(ctx context.Context, s *Store, dir string, opts ImportOptions) (Import, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Import{}, err
	}
	defer func() { _ = root.Close() }() // nothing to lose
	folder, err := scan(ctx, root, opts.follow())
	if err != nil {
		return Import{}, err
	}
	return importFolder(ctx, s, root, folder, opts)
}

// importFolder stores what scan found in root; s may be nil to only hash.
func importFolder(ctx context.Context, s *Store, root *os.Root, top *folder, opts ImportOptions) (Import, error) {
	if s == nil || opts.InPlace || opts.TakeTo != nil {
		return importInPlace(ctx, s, root, top, opts)
	}
	return importCopy(ctx, s, root, top, opts)
}

// folder is a folder on disk as found by scan.
type folder struct {
	path    string // slash-separated, "." is the top
	files   []file
	folders []*folder

	// of the top only
	bytes   int64
	entries int
	follow  bool
}

type file struct {
	path string
	link bool // that is followed
	info fs.FileInfo
}

// all calls fn for each file of f and below, in order of their paths.
func (f *folder) all(fn func(file) error) error {
	for _, file := range f.files {
		if err := fn(file); err != nil {
			return err
		}
	}
	for _, sub := range f.folders {
		if err := sub.all(fn); err != nil {
			return err
		}
	}
	return nil
}

// scan lists what of root is imported.
func scan(ctx context.Context, root *os.Root, follow bool) (*folder, error) {
	top := &folder{path: ".", follow: follow}
	if err := scanInto(ctx, root, top, top, 1); err != nil {
		return nil, err
	}
	return top, nil
}

func scanInto(ctx context.Context, root *os.Root, top, f *folder, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: %w: more than %d folders in each other", f.path, ErrTooLarge, maxDepth)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := fs.ReadDir(root.FS(), f.path)
	if err != nil {
		return err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		names = append(names, e.Name())
		p := path.Join(f.path, e.Name())
		if top.entries++; top.entries > maxEntries {
			return fmt.Errorf("%w: more than %d files and folders", ErrTooLarge, maxEntries)
		}
		if len(p) > maxPathBytes {
			return fmt.Errorf("%s: %w: path of %d bytes, at most %d are allowed", p, ErrTooLarge, len(p), maxPathBytes)
		}
		info, err := root.Lstat(p)
		switch {
		case err != nil:
			return err
		case info.IsDir():
			f.folders = append(f.folders, &folder{path: p})
		case info.Mode().IsRegular():
			f.files = append(f.files, file{path: p, info: info})
			top.bytes += info.Size()
		case info.Mode()&fs.ModeSymlink != 0 && top.follow:
			linked, err := followLink(filepath.Join(root.Name(), filepath.FromSlash(p)))
			if err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
			linked.path = p
			f.files = append(f.files, linked)
			top.bytes += linked.info.Size()
		case info.Mode()&fs.ModeSymlink != 0:
			return fmt.Errorf("%s: %w: symbolic link; if you trust the folder, have its links followed (--follow-links)", p, ErrInvalid)
		default:
			return fmt.Errorf("%s: %w: neither a file nor a folder", p, ErrInvalid)
		}
	}
	if err := checkNames(len(names), func(i int) string { return names[i] }); err != nil {
		return fmt.Errorf("%s: %w: %w", f.path, ErrInvalid, err)
	}
	for _, sub := range f.folders {
		if err := scanInto(ctx, root, top, sub, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// followLink finds the file that a link leads to.
func followLink(path string) (file, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: the link leads to no file", ErrInvalid)
	}
	return file{link: true, info: info}, err
}

// importCopy makes blocks of what scan found.
func importCopy(ctx context.Context, s *Store, root *os.Root, top *folder, opts ImportOptions) (Import, error) {
	b := newBuilder(ctx, s)
	defer b.close()
	var done int64
	leaves := make(map[string][]*ref, top.entries)
	imp := Import{Bytes: top.bytes}
	readErr := top.all(func(f file) (err error) {
		imp.Files++
		leaves[f.path], err = b.importFile(root, f, func(n int) {
			done += int64(n)
			if opts.Progress != nil {
				opts.Progress(min(done, top.bytes), top.bytes)
			}
		})
		return err
	})
	// A failed write cancels the reading, so it goes first.
	if err := b.wait(); err != nil {
		return Import{}, err
	}
	if readErr != nil {
		return Import{}, readErr
	}
	r, err := b.importNodes(top, func(f file) []*ref { return leaves[f.path] })
	if err != nil {
		return Import{}, err
	}
	if err := b.finish(); err != nil {
		return Import{}, err
	}
	imp.Root, imp.Blocks = r.cid, len(b.blocks)
	return imp, nil
}

func (b *builder) importFile(root *os.Root, f file, progress func(n int)) ([]*ref, error) {
	r, err := root.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	leaves, size, err := b.chunks(r, progress)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path, err)
	}
	if size != f.info.Size() {
		return nil, fmt.Errorf("%s: %w", f.path, errChanged)
	}
	_, err = f.unchanged(r)
	return leaves, err
}

// unchanged checks that an open file is what scan found.
func (f file) unchanged(r *os.File) (stamp, error) {
	now, err := r.Stat()
	if err != nil {
		return stamp{}, err
	}
	if !os.SameFile(now, f.info) || stampOf(now) != stampOf(f.info) {
		return stamp{}, fmt.Errorf("%s: %w", f.path, errChanged)
	}
	return stampOf(now), nil
}

var errChanged = errors.New("the file changed while it was imported; try again when nothing writes to it")

// importNodes makes the nodes of f and below.
func (b *builder) importNodes(f *folder, leaves func(file) []*ref) (*ref, error) {
	entries := make(map[string]*ref, len(f.files)+len(f.folders))
	for _, file := range f.files {
		r, err := b.file(leaves(file))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file.path, err)
		}
		entries[path.Base(file.path)] = r
	}
	for _, sub := range f.folders {
		r, err := b.importNodes(sub, leaves)
		if err != nil {
			return nil, err
		}
		entries[path.Base(sub.path)] = r
	}
	r, err := b.folder(entries)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	return r, nil
}
