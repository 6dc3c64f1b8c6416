package shard

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// hashPiece is how much is read before it is hashed. Small enough to be still
// in the cache of the core that hashes it.
const hashPiece = 128 << 10

// hashFile is a file of which leaves are hashed. It is opened when the first
// is, and closed after the last.
type hashFile struct {
	path string // slash-separated, below the folder
	link bool   // a link is followed
	left atomic.Int64

	once sync.Once
	f    *os.File
	err  error

	// closing, if not nil, looks at the file before it is closed.
	closing func(*os.File) error
}

// hashJob is a leaf to hash.
type hashJob struct {
	file *hashFile
	off  int64
	size int64
	tag  int    // for the caller
	want digest // likewise
}

// hashResult is what came of a job. Short says that there were less bytes, or
// no such file.
type hashResult struct {
	hashJob
	digest digest
	short  bool
}

// hashLeaves hashes leaves of files below root on all cores. Feed calls yield
// for each until it returns false; fn gets the results, in no order, and is
// called from the calling goroutine.
func hashLeaves(ctx context.Context, root *os.Root, feed func(yield func(hashJob) bool) error, fn func(hashResult) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &hasher{root: root, open: make(map[*hashFile]bool)}
	defer h.close()
	workers := runtime.GOMAXPROCS(0)
	jobs := make(chan hashJob, 2*workers)
	results := make(chan hashResult, 4*workers)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(jobs)
		return feed(func(j hashJob) bool {
			select {
			case jobs <- j:
				return true
			case <-ctx.Done():
				return false
			}
		})
	})
	var hashing sync.WaitGroup
	for range workers {
		hashing.Add(1)
		g.Go(func() error {
			defer hashing.Done()
			return h.work(ctx, jobs, results)
		})
	}
	go func() {
		hashing.Wait()
		close(results)
	}()
	var fnErr error
	for r := range results {
		if fnErr != nil {
			continue
		}
		if fnErr = fn(r); fnErr != nil {
			cancel()
		}
	}
	err := g.Wait()
	if fnErr != nil {
		return fnErr
	}
	return err
}

// hasher is one call of hashLeaves.
type hasher struct {
	root *os.Root

	mu   sync.Mutex
	open map[*hashFile]bool // guarded by mu
}

func (h *hasher) work(ctx context.Context, jobs <-chan hashJob, results chan<- hashResult) error {
	buf := make([]byte, hashPiece)
	for j := range jobs {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := h.hash(j, buf)
		if err == nil {
			err = h.release(j.file)
		}
		if err != nil {
			return err
		}
		select {
		case results <- r:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

func (h *hasher) openFile(f *hashFile) {
	f.f, f.err = openLeaves(h.root, f.path, f.link)
	if f.err == nil {
		h.mu.Lock()
		h.open[f] = true
		h.mu.Unlock()
	}
}

// release is called for each leaf that was hashed.
func (h *hasher) release(f *hashFile) error {
	if f.left.Add(-1) > 0 || f.f == nil {
		return nil
	}
	h.mu.Lock()
	delete(h.open, f)
	h.mu.Unlock()
	var err error
	if f.closing != nil {
		err = f.closing(f.f)
	}
	return errors.Join(err, f.f.Close())
}

// close closes what is open because not all leaves were hashed.
func (h *hasher) close() {
	for f := range h.open {
		_ = f.f.Close() // only read
	}
}

func (h *hasher) hash(j hashJob, buf []byte) (hashResult, error) {
	r := hashResult{hashJob: j}
	j.file.once.Do(func() { h.openFile(j.file) })
	if errors.Is(j.file.err, fs.ErrNotExist) {
		r.short = true
		return r, nil
	}
	if j.file.err != nil {
		return r, j.file.err
	}
	sum := sha256.New()
	for off := j.off; off < j.off+j.size; {
		part := buf[:min(int64(len(buf)), j.off+j.size-off)]
		n, err := j.file.f.ReadAt(part, off)
		sum.Write(part[:n])
		off += int64(n)
		if n == len(part) {
			continue
		}
		if errors.Is(err, io.EOF) {
			r.short = true
			break
		}
		return r, fmt.Errorf("read %s: %w", j.file.path, err)
	}
	sum.Sum(r.digest[:0])
	return r, nil
}
