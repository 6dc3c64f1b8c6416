package shard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
)

const journalExt = ".have"

// openTrees reads the trees. One that cannot be used is told of and removed:
// it holds nothing that cannot be found out again.
func (s *Store) openTrees() error {
	if err := os.Mkdir(s.path("trees"), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	entries, err := os.ReadDir(s.path("trees"))
	if err != nil {
		return err
	}
	var trees []*leafTree
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), journalExt) || !e.Type().IsRegular() {
			continue
		}
		t, err := s.openTree(e.Name())
		if err != nil {
			s.report(Problem{Path: s.path("trees", e.Name()), Text: fmt.Sprintf("is not usable and was removed, import its folder again: %v", err)})
			os.Remove(s.path("trees", e.Name()))
			continue
		}
		trees = append(trees, t)
	}
	s.trees.Store(&trees)
	return s.removeStrayJournals(entries)
}

// removeStrayJournals removes journals of trees that do not grow.
func (s *Store) removeStrayJournals(entries []fs.DirEntry) error {
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), journalExt)
		if !ok {
			continue
		}
		c, err := cid.Decode(name)
		if t := s.tree(c); err == nil && t != nil && t.growing {
			continue
		}
		if err := os.Remove(s.path("trees", e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// openTree opens one tree file.
func (s *Store) openTree(name string) (*leafTree, error) {
	f, err := os.Open(s.path("trees", name))
	if err != nil {
		return nil, err
	}
	x, err := readTreeFile(f)
	if err == nil && x.root.String() != name {
		err = fmt.Errorf("it is that of %s", x.root)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	t := s.newTree(x)
	t.index = f
	if t.growing {
		err = s.resume(t)
	} else {
		t.fill()
	}
	if err == nil && t.ours {
		_, err = os.Stat(t.dir)
	}
	if err != nil {
		_ = t.close() // the other error counts
		return nil, err
	}
	return t, nil
}

// resume opens the journal of a growing tree, and finds its folder.
func (s *Store) resume(t *leafTree) error {
	t.dir = partialPath(t.final, t.root)
	if _, err := os.Stat(t.dir); errors.Is(err, fs.ErrNotExist) {
		t.dir = t.final // complete, but it was not said in time; or gone
	}
	var err error
	if t.journal, err = os.OpenFile(s.journalPath(t.root), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
		return err
	}
	if err := t.readJournal(t.journal); err != nil {
		return err
	}
	// A record that was cut off must not shift those that follow.
	fi, err := t.journal.Stat()
	if err == nil {
		err = t.journal.Truncate(fi.Size() / journalRecord * journalRecord)
	}
	t.doubtful = slices.Clone(t.here)
	return err
}

func (s *Store) treePath(root cid.Cid) string    { return s.path("trees", root.String()) }
func (s *Store) journalPath(root cid.Cid) string { return s.treePath(root) + journalExt }

// partialPath is what a folder is called until it is complete.
func partialPath(dir string, root cid.Cid) string {
	name := root.String()
	return fmt.Sprintf("%s.%s.partial", dir, name[len(name)-8:])
}

// tree returns the tree of a root, or nil.
func (s *Store) tree(root cid.Cid) *leafTree {
	for _, t := range *s.trees.Load() {
		if t.root == root {
			return t
		}
	}
	return nil
}

// addTree writes the file of a tree and takes it in, in the place of another
// with its root.
func (s *Store) addTree(h *treeHead, leaves func(yield func(leafPlace) error) error) (*leafTree, error) {
	s.treesMu.Lock()
	defer s.treesMu.Unlock()
	root, err := cid.Decode(h.Root)
	if err != nil {
		return nil, err
	}
	tmp, err := s.disk.writeTreeFile(s.path("tmp"), h, leaves)
	if err != nil {
		return nil, err
	}
	old := s.tree(root)
	if old != nil && !h.Growing {
		// Who reads it waits, and finds the new one. Closed first, for Windows does
		// not rename over an open file.
		old.syncMu.Lock()
		defer old.syncMu.Unlock()
		old.mu.Lock()
		defer old.mu.Unlock()
		if err := old.closeFiles(); err != nil {
			return nil, err
		}
	}
	if err := os.Remove(s.journalPath(root)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := s.disk.rename(tmp, s.treePath(root)); err != nil {
		return nil, err
	}
	if err := s.disk.syncFolder(s.path("trees")); err != nil {
		return nil, err
	}
	t, err := s.openTree(root.String())
	if err != nil {
		return nil, fmt.Errorf("bug: a tree that was just written: %w", err)
	}
	if h.Growing {
		t.source = old
	}
	next := slices.DeleteFunc(slices.Clone(*s.trees.Load()), func(o *leafTree) bool { return o == old })
	next = append(next, t)
	s.trees.Store(&next) // at once, lest what is here seems to be missing meanwhile
	return t, nil
}

// forget takes a tree out of the list. It needs treesMu.
func (s *Store) forget(t *leafTree) {
	next := slices.DeleteFunc(slices.Clone(*s.trees.Load()), func(o *leafTree) bool { return o == t })
	s.trees.Store(&next)
}

// saveTree writes the file of a tree again, with its stamps and whether it
// grows as they are now.
func (s *Store) saveTree(t *leafTree) error {
	s.treesMu.Lock()
	defer s.treesMu.Unlock()
	t.mu.RLock()
	h := t.head()
	closed := t.index == nil
	t.mu.RUnlock()
	if closed {
		return nil
	}
	tmp, err := s.disk.writeTreeFile(s.path("tmp"), h, func(yield func(leafPlace) error) error {
		return t.eachOf(0, len(t.files), func(d digest, l leafAt) error { return yield(leafPlace{d, l.off}) })
	})
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	// Closed first, for Windows does not rename over an open file.
	if err := t.index.Close(); err != nil {
		return err
	}
	t.index = nil
	if err := s.disk.rename(tmp, s.treePath(t.root)); err != nil {
		return err
	}
	f, err := os.Open(s.treePath(t.root))
	if err != nil {
		return err
	}
	x, err := readTreeFile(f)
	if err != nil {
		f.Close()
		return fmt.Errorf("bug: a tree that was just written: %w", err)
	}
	t.index, t.start = f, x.start
	return s.disk.syncFolder(s.path("trees"))
}

// head is what the tree's file says of it. It needs mu for reading.
func (t *leafTree) head() *treeHead {
	return &treeHead{Root: t.root.String(), Dir: t.final, Ours: t.ours, Growing: t.growing, Files: slices.Clone(t.files)}
}

// removeTree gives a tree up. The folder goes with it if it is ours.
func (s *Store) removeTree(t *leafTree) (freed int64, err error) {
	if t.ours {
		if _, freed, err = t.bytes(); err != nil {
			return 0, err
		}
	}
	s.treesMu.Lock()
	s.forget(t)
	s.treesMu.Unlock()
	t.mu.RLock()
	dir := t.dir
	t.mu.RUnlock()
	if err := t.close(); err != nil {
		return 0, err
	}
	if t.ours {
		if err := s.removeFolder(dir); err != nil {
			return 0, err
		}
	}
	for _, p := range []string{s.journalPath(t.root), s.treePath(t.root)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return freed, err
		}
	}
	return freed, nil
}

// removeFolder removes a folder, which at no time is there in part.
func (s *Store) removeFolder(dir string) error {
	gone, err := os.MkdirTemp(s.path("tmp"), "gone-*")
	if err != nil {
		return err
	}
	switch err := os.Rename(dir, filepath.Join(gone, "folder")); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil: // on another file system
		return errors.Join(os.RemoveAll(dir), os.RemoveAll(gone))
	}
	return os.RemoveAll(gone)
}

// getFromTrees reads a leaf that lies in a folder.
func (s *Store) getFromTrees(d digest) (data []byte, err error) {
	for trees := s.trees.Load(); ; {
		data, closed, err := getFrom(*trees, d)
		now := s.trees.Load()
		if err == nil || !closed || now == trees {
			return data, err
		}
		trees = now // another is in the place of one that was closed
	}
}

// getFrom says too whether a folder was given up meanwhile.
func getFrom(trees []*leafTree, d digest) (data []byte, closed bool, err error) {
	err = errNoLeaf
	for _, t := range trees {
		data, terr := t.get(d)
		changed := new(ChangedError)
		switch {
		case terr == nil:
			return data, closed, nil
		case errors.As(terr, &changed):
			err = changed
		case errors.Is(terr, errNoLeaf):
		case errors.Is(terr, fs.ErrClosed):
			closed = true
		default:
			return nil, closed, terr
		}
	}
	return nil, closed, err
}

// sizeInTrees tells the size of a leaf that lies in a folder.
func (s *Store) sizeInTrees(d digest) (int64, bool, error) {
	for trees := s.trees.Load(); ; {
		closed := false
		for _, t := range *trees {
			size, ok, err := t.size(d)
			if errors.Is(err, fs.ErrClosed) {
				closed = true
				continue
			}
			if ok || err != nil {
				return size, ok, err
			}
		}
		now := s.trees.Load()
		if !closed || now == trees {
			return 0, false, nil
		}
		trees = now
	}
}

// Problem is something that the store found wrong with a file.
type Problem struct {
	Root cid.Cid // of the folder it is in; undefined if that is not known
	Path string
	Text string // for people
}

func (s *Store) report(p Problem) {
	if s.onProblem != nil {
		s.onProblem(p)
	}
}

// FolderOptions are the options of [Store.Grow] and [Store.Folder].
type FolderOptions struct {
	// MaxBytes bounds the bytes of content of the folder. It must be set: a few
	// blocks that are linked to often can stand for a petabyte.
	MaxBytes int64
	// Progress, if not nil, is called from one goroutine while leaves that are
	// here are moved to the folder or checked; done never decreases.
	Progress func(done, total int64)
}

// Folder returns a folder that holds the DAG root, a directory that is all
// local: the one it was imported from, if nothing in it changed, or else dir,
// which it makes of what is here. Blocks that it makes a folder of are removed,
// for the folder holds them. The folder must not be written.
//
// A file that changed gives a [ChangedError]; blocks that are missing, an
// error that wraps [ErrIncomplete].
func (s *Store) Folder(ctx context.Context, root cid.Cid, dir string, opts FolderOptions) (string, error) {
	path, err := s.folder(ctx, root, dir, opts)
	if err != nil {
		return "", fmt.Errorf("folder of %s: %w", root, incomplete(err))
	}
	return path, nil
}

func (s *Store) folder(ctx context.Context, root cid.Cid, dir string, opts FolderOptions) (string, error) {
	t := s.tree(root)
	if t != nil {
		at, err := s.settled(ctx, t, opts)
		if at != "" || err != nil && !errors.As(err, new(*ChangedError)) {
			return at, err
		}
		if err != nil { // perhaps what is gone there is elsewhere
			if missing, _, _, merr := s.Missing(ctx, root); merr != nil || len(missing) > 0 {
				return "", errors.Join(merr, err)
			}
		}
	}
	if t == nil || !t.ours {
		s.growMu.Lock()
		var err error
		if t = s.tree(root); t == nil || !t.ours {
			err = s.grow(ctx, root, dir, opts)
		}
		s.growMu.Unlock()
		if err != nil {
			return "", err
		}
		t = s.tree(root)
		if t == nil {
			return "", fs.ErrClosed
		}
	}
	if err := s.adopt(ctx, t, opts.Progress); err != nil {
		return "", err
	}
	return s.settle(ctx, t)
}

// settled returns the folder of a tree that is complete and as it was. A file
// that was touched is hashed again.
func (s *Store) settled(ctx context.Context, t *leafTree, opts FolderOptions) (string, error) {
	t.mu.RLock()
	dir, growing := t.dir, t.growing
	t.mu.RUnlock()
	if growing {
		return "", nil
	}
	touched := false
	for file := range t.files {
		t.mu.RLock()
		got, err := t.look(file)
		same := err == nil && got == t.files[file].Stamp
		t.mu.RUnlock()
		if same {
			continue
		}
		touched = true
		if _, err := t.hashAgain(ctx, file, file+1, nil, nil); err != nil {
			return "", err
		}
	}
	t.mu.RLock()
	left := t.left
	var bad string
	for i := 0; left > 0 && i < t.leaves && bad == ""; i++ {
		if !t.here.has(i) {
			l, _, err := t.leaf(i)
			if err != nil {
				t.mu.RUnlock()
				return "", err
			}
			bad = filepath.Join(t.dir, filepath.FromSlash(t.files[l.file].Path))
		}
	}
	t.mu.RUnlock()
	if left > 0 {
		return "", &ChangedError{Root: t.root, Path: bad, Ours: t.ours}
	}
	if touched {
		return dir, s.saveTree(t)
	}
	return dir, nil
}
