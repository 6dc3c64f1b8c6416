package shard

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// leafTree is a folder in whose files leaves lie: one that a user imported in
// place, which is never written, or one of ours, which may grow.
type leafTree struct {
	// constant after it was made
	s      *Store
	root   cid.Cid
	ours   bool
	final  string     // where the folder is when it is complete
	files  []treeFile // but Stamp is guarded by mu
	leaves int
	keys   []uint64 // see treeIndex
	start  int64    // likewise

	// mu is held for reading while a leaf is read or written, so that the
	// folder stays where it is.
	mu       sync.RWMutex
	index    *os.File  // guarded by mu: the tree file, for the leaves in it
	dir      string    // guarded by mu: where the folder is
	growing  bool      // guarded by mu
	here     bitset    // guarded by mu: leaves that are there
	left     int       // guarded by mu: how many are not
	doubtful bitset    // guarded by mu: leaves that an earlier process wrote; nil if none
	journal  *os.File  // guarded by mu: of a growing tree
	source   *leafTree // guarded by mu: the user's folder that changed, in whose place this grows
	unsynced []leafAt  // guarded by mu: leaves that PutLater wrote and Sync did not see yet

	syncMu sync.Mutex // held while unsynced leaves are synced, and while the folder moves; before mu

	stats   sync.Mutex
	seen    []seenFile // guarded by stats
	checkMu sync.Mutex // held while files are hashed again
}

// seenFile is what the file system said of a file of a tree.
type seenFile struct {
	at      time.Time // when it was asked
	same    bool      // the file looked as it did when its leaves were right
	checked time.Time // when all its leaves were hashed again
}

// How long an answer of the file system counts, and how often a file that goes
// on changing is hashed again.
const (
	statEvery    = time.Second
	recheckEvery = time.Minute
)

// leafAt is a leaf of a tree.
type leafAt struct {
	i    int // its number
	file int
	off  int64
	size int64
}

func (s *Store) newTree(x *treeIndex) *leafTree {
	return &leafTree{
		s: s, root: x.root, ours: x.head.Ours, final: x.head.Dir, dir: x.head.Dir, files: x.head.Files, leaves: len(x.keys),
		keys: x.keys, start: x.start, growing: x.head.Growing, here: newBitset(len(x.keys)), left: len(x.keys),
		seen: make([]seenFile, len(x.head.Files)),
	}
}

// fill marks all leaves as there.
func (t *leafTree) fill() {
	for i := range t.leaves {
		t.here.add(i)
	}
	t.left = 0
}

// find returns the leaves with a digest: none, one, or where bytes repeat,
// more. It needs mu for reading.
func (t *leafTree) find(d digest) ([]leafAt, error) {
	var out []leafAt
	from := leafKey(d, 0)
	at, _ := slices.BinarySearch(t.keys, from)
	for _, k := range t.keys[at:] {
		if k>>32 != from>>32 {
			break
		}
		l, got, err := t.leaf(int(k & (1<<32 - 1)))
		if err != nil {
			return nil, err
		}
		if got == d {
			out = append(out, l)
		}
	}
	return out, nil
}

// leaf reads what the tree file says of leaf i. It needs mu for reading.
func (t *leafTree) leaf(i int) (leafAt, digest, error) {
	file := t.fileOf(i)
	f := &t.files[file]
	l := leafAt{i: i, file: file}
	n := 2
	if i+1 == f.first+f.Leaves {
		n = 1
	}
	var rec [2 * leafRecord]byte
	if err := t.readIndex(rec[:n*leafRecord], i); err != nil {
		return l, digest{}, err
	}
	p := parseLeafRecord(rec[:])
	l.off, l.size = p.off, f.Size-p.off
	if n == 2 {
		l.size = parseLeafRecord(rec[leafRecord:]).off - p.off
	}
	return l, p.digest, nil
}

// readIndex reads what the tree file says of the leaves from i on. It needs mu
// for reading.
func (t *leafTree) readIndex(b []byte, i int) error {
	if t.index == nil {
		return fmt.Errorf("folder %s: %w", t.dir, fs.ErrClosed)
	}
	if _, err := t.index.ReadAt(b, t.start+int64(i)*leafRecord); err != nil {
		return fmt.Errorf("read index of %s: %w", t.root, err)
	}
	return nil
}

