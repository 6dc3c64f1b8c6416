package shard

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"
)

// Grow makes room for the DAG root, a directory whose leaves need not be here,
// as the folder dir, which must not exist unless it holds what is left of root.
// From then on, leaves of root that are put are written where they belong in
// the folder, and nowhere else. It grows beside dir as dir.XXXXXXXX.partial (the
// end of the CID), over restarts, until [Store.Folder] gives it its name.
// Leaves that are here already are moved to it.
//
// Grow may be called again for a folder that is growing or complete. Where the
// root lies in a folder of the user's that holds all of it, nothing is done.
func (s *Store) Grow(ctx context.Context, root cid.Cid, dir string, opts FolderOptions) error {
	err := s.growOnce(ctx, root, dir, opts)
	if err != nil {
		return fmt.Errorf("make a folder of %s: %w", root, incomplete(err))
	}
	return nil
}

func (s *Store) growOnce(ctx context.Context, root cid.Cid, dir string, opts FolderOptions) error {
	s.growMu.Lock() // who comes second finds the folder of the first
	defer s.growMu.Unlock()
	if t := s.tree(root); t != nil {
		if !t.ours {
			at, err := s.settled(ctx, t, opts)
			if at != "" || err != nil && !errors.As(err, new(*ChangedError)) {
				return err
			}
		}
		if t.ours {
			return s.dispelDoubts(ctx, t, opts.Progress)
		}
	}
	if err := s.grow(ctx, root, dir, opts); err != nil {
		return err
	}
	t := s.tree(root)
	if t == nil {
		return fs.ErrClosed
	}
	return s.adopt(ctx, t, opts.Progress)
}

