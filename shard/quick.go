package shard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/ipfs/go-cid"
)

// GetQuick is [Store.Get] for who hands a block to a peer, which hashes it in any
// case: a leaf in a file that looks as it did when all its leaves were right (size,
// times, number) is not hashed again. What changed without a trace, as when a disk
// decays, gets through: who is told that a peer did not take a block calls
// [Store.Doubt]. buf is used if the block has room in it; the caller owns what is
// returned.
func (s *Store) GetQuick(_ context.Context, c cid.Cid, buf []byte) ([]byte, error) {
	return s.getInto(c, buf, true)
}

// Doubt hashes a block again. If it is wrong, it counts as missing from then on, is
// reported, and no file of the folder in which it lies is believed any more before
// it was hashed, by this process or another. Right says that the block is what it
// should be.
func (s *Store) Doubt(_ context.Context, c cid.Cid) (right bool, err error) {
	d, ok := digestOf(c)
	if !ok {
		return false, nil
	}
	for _, t := range *s.trees.Load() {
		if err := t.doubt(d); err != nil && !errors.Is(err, fs.ErrClosed) {
			return false, fmt.Errorf("doubt block %s: %w", c, err)
		}
	}
	_, err = s.get(c)
	if isNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// doubt reads the leaf d, and believes no file any more if it is wrong.
func (t *leafTree) doubt(d digest) error {
	changed := new(ChangedError)
	if _, err := t.get(d, nil, false); !errors.As(err, &changed) {
		if errors.Is(err, errNoLeaf) {
			return nil
		}
		return err
	}
	t.mu.Lock()
	growing := t.growing
	for i := range t.files {
		t.files[i].Stamp = stamp{}
	}
	t.mu.Unlock()
	t.stats.Lock()
	clear(t.seen)
	t.stats.Unlock()
	if growing {
		return nil
	}
	return t.s.saveTree(t)
}

// Recheck hashes the leaves that an earlier process wrote to the folder of root, if
// it grows. Until then they are there as far as that process said.
func (s *Store) Recheck(ctx context.Context, root cid.Cid) error {
	t := s.tree(root)
	if t == nil {
		return nil
	}
	if err := s.dispelDoubts(ctx, t, nil); err != nil && !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("hash %s again: %w", t.final, err)
	}
	return nil
}
