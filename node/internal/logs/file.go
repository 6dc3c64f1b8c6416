package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// The standard size of a file in bytes, and how many older ones are kept.
const (
	MaxBytes = 10_000_000
	MaxOld   = 4
)

// File is a log file. When it would become larger than MaxBytes it is renamed
// to PATH.1, what was PATH.1 to PATH.2 and so on, and a new one is begun. Its
// methods may be called at the same time.
type File struct {
	// constant after Open
	path     string
	maxBytes int64
	maxOld   int

	mu   sync.Mutex
	f    *os.File // guarded by mu; nil: closed
	size int64    // guarded by mu
}

// Open opens the file at path, or makes it with its folder, readable by its
// user alone. What is in it stays.
func Open(path string, maxBytes int64, maxOld int) (*File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	l := &File{path: path, maxBytes: maxBytes, maxOld: maxOld}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return l, nil
}

// open needs mu, or that nobody else has l.
func (l *File) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.f, l.size = f, info.Size()
	return nil
}

// Write implements io.Writer. What p has is never divided over two files.
func (l *File) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return 0, fs.ErrClosed
	}
	if l.size > 0 && l.size+int64(len(p)) > l.maxBytes {
		if err := l.rotate(); err != nil {
			return 0, err
		}
	}
	n, err := l.f.Write(p)
	l.size += int64(n)
	return n, err
}

// rotate needs mu. Close, then rename: Windows refuses the reverse order.
func (l *File) rotate() error {
	err := l.f.Close()
	l.f = nil
	old := func(n int) string { return fmt.Sprintf("%s.%d", l.path, n) }
	for n := l.maxOld - 1; n > 0; n-- {
		if rerr := os.Rename(old(n), old(n+1)); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	if l.maxOld > 0 {
		err = errors.Join(err, os.Rename(l.path, old(1)))
	} else {
		err = errors.Join(err, os.Remove(l.path))
	}
	// Where that failed, the old file goes on.
	if oerr := l.open(); oerr != nil {
		return errors.Join(err, oerr)
	}
	if err != nil && l.size > 2*l.maxBytes {
		return fmt.Errorf("rotate log: %w", err)
	}
	return nil
}

// Close closes the file.
func (l *File) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}
