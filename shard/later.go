package shard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	blocks "github.com/ipfs/go-block-format"
)

// PutLater is PutMany without the wait for the disk: leaves that belong in a
// folder that grows are there at once, also for a process that comes after a
// kill, but durable only after the next [Store.Sync]. If the power fails before
// that, they are hashed again like all that an earlier process wrote, and count
// as missing if they are not what they should be. Other blocks are durable.
func (s *Store) PutLater(ctx context.Context, bs []blocks.Block) error {
	return s.put(ctx, bs, true)
}

// Sync makes durable what [Store.PutLater] stored. After an error, leaves of which
// that cannot be said count as missing.
func (s *Store) Sync(ctx context.Context) error {
	for _, t := range *s.trees.Load() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.syncTree(t); err != nil {
			return fmt.Errorf("write to %s: %w", t.final, err)
		}
	}
	return nil
}

// noteLater says that leaves are there, if t grows, and leaves it to syncTree to
// make them durable.
func (s *Store) noteLater(t *leafTree, leaves []leafAt) (done bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.growing {
		return false, nil
	}
	numbers := make([]int, len(leaves))
	for i, l := range leaves {
		numbers[i] = l.i
	}
	if err := s.noteInJournal(t, numbers); err != nil {
		return false, err
	}
	t.note(numbers)
	t.unsynced = append(t.unsynced, leaves...)
	return true, nil
}

// syncTree makes the unsynced leaves of t durable. Writers need not wait
// meanwhile.
func (s *Store) syncTree(t *leafTree) error {
	t.syncMu.Lock()
	defer t.syncMu.Unlock()
	t.mu.Lock()
	leaves, journal := t.unsynced, t.journal
	t.unsynced = nil
	var files map[int]*os.File
	var err error
	if len(leaves) > 0 {
		files, err = t.openToSync(leaves)
	}
	t.mu.Unlock()
	for i, f := range files {
		if err == nil {
			err = s.disk.step("sync leaves", t.files[i].Path)
		}
		if err == nil {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
	}
	if err == nil && len(leaves) > 0 && journal != nil {
		err = s.syncJournal(journal)
	}
	if err == nil || errors.Is(err, fs.ErrClosed) {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range leaves {
		t.drop(l.i)
	}
	return err
}

// openToSync opens the files with some leaves. It needs mu.
func (t *leafTree) openToSync(leaves []leafAt) (map[int]*os.File, error) {
	root, err := os.OpenRoot(t.dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // nothing to lose
	files := make(map[int]*os.File)
	for _, l := range leaves {
		if files[l.file] != nil {
			continue
		}
		f, err := root.OpenFile(filepath.FromSlash(t.files[l.file].Path), os.O_RDWR, 0)
		if err != nil {
			return files, err
		}
		files[l.file] = f
	}
	return files, nil
}
