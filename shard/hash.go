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

const (
	// hashPiece is how much is read before it is hashed. Small enough to be
	// still in the cache of the core that hashes it.
	hashPiece = 128 << 10
	// hashRun is how many leaves in a row one core hashes. To map so many at
	// once costs next to nothing, while a copy of the bytes costs an eighth of
	// what SHA-256 does.
	hashRun = 16
)

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
	jobs := make(chan []hashJob, 2*workers)
	results := make(chan hashResult, 4*workers)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(jobs)
		var run []hashJob
		send := func() bool {
			if len(run) == 0 {
				return true
			}
			select {
			case jobs <- run:
				run = nil
				return true
			case <-ctx.Done():
				return false
			}
		}
		err := feed(func(j hashJob) bool {
			if n := len(run); n > 0 && (n == hashRun || run[n-1].file != j.file || run[n-1].off+run[n-1].size != j.off) {
				if !send() {
					return false
				}
			}
			run = append(run, j)
			return true
		})
		if err == nil && !send() {
			err = ctx.Err()
		}
		return err
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

func (h *hasher) work(ctx context.Context, jobs <-chan []hashJob, results chan<- hashResult) error {
	buf := make([]byte, hashPiece)
	out := make([]hashResult, hashRun)
	for run := range jobs {
		if err := ctx.Err(); err != nil {
			return err
		}
		out := out[:len(run)]
		if err := h.hashRun(run, out, buf); err != nil {
			return err
		}
		for _, r := range out {
			if err := h.release(r.file); err != nil {
				return err
			}
			select {
			case results <- r:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return ctx.Err()
}

// hashRun hashes leaves that follow each other in a file.
func (h *hasher) hashRun(run []hashJob, out []hashResult, buf []byte) error {
	f := run[0].file
	f.once.Do(func() { h.openFile(f) })
	for i, j := range run {
		out[i] = hashResult{hashJob: j}
	}
	switch {
	case errors.Is(f.err, fs.ErrNotExist):
		for i := range out {
			out[i].short = true
		}
		return nil
	case f.err != nil:
		return f.err
	case hashMapped(f.f, out):
		return nil
	}
	for i := range out {
		if err := out[i].read(buf); err != nil {
			return err
		}
	}
	return nil
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

// read reads a leaf and hashes it.
func (r *hashResult) read(buf []byte) error {
	sum := sha256.New()
	for off := r.off; off < r.off+r.size; {
		part := buf[:min(int64(len(buf)), r.off+r.size-off)]
		n, err := r.file.f.ReadAt(part, off)
		sum.Write(part[:n])
		off += int64(n)
		if n == len(part) {
			continue
		}
		if errors.Is(err, io.EOF) {
			r.short = true
			return nil
		}
		return fmt.Errorf("read %s: %w", r.file.path, err)
	}
	sum.Sum(r.digest[:0])
	return nil
}
