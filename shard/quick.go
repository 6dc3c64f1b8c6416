package shard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/ipfs/go-cid"
)

// QuickBlock is a block that is read piece by piece. It must be closed.
type QuickBlock struct {
	size int
	at   int

	data []byte // all of it, hashed; nil if it is read from a file

	file  *os.File
	off   int64
	stamp stamp
}

// OpenQuick is [Store.Get] for who hands a block to a peer, which hashes it in any
// case: a leaf in a file that looks as it did when all its leaves were right (size,
// times, number) is not hashed again. What changed without a trace, as when a disk
// decays, gets through: who is told that a peer got other bytes calls
// [Store.Doubt].
func (s *Store) OpenQuick(_ context.Context, c cid.Cid) (*QuickBlock, error) {
	if d, ok := digestOf(c); ok {
		for _, t := range *s.trees.Load() {
			if q := t.openQuick(d); q != nil {
				return q, nil
			}
		}
	}
	data, err := s.get(c)
	if err != nil {
		return nil, err
	}
	return &QuickBlock{size: len(data), data: data}, nil
}

// openQuick returns nil if there is no leaf d, or not in a file that can be believed.
func (t *leafTree) openQuick(d digest) *QuickBlock {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.growing {
		return nil
	}
	places, err := t.find(d)
	if err != nil {
		return nil // get tells of it
	}
	for _, l := range places {
		want := t.files[l.file].Stamp
		if !t.here.has(l.i) || want.Change == 0 || l.size == 0 {
			continue
		}
		f, err := t.open(l)
		if err != nil {
			continue
		}
		q := &QuickBlock{size: int(l.size), file: f, off: l.off, stamp: want}
		if q.looksRight() {
			return q
		}
		q.Close()
	}
	return nil
}

func (q *QuickBlock) looksRight() bool {
	fi, err := q.file.Stat()
	return err == nil && stampOf(fi) == q.stamp
}

// Size is how many bytes the block has, or, after Part, the part.
func (q *QuickBlock) Size() int { return q.size }

// Part makes of the block the n bytes of it from a certain one on, or as many as
// there are. It is called before Next.
func (q *QuickBlock) Part(from, n int) {
	from = min(from, q.size)
	q.size = min(n, q.size-from)
	q.off += int64(from)
	if q.data != nil {
		q.data = q.data[from : from+q.size]
	}
}

// ErrChanged says that a file changed while it was read.
var ErrChanged = errors.New("the file changed while it was read")

// Next returns the next bytes, at most as many as buf has, in buf or elsewhere, and
// none after the last ones. The last ones come only if the file still looks as
// ever; else the error is [ErrChanged], and the others may be wrong.
func (q *QuickBlock) Next(buf []byte) ([]byte, error) {
	n := min(len(buf), q.size-q.at)
	if n == 0 {
		return nil, nil
	}
	from := q.at
	q.at += n
	if q.data != nil {
		return q.data[from:q.at], nil
	}
	if _, err := q.file.ReadAt(buf[:n], q.off+int64(from)); err != nil {
		if errors.Is(err, io.EOF) {
			err = ErrChanged
		}
		return nil, err
	}
	if q.at == q.size && !q.looksRight() {
		return nil, ErrChanged
	}
	return buf[:n], nil
}

// Close lets go of the file.
func (q *QuickBlock) Close() {
	if q.file != nil {
		_ = q.file.Close() // it was only read
	}
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
	if _, err := t.get(d); !errors.As(err, &changed) {
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