// read reads a leaf. It needs mu for reading.
func (t *leafTree) read(l leafAt) ([]byte, error) {
	f, err := t.open(l)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, l.size)
	if _, err := f.ReadAt(data, l.off); err != nil && !errors.Is(err, io.EOF) {
		return nil, err // short bytes have another hash
	}
	return data, nil
}

// open opens the file with a leaf. It needs mu for reading.
func (t *leafTree) open(l leafAt) (*os.File, error) {
	root, err := os.OpenRoot(t.dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // nothing to lose
	return openLeaves(root, t.files[l.file].Path, t.files[l.file].Linked)
}

// errNoLeaf says that a tree does not have a leaf.
var errNoLeaf = errors.New("no such leaf")

// get reads the leaf d and checks it. An error that wraps errNoLeaf or a
// ChangedError says that it is not there.
func (t *leafTree) get(d digest) ([]byte, error) {
	for again := false; ; again = true {
		t.mu.RLock()
		data, bad, lost, err := t.getLocked(d)
		stale := lost != nil && !again && t.stale(lost.file)
		t.mu.RUnlock()
		switch {
		case err != nil || data != nil:
			return data, err
		case len(bad) > 0:
			return nil, t.lose(d, bad)
		case stale: // perhaps it was put back
			if err := t.recheck(lost.file); err != nil {
				return nil, err
			}
		case lost != nil:
			return nil, t.changed(lost.file)
		default:
			return nil, errNoLeaf
		}
	}
}

// getLocked returns the leaf, or the places where other bytes are, or where
// some are known to be.
func (t *leafTree) getLocked(d digest) (data []byte, bad []leafAt, lost *leafAt, err error) {
	places, err := t.find(d)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, l := range places {
		if !t.here.has(l.i) {
			if !t.growing {
				lost = &l
			}
			continue
		}
		data, err := t.read(l)
		switch {
		case err == nil && sha256.Sum256(data) == d:
			return data, nil, nil, nil
		case err == nil || errors.Is(err, fs.ErrNotExist):
			bad = append(bad, l)
		default:
			return nil, nil, nil, err
		}
	}
	return nil, bad, lost, nil
}

// changed is the error that a file changed. It needs mu for reading.
func (t *leafTree) changed(file int) *ChangedError {
	return &ChangedError{Root: t.root, Path: filepath.Join(t.dir, filepath.FromSlash(t.files[file].Path)), Ours: t.ours}
}

// lose marks leaves as missing, unless a second look finds them right.
func (t *leafTree) lose(d digest, places []leafAt) error {
	t.mu.Lock()
	for _, l := range places {
		if data, err := t.read(l); err == nil && sha256.Sum256(data) == d {
			continue
		}
		t.drop(l.i)
	}
	err := t.changed(places[0].file)
	t.mu.Unlock()
	t.s.report(Problem{Root: t.root, Path: err.Path, Text: err.Error()})
	return err
}

// drop marks leaf i as missing. It needs mu.
func (t *leafTree) drop(i int) {
	if t.here.has(i) {
		t.here.remove(i)
		t.left++
	}
}

// gain marks leaf i as there. It needs mu.
func (t *leafTree) gain(i int) {
	if !t.here.has(i) {
		t.here.add(i)
		t.left--
	}
}

// size returns the size of the leaf d, if it is there as far as can be told
// without reading it. A file that looks changed is hashed again.
func (t *leafTree) size(d digest) (size int64, ok bool, err error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	places, err := t.find(d)
	if err != nil {
		return 0, false, err
	}
	for _, l := range places {
		if !t.here.has(l.i) && !t.stale(l.file) {
			continue
		}
		if t.stale(l.file) {
			t.mu.RUnlock()
			err := t.recheck(l.file)
			t.mu.RLock()
			if err != nil {
				return 0, false, err
			}
		}
		if t.here.has(l.i) {
			return l.size, true, nil
		}
	}
	return 0, false, nil
}

// stale reports whether a file looks as if it had changed. It needs mu for
// reading. A growing tree is written all the time, and not asked.
func (t *leafTree) stale(file int) bool {
	if t.growing {
		return false
	}
	now := time.Now()
	t.stats.Lock()
	seen := t.seen[file]
	t.stats.Unlock()
	if now.Sub(seen.at) < statEvery {
		return !seen.same
	}
	got, err := t.look(file)
	same := err == nil && got == t.files[file].Stamp
	t.stats.Lock()
	t.seen[file].at, t.seen[file].same = now, same
	t.stats.Unlock()
	return !same
}

// look asks the file system about a file. One that is not there has the zero
// stamp. It needs mu for reading.
func (t *leafTree) look(file int) (stamp, error) {
	fi, err := os.Stat(filepath.Join(t.dir, filepath.FromSlash(t.files[file].Path)))
	if errors.Is(err, fs.ErrNotExist) {
		return stamp{}, nil
	}
	if err != nil {
		return stamp{}, err
	}
	return stampOf(fi), nil
}

// recheck hashes a file again that looks changed, and says from then on what
// is there of it. What is right although it was touched stays.
func (t *leafTree) recheck(file int) error {
	t.checkMu.Lock()
	defer t.checkMu.Unlock()
	t.mu.RLock()
	stale := t.stale(file)
	t.mu.RUnlock()
	t.stats.Lock()
	last := t.seen[file].checked
	t.stats.Unlock()
	if !stale || (!last.IsZero() && time.Since(last) < recheckEvery) {
		return nil
	}
	wrong, err := t.hashAgain(context.Background(), file, file+1, nil, nil)
	if wrong > 0 {
		t.mu.RLock()
		changed := t.changed(file)
		t.mu.RUnlock()
		t.s.report(Problem{Root: t.root, Path: changed.Path, Text: changed.Error()})
	}
	return err
}

// hashAgain hashes the leaves of some files that pass the filter (nil: all),
// and says from then on whether they are there. It returns how many are not.
func (t *leafTree) hashAgain(ctx context.Context, from, to int, filter func(i int) bool, progress func(n int64)) (wrong int, err error) {
	t.mu.RLock()
	dir := t.dir
	before := make([]stamp, to-from)
	for file := from; file < to && err == nil; file++ {
		before[file-from], err = t.look(file)
	}
	t.mu.RUnlock()
	if err != nil {
		return 0, err
	}
	note := func(i int, right bool) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if right {
			t.gain(i)
			return
		}
		wrong++
		t.drop(i)
	}
	root, err := os.OpenRoot(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		for i := t.files[from].first; i < t.files[to-1].first+t.files[to-1].Leaves; i++ {
			note(i, false)
		}
	case err != nil:
		return 0, err
	default:
		err = hashLeaves(ctx, root, t.feed(from, to, filter), func(r hashResult) error {
			note(r.tag, !r.short && r.digest == r.want && !t.overlong(r.tag, before, from))
			if progress != nil {
				progress(r.size)
			}
			return nil
		})
		err = errors.Join(err, root.Close())
	}
	if err != nil {
		return wrong, err
	}
	for file := from; file < to; file++ {
		t.mu.RLock()
		after, err := t.look(file)
		t.mu.RUnlock()
		if err == nil && after == before[file-from] {
			t.setStamp(file, after)
		}
	}
	return wrong, nil
}

