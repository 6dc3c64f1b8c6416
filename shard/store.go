package shard

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"golang.org/x/sync/errgroup"
)

// storeVersion is the whole content of the file "version".
const storeVersion = "moot shard store 2\n"

// olderVersion had no folders of files in it; it is taken over.
const olderVersion = "moot shard store 1\n"

// digest is the SHA-256 of a block, which names it on disk.
type digest [sha256Len]byte

func (d digest) String() string { return hex.EncodeToString(d[:]) }

// digestOf returns the SHA-256 in c; ok is false when c is made otherwise.
func digestOf(c cid.Cid) (d digest, ok bool) {
	if !c.Defined() {
		return d, false
	}
	mh := c.Hash()
	if len(mh) != 2+sha256Len || mh[0] != sha256Code || mh[1] != sha256Len {
		return d, false
	}
	copy(d[:], mh[2:])
	return d, true
}

// Store is a folder of blocks. It is safe for concurrent use and implements
// boxo's blockstore.Blockstore.
//
// Invariant: a block under its final name was complete and synced before it
// got that name. Invariant: Get returns only bytes whose hash was just
// computed; a file with other bytes is removed and reported as missing.
type Store struct {
	// constant after Open
	dir  string
	disk disk
	lock *os.File

	onProblem func(Problem)

	prefixes [256]prefix // one per first byte of the digest
	blocks   prefix      // the folder that they are in

	trees   atomic.Pointer[[]*leafTree] // folders in which leaves lie
	treesMu sync.Mutex                  // held while trees changes
	growMu  sync.Mutex                  // held while a folder is made to grow

	rootsMu sync.Mutex
	roots   map[cid.Cid]Root // guarded by rootsMu
	pruneMu sync.Mutex       // held while roots are removed

	mu            sync.Mutex
	held          map[digest]int  // guarded by mu: blocks of imports that are not finished
	materializing map[string]bool // guarded by mu: folders being written
}

// prefix is one folder of the store.
type prefix struct {
	mu sync.Mutex // held while a name in the folder is made, judged or removed
	// guarded by mu: how often the folder changed, and up to which change it
	// was synced. What an earlier process left counts as one change.
	changed, synced uint64
	made            bool // guarded by mu: the folder is there
}

// Open opens the store in the folder dir, which it makes if needed, and
// removes what an interrupted write left behind. A second process (or a
// second Open) on the same folder gets an error that wraps [ErrLocked].
func Open(dir string) (*Store, error) { return OpenOptions{}.Open(dir) }

// OpenOptions are the options of a store.
type OpenOptions struct {
	// Problem, if not nil, is told of files in which something else is than
	// should be. It may be called at any time, from any goroutine, and more than
	// once for a file. It must not use the store.
	Problem func(Problem)
}

// Open is [Open] with options.
func (o OpenOptions) Open(dir string) (*Store, error) {
	s, err := open(dir, disk{}, o)
	if err != nil {
		return nil, fmt.Errorf("open shard store %s: %w", dir, err)
	}
	return s, nil
}

func open(dir string, d disk, o OpenOptions) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: abs, disk: d, onProblem: o.Problem, held: make(map[digest]int), roots: make(map[cid.Cid]Root), materializing: make(map[string]bool)}
	for i := range s.prefixes {
		s.prefixes[i].changed = 1
	}
	s.blocks.changed = 1
	s.trees.Store(new([]*leafTree))
	if err := os.MkdirAll(abs, 0o755); err != nil {
		return nil, err
	}
	if s.lock, err = lockFolder(abs); err != nil {
		return nil, err
	}
	err = s.prepare()
	if err == nil {
		err = s.openTrees()
	}
	if err == nil {
		err = s.openRoots()
	}
	if err != nil {
		s.lock.Close()
		return nil, err
	}
	return s, nil
}