// grow makes an empty tree of root, or one of what lies in the folder already.
func (s *Store) grow(ctx context.Context, root cid.Cid, dir string, opts FolderOptions) error {
	if opts.MaxBytes <= 0 {
		return errors.New("no limit of bytes was given")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	p := newPlan(opts.MaxBytes)
	if err := p.add(ctx, s, root, ".", 1); err != nil {
		return err
	}
	partial := partialPath(dir, root)
	if !s.beginMaterialize(partial) {
		return fmt.Errorf("another call is writing %s", partial)
	}
	defer s.endMaterialize(partial)
	used, err := s.makeRoom(p, dir, partial)
	if err != nil {
		return err
	}
	h := &treeHead{Root: root.String(), Dir: dir, Ours: true, Growing: true}
	total := 0
	for _, f := range p.files {
		n, err := s.countLeaves(ctx, f, maxTreeLeaves-total)
		if err != nil {
			return fmt.Errorf("%s: %w", f.path, err)
		}
		total += n
		h.Files = append(h.Files, treeFile{Path: f.path, Size: f.size, Leaves: n})
	}
	t, err := s.addTree(h, func(yield func(leafPlace) error) error {
		for _, f := range p.files {
			if err := s.eachLeaf(ctx, f, yield); err != nil {
				return fmt.Errorf("%s: %w", f.path, err)
			}
		}
		return nil
	})
	if err != nil || !used || total == 0 {
		return err
	}
	return s.recognize(ctx, t, p.bytes, opts.Progress)
}

// makeRoom makes the files of a plan, of their size and without content where
// there is none. Used says that some may have content.
func (s *Store) makeRoom(p *plan, dir, partial string) (used bool, err error) {
	switch _, err := os.Stat(partial); {
	case err == nil:
		used = true
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	case checkVacant(dir) != nil: // what an older version wrote
		if err := s.disk.rename(dir, partial); err != nil {
			return false, err
		}
		used = true
	default:
		if err := os.MkdirAll(partial, 0o755); err != nil {
			return false, err
		}
	}
	root, err := os.OpenRoot(partial)
	if err != nil {
		return false, err
	}
	defer func() { _ = root.Close() }() // nothing to lose
	if err := p.clean(root); err != nil {
		return false, err
	}
	for _, f := range p.folders[1:] {
		if err := root.Mkdir(filepath.FromSlash(f), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return false, err
		}
	}
	for _, f := range p.files {
		dst, err := root.OpenFile(filepath.FromSlash(f.path), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return false, err
		}
		// A file system without sparse files fills it with zeros now.
		if err := errors.Join(dst.Truncate(f.size), dst.Close()); err != nil {
			return false, err
		}
	}
	return used, s.syncFolders(p, partial)
}

func (s *Store) syncFolders(p *plan, dir string) error {
	for i := range p.folders {
		if err := s.disk.syncFolder(filepath.Join(dir, filepath.FromSlash(p.folders[len(p.folders)-1-i]))); err != nil {
			return err
		}
	}
	return s.disk.syncFolder(filepath.Dir(dir))
}

func (s *Store) countLeaves(ctx context.Context, f planned, limit int) (n int, err error) {
	err = s.eachLeaf(ctx, f, func(leafPlace) error {
		if n++; n > limit {
			return fmt.Errorf("%w: more than %d leaves in a folder", ErrTooLarge, maxTreeLeaves)
		}
		return nil
	})
	return n, err
}

// eachLeaf calls fn for each leaf of a file.
func (s *Store) eachLeaf(ctx context.Context, f planned, fn func(leafPlace) error) error {
	if f.cid.Prefix().Codec == rawCodec {
		d, _ := digestOf(f.cid) // decodeNode checked it
		return fn(leafPlace{digest: d})
	}
	file, err := s.OpenFile(ctx, f.cid)
	if err != nil {
		return err
	}
	for off := int64(0); off < f.size; {
		n, i, from, err := file.seek(off)
		if err != nil {
			return err
		}
		for ; i < len(n.links) && n.links[i].CID.Prefix().Codec == rawCodec; i++ {
			d, _ := digestOf(n.links[i].CID)
			if err := fn(leafPlace{d, from}); err != nil {
				return err
			}
			from += int64(n.blockSizes[i])
		}
		off = from
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// recognize finds leaves that are in the files of a growing tree already.
func (s *Store) recognize(ctx context.Context, t *leafTree, total int64, progress func(done, total int64)) error {
	var done int64
	_, err := t.hashAgain(ctx, 0, len(t.files), nil, func(n int64) {
		if done += n; progress != nil {
			progress(done, total)
		}
	})
	if err != nil {
		return err
	}
	// They were synced by whoever wrote them, or not: so it is done now.
	root, err := os.OpenRoot(t.dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // nothing to lose
	for i := range t.files {
		if err := s.syncFile(root, t.files[i].Path); err != nil {
			return err
		}
	}
	var leaves []int
	for i := range t.leaves {
		if t.here.has(i) {
			leaves = append(leaves, i)
		}
	}
	return s.note(t, leaves)
}

func (s *Store) syncFile(root *os.Root, path string) error {
	f, err := root.OpenFile(filepath.FromSlash(path), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := s.disk.step("sync leaves", path); err != nil {
		f.Close()
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// note writes to the journal that leaves are durable.
func (s *Store) note(t *leafTree, leaves []int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.growing {
		if err := s.noteInJournal(t, leaves); err != nil {
			return err
		}
		if err := s.syncJournal(t.journal); err != nil {
			return err
		}
	}
	t.note(leaves)
	return nil
}

// note says from now on that leaves are there. It needs mu.
func (t *leafTree) note(leaves []int) {
	for _, i := range leaves {
		t.gain(i)
		if t.doubtful != nil {
			t.doubtful.remove(i)
		}
	}
}

// noteInJournal needs the tree's mu.
func (s *Store) noteInJournal(t *leafTree, leaves []int) error {
	if t.journal == nil {
		return fs.ErrClosed
	}
	var b []byte
	for _, i := range leaves {
		b = appendJournalRecord(b, t.root, i)
	}
	if err := s.disk.step("journal", t.journal.Name()); err != nil {
		return err
	}
	_, err := t.journal.Write(b)
	return err
}

func (s *Store) syncJournal(f *os.File) error {
	if err := s.disk.step("sync journal", f.Name()); err != nil {
		return err
	}
	return f.Sync()
}

// placed are the leaves that one writer wrote to folders.
type placed struct {
	later bool // those in folders that grow are for Sync to make durable

	mu     sync.Mutex
	leaves map[*leafTree][]leafAt // guarded by mu
}

// place writes a leaf to the folders that lack it. Done says that it lies in a
// folder of ours, so that no block need be made of it.
func (p *placed) place(s *Store, d digest, data []byte) (done bool, err error) {
	for _, t := range *s.trees.Load() {
		if !t.ours {
			continue
		}
		here, err := p.placeIn(s, t, d, data)
		switch {
		case errors.Is(err, fs.ErrClosed): // it was given up
		case err != nil:
			return false, fmt.Errorf("write to %s: %w", t.final, err)
		}
		done = done || here
	}
	return done, nil
}

func (p *placed) placeIn(s *Store, t *leafTree, d digest, data []byte) (here bool, err error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	places, err := t.find(d)
	if err != nil || len(places) == 0 {
		return false, err
	}
	root, err := os.OpenRoot(t.dir)
	if err != nil {
		return false, err
	}
	defer func() { _ = root.Close() }() // nothing to lose
	for _, l := range places {
		if l.size != int64(len(data)) {
			continue // the DAG lies; who walks it will see
		}
		if t.here.has(l.i) {
			if old, err := t.read(l); err == nil && sha256.Sum256(old) == d {
				here = true
				continue
			}
		}
		if err := s.writeLeaf(root, &t.files[l.file], l.off, data); err != nil {
			return false, err
		}
		p.mu.Lock()
		if p.leaves == nil {
			p.leaves = make(map[*leafTree][]leafAt)
		}
		p.leaves[t] = append(p.leaves[t], l)
		p.mu.Unlock()
		here = true
	}
	return here, nil
}

func (s *Store) writeLeaf(root *os.Root, to *treeFile, off int64, data []byte) error {
	f, err := root.OpenFile(filepath.FromSlash(to.Path), os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	err = s.disk.step("write leaf", fmt.Sprintf("%s@%d", filepath.Join(root.Name(), to.Path), off))
	if err == nil {
		_, err = f.WriteAt(data, off)
	}
	if err == nil && off+int64(len(data)) == to.Size {
		err = f.Truncate(to.Size) // it may have grown
	}
	return errors.Join(err, f.Close())
}

// finish makes what was placed durable, and says that it is there.
func (p *placed) finish(s *Store) error {
	for t, leaves := range p.leaves {
		done, err := false, error(nil)
		if p.later {
			done, err = s.noteLater(t, leaves)
		}
		if err == nil && !done {
			err = s.settleLeaves(t, leaves)
		}
		if err != nil && !errors.Is(err, fs.ErrClosed) {
			return fmt.Errorf("write to %s: %w", t.final, err)
		}
	}
	return nil
}

func (s *Store) settleLeaves(t *leafTree, leaves []leafAt) error {
	files := make(map[int]bool)
	numbers := make([]int, len(leaves))
	for i, l := range leaves {
		files[l.file] = true
		numbers[i] = l.i
	}
	t.mu.RLock()
	err := func() error {
		root, err := os.OpenRoot(t.dir)
		if err != nil {
			return err
		}
		defer func() { _ = root.Close() }() // nothing to lose
		for file := range files {
			if err := s.syncFile(root, t.files[file].Path); err != nil {
				return err
			}
		}
		return nil
	}()
	growing := t.growing
	t.mu.RUnlock()
	if err != nil {
		return err
	}
	if err := s.note(t, numbers); err != nil || growing {
		return err
	}
	// A complete folder was repaired: its files look different now.
	for file := range files {
		t.mu.RLock()
		now, err := t.look(file)
		t.mu.RUnlock()
		if err != nil {
			return err
		}
		t.setStamp(file, now)
	}
	t.mu.RLock()
	whole := t.left == 0
	t.mu.RUnlock()
	if whole {
		return s.saveTree(t)
	}
	return nil
}

// adopt moves leaves that are here elsewhere to a tree that lacks them.
func (s *Store) adopt(ctx context.Context, t *leafTree, progress func(done, total int64)) error {
	if err := s.dispelDoubts(ctx, t, nil); err != nil {
		return err
	}
	var total, done int64
	for i := range t.files {
		total += t.files[i].Size
	}
	const batch = 16
	var part []digest
	move := func() error {
		err := s.move(ctx, t, part)
		part = part[:0]
		return err
	}
	err := t.eachOf(0, len(t.files), func(d digest, l leafAt) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		t.mu.RLock()
		here := t.here.has(l.i)
		t.mu.RUnlock()
		if !here {
			part = append(part, d)
			if len(part) == batch {
				if err := move(); err != nil {
					return err
				}
			}
		}
		if done += l.size; progress != nil {
			progress(done, total)
		}
		return nil
	})
	if err == nil {
		err = move()
	}
	t.mu.Lock()
	source := t.source
	t.source = nil
	t.mu.Unlock()
	if source != nil {
		err = errors.Join(err, source.close())
	}
	if err == nil {
		err = s.syncTree(t) // lest what goes was durable, and what stays is not
	}
	if err != nil {
		return err
	}
	return s.removeCopies(t)
}

// move writes leaves that are here to t and other folders that lack them.
func (s *Store) move(ctx context.Context, t *leafTree, ds []digest) error {
	t.mu.RLock()
	source := t.source
	t.mu.RUnlock()
	var p placed
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, d := range ds {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			data, err := s.get(newCID(rawCodec, d))
			if isNotFound(err) && source != nil {
				data, err = source.get(d)
			}
			if isNotFound(err) || errors.Is(err, errNoLeaf) {
				return nil
			}
			if err == nil {
				_, err = p.place(s, d, data)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return p.finish(s)
}

// removeCopies removes blocks that lie in the folder as well.
func (s *Store) removeCopies(t *leafTree) error {
	return t.each(func(d digest, _ leafAt) error {
		_, err := s.remove(d)
		return err
	})
}

// dispelDoubts hashes the leaves of a growing tree that an earlier process
// wrote.
func (s *Store) dispelDoubts(ctx context.Context, t *leafTree, progress func(done, total int64)) error {
	t.mu.RLock()
	doubtful := slices.Clone(t.doubtful)
	t.mu.RUnlock()
	if doubtful == nil {
		return nil
	}
	if len(t.files) > 0 {
		var done, total int64
		err := t.eachOf(0, len(t.files), func(_ digest, l leafAt) error {
			if doubtful.has(l.i) {
				total += l.size
			}
			return nil
		})
		if err != nil {
			return err
		}
		_, err = t.hashAgain(ctx, 0, len(t.files), doubtful.has, func(n int64) {
			if done += n; progress != nil {
				progress(done, total)
			}
		})
		if err != nil {
			return err
		}
	}
	t.mu.Lock()
	t.doubtful = nil
	t.mu.Unlock()
	return nil
}

// settle gives a growing tree that is complete its name.
func (s *Store) settle(ctx context.Context, t *leafTree) (string, error) {
	if err := s.dispelDoubts(ctx, t, nil); err != nil {
		return "", err
	}
	if err := s.syncTree(t); err != nil {
		return "", err
	}
	t.syncMu.Lock() // no file of it is open meanwhile
	t.mu.Lock()
	err := s.settleLocked(t)
	dir := t.dir
	t.mu.Unlock()
	t.syncMu.Unlock()
	if err != nil {
		return "", err
	}
	if err := s.saveTree(t); err != nil {
		return "", err
	}
	t.mu.Lock()
	journal := t.journal
	t.journal = nil
	t.mu.Unlock()
	if journal != nil {
		err = errors.Join(journal.Close(), os.Remove(journal.Name()))
	}
	return dir, err
}

func (s *Store) settleLocked(t *leafTree) error {
	if t.left > 0 {
		return fmt.Errorf("%w: %d of %d leaves are missing", ErrIncomplete, t.left, t.leaves)
	}
	if t.growing && t.dir != t.final {
		if err := s.publish(t.dir, t.final); err != nil {
			return err
		}
		t.dir = t.final
	}
	for file := range t.files {
		now, err := t.look(file)
		if err != nil {
			return err
		}
		t.files[file].Stamp = now
	}
	t.growing = false
	return nil
}