// overlong reports whether leaf i is the last of a file that goes on behind it.
// Before has the stamps of the files from a certain one on.
func (t *leafTree) overlong(i int, before []stamp, from int) bool {
	file := t.fileOf(i)
	f := &t.files[file]
	return i == f.first+f.Leaves-1 && before[file-from].Size > f.Size
}

// fileOf is the file with leaf i.
func (t *leafTree) fileOf(i int) int {
	return sort.Search(len(t.files), func(j int) bool { return t.files[j].first > i }) - 1
}

// feed makes jobs of the leaves of some files.
func (t *leafTree) feed(from, to int, filter func(i int) bool) func(yield func(hashJob) bool) error {
	return func(yield func(hashJob) bool) error {
		var f *hashFile
		last := -1
		return t.eachOf(from, to, func(d digest, l leafAt) error {
			if l.file != last {
				f, last = &hashFile{path: t.files[l.file].Path, link: t.files[l.file].Linked}, l.file
				f.left.Store(t.count(l.file, filter))
			}
			if filter != nil && !filter(l.i) {
				return nil
			}
			if !yield(hashJob{file: f, off: l.off, size: l.size, tag: l.i, want: d}) {
				return context.Canceled
			}
			return nil
		})
	}
}

// count is how many leaves of a file pass the filter.
func (t *leafTree) count(file int, filter func(i int) bool) (n int64) {
	f := &t.files[file]
	if filter == nil {
		return int64(f.Leaves)
	}
	for i := f.first; i < f.first+f.Leaves; i++ {
		if filter(i) {
			n++
		}
	}
	return n
}

