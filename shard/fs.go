package shard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
)

// Lookup finds the file or folder at the slash-separated path below the
// directory root; "." is the root. What is not there gives an error that
// wraps [fs.ErrNotExist].
func (s *Store) Lookup(ctx context.Context, root cid.Cid, name string) (Entry, error) {
	if !fs.ValidPath(name) {
		return Entry{}, fmt.Errorf("look up %q in %s: %w", name, root, fs.ErrInvalid)
	}
	e, err := s.lookup(ctx, root, name)
	if err != nil {
		return Entry{}, fmt.Errorf("look up %s in %s: %w", name, root, incomplete(err))
	}
	return e, nil
}

func (s *Store) lookup(ctx context.Context, root cid.Cid, name string) (Entry, error) {
	e := Entry{Name: ".", CID: root, Dir: true}
	if name == "." {
		n, _, err := s.node(ctx, root)
		if err == nil && n.kind != kindDir {
			err = fmt.Errorf("%w: a file, not a directory", ErrInvalid)
		}
		return e, err
	}
	parts := strings.Split(name, "/")
	if len(parts) > maxDepth {
		return Entry{}, fs.ErrNotExist
	}
	for _, part := range parts {
		if !e.Dir {
			return Entry{}, fs.ErrNotExist
		}
		n, _, err := s.node(ctx, e.CID)
		if err != nil {
			return Entry{}, err
		}
		i := n.find(part)
		if i < 0 {
			return Entry{}, fs.ErrNotExist
		}
		if e, err = s.entry(ctx, n, i, make(map[cid.Cid]*node)); err != nil {
			return Entry{}, err
		}
	}
	return e, nil
}

// find returns the index of the link with the given name, or -1.
func (n *node) find(name string) int {
	if n.kind != kindDir {
		return -1
	}
	for i, l := range n.links {
		if l.Name == name {
			return i
		}
	}
	return -1
}

// FS shows the directory root as a file system, read from the store block by
// block. Its files implement [io.ReaderAt]. The context bounds all reading.
func (s *Store) FS(ctx context.Context, root cid.Cid) fs.ReadDirFS {
	return &dagFS{ctx: ctx, s: s, root: root}
}

type dagFS struct {
	ctx  context.Context // of FS, because io/fs has no place for one
	s    *Store
	root cid.Cid
}

func (d *dagFS) Open(name string) (fs.File, error) {
	e, err := d.find("open", name)
	if err != nil {
		return nil, err
	}
	if e.Dir {
		return &dagDir{d: d, info: info{e}, name: name}, nil
	}
	f, err := d.s.OpenFile(d.ctx, e.CID)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &dagFile{SectionReader: io.NewSectionReader(f, 0, f.Size()), info: info{e}}, nil
}

func (d *dagFS) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := d.find("readdir", name)
	if err != nil {
		return nil, err
	}
	entries, err := d.s.ReadDir(d.ctx, e.CID)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	out := make([]fs.DirEntry, len(entries))
	for i, e := range entries {
		out[i] = fs.FileInfoToDirEntry(info{e})
	}
	return out, nil
}

func (d *dagFS) find(op, name string) (Entry, error) {
	if !fs.ValidPath(name) {
		return Entry{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	e, err := d.s.lookup(d.ctx, d.root, name)
	if err != nil {
		return Entry{}, &fs.PathError{Op: op, Path: name, Err: incomplete(err)}
	}
	e.Name = path.Base(name)
	return e, nil
}

type dagFile struct {
	*io.SectionReader
	info info
}

func (f *dagFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *dagFile) Close() error               { return nil }

type dagDir struct {
	d    *dagFS
	info info
	name string
	left []fs.DirEntry
	read bool
}

func (f *dagDir) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *dagDir) Close() error               { return nil }
func (f *dagDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: f.name, Err: errors.New("is a directory")}
}

func (f *dagDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if !f.read {
		var err error
		if f.left, err = f.d.ReadDir(f.name); err != nil {
			return nil, err
		}
		f.read = true
	}
	if n > 0 && len(f.left) == 0 {
		return nil, io.EOF
	}
	if n <= 0 || n > len(f.left) {
		n = len(f.left)
	}
	out := f.left[:n:n]
	f.left = f.left[n:]
	return out, nil
}

// info describes an entry; blocks know no time and no owner.
type info struct{ e Entry }

func (i info) Name() string       { return i.e.Name }
func (i info) Size() int64        { return i.e.Size }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.e.Dir }
func (i info) Sys() any           { return i.e.CID }
func (i info) Mode() fs.FileMode {
	if i.e.Dir {
		return fs.ModeDir | 0o555
	}
	return 0o444
}