// prepare makes a new store, or checks and cleans an old one.
func (s *Store) prepare() error {
	version, err := os.ReadFile(s.path("version"))
	switch {
	case err == nil && string(version) == olderVersion:
		if err := s.writeVersion(); err != nil {
			return err
		}
	case err == nil && string(version) != storeVersion:
		return fmt.Errorf("format %q, this program knows %q", bytes.TrimSpace(version), bytes.TrimSpace([]byte(storeVersion)))
	case errors.Is(err, fs.ErrNotExist):
		if err := s.create(); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	// The version is there, so "tmp" and "blocks" are ours.
	if err := os.RemoveAll(s.path("tmp")); err != nil {
		return err
	}
	if err := os.Mkdir(s.path("tmp"), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(s.path("blocks"), 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	return s.disk.syncFolder(s.dir)
}

// create marks an empty folder as a store.
func (s *Store) create() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != lockName && e.Name() != "version.new" {
			return fmt.Errorf("the folder holds %q and is no shard store; choose an empty one", e.Name())
		}
	}
	return s.writeVersion()
}

func (s *Store) writeVersion() error {
	if err := s.disk.writeFile(s.path("version.new"), []byte(storeVersion)); err != nil {
		return err
	}
	if err := s.disk.rename(s.path("version.new"), s.path("version")); err != nil {
		return err
	}
	return s.disk.syncFolder(s.dir)
}

// Close gives the folder back. The store must not be used afterwards.
func (s *Store) Close() error {
	s.treesMu.Lock()
	defer s.treesMu.Unlock()
	var errs []error
	for _, t := range *s.trees.Load() {
		errs = append(errs, t.close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *Store) prefixDir(b byte) string { return s.path("blocks", hex.EncodeToString([]byte{b})) }

func (s *Store) blockPath(d digest) string { return filepath.Join(s.prefixDir(d[0]), d.String()) }

// Has reports whether the block is there. What is in it is checked by Get.
func (s *Store) Has(ctx context.Context, c cid.Cid) (bool, error) {
	_, err := s.GetSize(ctx, c)
	if ipld.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// GetSize returns the size of a block.
func (s *Store) GetSize(_ context.Context, c cid.Cid) (int, error) {
	d, ok := digestOf(c)
	if !ok {
		return 0, ipld.ErrNotFound{Cid: c}
	}
	size, ok, err := s.sizeInTrees(d)
	if err != nil {
		return 0, fmt.Errorf("stat block %s: %w", c, err)
	}
	if ok {
		return int(size), nil
	}
	fi, err := os.Lstat(s.blockPath(d))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, ipld.ErrNotFound{Cid: c}
	case err != nil:
		return 0, fmt.Errorf("stat block %s: %w", c, err)
	case !fi.Mode().IsRegular() || fi.Size() > MaxBlockBytes:
		return 0, ipld.ErrNotFound{Cid: c} // not a block; Get removes it
	}
	return int(fi.Size()), nil
}

// Get reads a block and checks its hash. One that is missing, or was found
// damaged and therefore removed, gives an error that IsNotFound of
// go-ipld-format recognizes.
func (s *Store) Get(_ context.Context, c cid.Cid) (blocks.Block, error) {
	data, err := s.get(c)
	if err != nil {
		return nil, err
	}
	return blocks.NewBlockWithCid(data, c)
}

func (s *Store) get(c cid.Cid) ([]byte, error) {
	d, ok := digestOf(c)
	if !ok {
		return nil, ipld.ErrNotFound{Cid: c}
	}
	data, err := s.getFromTrees(d)
	if err == nil {
		return data, nil
	}
	changed := new(ChangedError)
	if !errors.Is(err, errNoLeaf) && !errors.As(err, &changed) {
		return nil, fmt.Errorf("read block %s: %w", c, err)
	}
	treeErr := err
	data, good, err := s.load(d)
	if err == nil && !good {
		good, err = s.removeDamaged(d, &data)
	}
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read block %s: %w", c, err)
	case err == nil && good:
		return data, nil
	case errors.As(treeErr, &changed):
		return nil, fmt.Errorf("block %s: %w", c, treeErr)
	}
	return nil, ipld.ErrNotFound{Cid: c}
}

func isNotFound(err error) bool { return ipld.IsNotFound(err) }

// load reads the file of a block; good tells whether it is the block.
func (s *Store) load(d digest) (data []byte, good bool, err error) {
	data, err = readFileMax(s.blockPath(d), MaxBlockBytes)
	if errors.Is(err, ErrTooLarge) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return data, sha256.Sum256(data) == d, nil
}

// removeDamaged removes the file of a block unless it is good after all.
func (s *Store) removeDamaged(d digest, data *[]byte) (good bool, err error) {
	p := &s.prefixes[d[0]]
	p.mu.Lock()
	defer p.mu.Unlock()
	// A writer may have put a good one in its place meanwhile.
	if *data, good, err = s.load(d); err != nil || good {
		return good, err
	}
	if err := os.RemoveAll(s.blockPath(d)); err != nil {
		return false, fmt.Errorf("remove damaged block: %w", err)
	}
	return false, nil
}

// Put stores a block durably. Its hash is checked.
func (s *Store) Put(ctx context.Context, b blocks.Block) error {
	return s.PutMany(ctx, []blocks.Block{b})
}

// PutMany stores blocks durably; it is cheaper than as many calls of Put.
func (s *Store) PutMany(ctx context.Context, bs []blocks.Block) error {
	return s.put(ctx, bs, false)
}

func (s *Store) put(ctx context.Context, bs []blocks.Block, later bool) error {
	w := s.newWriter(ctx)
	w.placed.later = later
	for _, b := range bs {
		d, ok := digestOf(b.Cid())
		if !ok {
			return errors.Join(fmt.Errorf("put block %s: %w: only sha2-256 is stored", b.Cid(), ErrInvalid), w.finish())
		}
		data := b.RawData()
		w.group.Go(func() error {
			if len(data) <= MaxBlockBytes && sha256.Sum256(data) != d {
				return fmt.Errorf("put block %s: %w: its bytes have another hash", b.Cid(), ErrInvalid)
			}
			return w.write(d, data)
		})
	}
	return w.finish()
}

// DeleteBlock removes one block. That it is not there is no error. A leaf in a
// folder stays.
func (s *Store) DeleteBlock(_ context.Context, c cid.Cid) error {
	d, ok := digestOf(c)
	if !ok {
		return nil
	}
	_, err := s.remove(d)
	return err
}

// remove removes a block unless an import holds it, and returns its size. The
// folder is not synced: a block that comes back does no harm.
func (s *Store) remove(d digest) (int64, error) {
	p := &s.prefixes[d[0]]
	p.mu.Lock()
	defer p.mu.Unlock()
	s.mu.Lock()
	held := s.held[d] > 0
	s.mu.Unlock()
	if held {
		return 0, nil
	}
	fi, err := os.Lstat(s.blockPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("delete block %s: %w", d, err)
	}
	if err := os.Remove(s.blockPath(d)); err != nil {
		return 0, fmt.Errorf("delete block %s: %w", d, err)
	}
	return fi.Size(), nil
}

// AllKeysChan lists the blocks, as CIDv1 with the raw codec, until ctx is
// done. One that is at several places is listed as often.
func (s *Store) AllKeysChan(ctx context.Context) (<-chan cid.Cid, error) {
	out := make(chan cid.Cid)
	go func() {
		defer close(out)
		send := func(d digest) error {
			select {
			case out <- newCID(rawCodec, d):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		// The interface has no place for errors.
		_ = s.each(ctx, func(d digest, _ int64) error { return send(d) })
		for _, t := range *s.trees.Load() {
			_ = t.each(func(d digest, _ leafAt) error { return send(d) })
		}
	}()
	return out, nil
}

// Usage counts what the store takes of the disk: blocks, and leaves in folders
// of its own.
func (s *Store) Usage(ctx context.Context) (count int, size int64, err error) {
	err = s.each(ctx, func(_ digest, n int64) error {
		count++
		size += n
		return nil
	})
	for _, t := range *s.trees.Load() {
		if err != nil || !t.ours {
			continue
		}
		var leaves int
		var inside int64
		leaves, inside, err = t.bytes()
		count, size = count+leaves, size+inside
	}
	return count, size, err
}

// each calls fn for each block on disk, in order of their names.
func (s *Store) each(ctx context.Context, fn func(d digest, size int64) error) error {
	for i := range s.prefixes {
		if err := ctx.Err(); err != nil {
			return err
		}
		entries, err := os.ReadDir(s.prefixDir(byte(i)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("list blocks: %w", err)
		}
		for _, e := range entries {
			d, ok := parseDigest(e.Name())
			if !ok || d[0] != byte(i) {
				continue // not written by us
			}
			fi, err := e.Info()
			if err != nil || !fi.Mode().IsRegular() {
				continue // removed meanwhile
			}
			if err := fn(d, fi.Size()); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseDigest is the inverse of digest.String.
func parseDigest(name string) (d digest, ok bool) {
	b, err := hex.DecodeString(name)
	if err != nil || len(b) != len(d) || hex.EncodeToString(b) != name {
		return d, false
	}
	return digest(b), true
}

// writer stores blocks from several goroutines; finish makes them durable.
type writer struct {
	s     *Store
	ctx   context.Context
	group *errgroup.Group

	placed placed // leaves that went to a folder

	mu      sync.Mutex
	touched [256]bool // guarded by mu
}

// writers is how many blocks are hashed and synced at a time. More than the
// cores, for they wait for the disk most of the time.
func writers() int { return 2*runtime.GOMAXPROCS(0) + 4 }

func (s *Store) newWriter(ctx context.Context) *writer {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers())
	return &writer{s: s, ctx: ctx, group: g}
}

// finish waits for what was started in w.group and syncs the folders.
func (w *writer) finish() error {
	if err := w.group.Wait(); err != nil {
		return err
	}
	if err := w.placed.finish(w.s); err != nil {
		return err
	}
	for i, touched := range w.touched {
		if !touched {
			continue
		}
		if err := w.s.sync(&w.s.prefixes[i], w.s.prefixDir(byte(i))); err != nil {
			return fmt.Errorf("sync blocks: %w", err)
		}
	}
	if err := w.s.sync(&w.s.blocks, w.s.path("blocks")); err != nil {
		return fmt.Errorf("sync blocks: %w", err)
	}
	return nil
}

// write stores data, whose hash is d. It is durable after finish.
func (w *writer) write(d digest, data []byte) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	return w.writeNow(d, data)
}

// writeNow is write after group.Wait, which ends w.ctx.
func (w *writer) writeNow(d digest, data []byte) error {
	if len(data) > MaxBlockBytes {
		return fmt.Errorf("store block %s: %w: %d bytes, at most %d are allowed", d, ErrTooLarge, len(data), MaxBlockBytes)
	}
	if done, err := w.placed.place(w.s, d, data); done || err != nil {
		return err
	}
	return w.writeBlock(d, data)
}

// writeBlock stores data as a block, wherever else it is.
func (w *writer) writeBlock(d digest, data []byte) error {
	w.mu.Lock()
	w.touched[d[0]] = true
	w.mu.Unlock()
	if err := w.s.store(d, data); err != nil {
		return fmt.Errorf("store block %s: %w", d, err)
	}
	return nil
}

// store writes a block under its name unless it is there already.
func (s *Store) store(d digest, data []byte) error {
	p := &s.prefixes[d[0]]
	final := s.blockPath(d)
	// Comparing costs a read; trusting the name would let a damaged block
	// swallow the good one that comes to repair it. With the lock held, so
	// that a removal is either seen here or sees the block held.
	p.mu.Lock()
	old, err := readFileMax(final, MaxBlockBytes)
	p.mu.Unlock()
	if err == nil && bytes.Equal(old, data) {
		return nil
	}
	tmp, err := s.disk.writeTemp(s.path("tmp"), data)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := s.name(p, tmp, final); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}

// name gives a complete file its name in the folder p, whose lock is held.
func (s *Store) name(p *prefix, tmp, final string) error {
	if !p.made {
		if err := s.makeFolder(filepath.Dir(final)); err != nil {
			return err
		}
		p.made = true
	}
	if err := s.disk.rename(tmp, final); err != nil {
		return err
	}
	p.changed++
	return nil
}

// makeFolder makes a folder of blocks unless it is there.
func (s *Store) makeFolder(dir string) error {
	s.blocks.mu.Lock()
	defer s.blocks.mu.Unlock()
	if err := s.disk.mkdir(dir); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	s.blocks.changed++
	return nil
}

// sync makes the names in a folder durable.
func (s *Store) sync(p *prefix, dir string) error {
	p.mu.Lock()
	changed, synced := p.changed, p.synced
	p.mu.Unlock()
	if synced >= changed {
		return nil
	}
	if err := s.disk.syncFolder(dir); err != nil {
		return err
	}
	p.mu.Lock()
	p.synced = max(p.synced, changed)
	p.mu.Unlock()
	return nil
}

// hold keeps Delete away from a block until release.
func (s *Store) hold(d digest) {
	s.mu.Lock()
	s.held[d]++
	s.mu.Unlock()
}

func (s *Store) release(ds map[digest]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d, n := range ds {
		if s.held[d] -= n; s.held[d] <= 0 {
			delete(s.held, d)
		}
	}
}