// setStamp sets the stamp of a file whose leaves were just looked at.
func (t *leafTree) setStamp(file int, s stamp) {
	t.mu.Lock()
	t.files[file].Stamp = s
	t.mu.Unlock()
	t.stats.Lock()
	t.seen[file] = seenFile{at: time.Now(), same: true, checked: time.Now()}
	t.stats.Unlock()
}

// bytes is how much of the tree is there.
func (t *leafTree) bytes() (leaves int, size int64, err error) {
	err = t.each(func(_ digest, l leafAt) error {
		leaves++
		size += l.size
		return nil
	})
	return leaves, size, err
}

// each calls fn for each leaf that is there, in order.
func (t *leafTree) each(fn func(d digest, l leafAt) error) error {
	return t.eachOf(0, len(t.files), func(d digest, l leafAt) error {
		t.mu.RLock()
		here := t.here.has(l.i)
		t.mu.RUnlock()
		if !here {
			return nil
		}
		return fn(d, l)
	})
}

// eachOf calls fn for each leaf of some files, there or not.
func (t *leafTree) eachOf(from, to int, fn func(d digest, l leafAt) error) error {
	const batch = 1024
	buf := make([]byte, (batch+1)*leafRecord)
	for file := from; file < to; file++ {
		f := &t.files[file]
		for at := 0; at < f.Leaves; at += batch {
			n := min(batch, f.Leaves-at)
			more := min(n+1, f.Leaves-at) // the next one tells the size
			t.mu.RLock()
			err := t.readIndex(buf[:more*leafRecord], f.first+at)
			t.mu.RUnlock()
			if err != nil {
				return err
			}
			for j := range n {
				p := parseLeafRecord(buf[j*leafRecord:])
				end := f.Size
				if j+1 < more {
					end = parseLeafRecord(buf[(j+1)*leafRecord:]).off
				}
				if err := fn(p.digest, leafAt{i: f.first + at + j, file: file, off: p.off, size: end - p.off}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// close lets go of the files that are open.
func (t *leafTree) close() error {
	t.syncMu.Lock()
	defer t.syncMu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closeFiles()
}

// closeFiles is close for who holds syncMu and mu.
func (t *leafTree) closeFiles() error {
	var errs []error
	for _, f := range []*os.File{t.index, t.journal} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if t.source != nil {
		errs = append(errs, t.source.close())
	}
	t.index, t.journal, t.source = nil, nil, nil
	return errors.Join(errs...)
}

// ChangedError says that a file no longer holds what it held. IsNotFound of
// go-ipld-format recognizes it.
type ChangedError struct {
	Root cid.Cid
	Path string
	Ours bool // the store wrote the file
}

// Error implements error.
func (e *ChangedError) Error() string {
	if e.Ours {
		return fmt.Sprintf("%s is damaged: what is wrong with it is pulled again", e.Path)
	}
	return fmt.Sprintf("%s changed since it was imported: put it back, or import the folder again", e.Path)
}

// Is says that what was looked for is not there.
func (e *ChangedError) Is(target error) bool { return target == ipld.ErrNotFound{} }

// openLeaves opens a file below root to read. Only where the user said so, a
// link may lead out of it. What is no file is not there; to open a pipe could
// wait forever.
func openLeaves(root *os.Root, path string, follow bool) (*os.File, error) {
	path = filepath.FromSlash(path)
	stat, open := root.Stat, root.Open
	if follow {
		path, stat, open = filepath.Join(root.Name(), path), os.Stat, os.Open
	}
	fi, err := stat(path)
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file: %w", path, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	return open(path)
}

// The journal of a growing tree has a record for each leaf that is durable:
// its number and a checksum, 4 bytes each.
const journalRecord = 8

func appendJournalRecord(b []byte, root cid.Cid, i int) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(i))
	return binary.LittleEndian.AppendUint32(b, journalSum(root, uint32(i)))
}

func journalSum(root cid.Cid, i uint32) uint32 {
	sum := sha256.Sum256(binary.LittleEndian.AppendUint32(root.Bytes(), i))
	return binary.LittleEndian.Uint32(sum[:])
}

// readJournal marks the leaves that a journal names. A record that is cut off,
// or garbage, counts for nothing.
func (t *leafTree) readJournal(r io.Reader) error {
	var rec [journalRecord]byte
	for {
		switch _, err := io.ReadFull(r, rec[:]); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
		i := binary.LittleEndian.Uint32(rec[:])
		if int64(i) < int64(t.leaves) && binary.LittleEndian.Uint32(rec[4:]) == journalSum(t.root, i) {
			t.gain(int(i))
		}
	}
}
