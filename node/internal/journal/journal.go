// Package journal keeps the events of a daemon in a file, so that one that is
// started again goes on with their numbers. A line is an event as the API's
// stream has it (NDJSON). When a file would become too large it is renamed to
// PATH.1, in the place of what was called so, and a new one is begun.
package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/moot-net/moot/node/api"
)

// DefaultMaxBytes is the standard size of a file.
const DefaultMaxBytes = 4_000_000

// Journal implements api.Journal. Its methods must not be called at the same
// time.
//
// Invariant: a file has whole lines, of which each was synced before Append
// returned, but for its end, which a power cut or a full disk may have left.
type Journal struct {
	path     string
	maxBytes int64
	f        *os.File // nil: closed, or an error left an end that could not be cut off
	size     int64
}

// Open opens the journal at path, or makes it, readable by its user alone, and
// returns the events that it has, of the newest epoch and without holes, at
// most keep. An end that was not written whole is cut off. A file that is
// damaged elsewhere is put aside as PATH.1, and has no events: numbers that were
// given may be lost in it.
func Open(path string, maxBytes int64, keep int) (*Journal, []api.Event, error) {
	j := &Journal{path: path, maxBytes: maxBytes}
	events, size, err := read(path, maxBytes)
	switch {
	case errors.Is(err, errDamaged):
		events, size = nil, 0
		if err := os.Rename(path, j.old()); err != nil {
			return nil, nil, fmt.Errorf("put damaged events aside: %w", err)
		}
	case err != nil:
		return nil, nil, fmt.Errorf("read events: %w", err)
	default:
		older, _, err := read(j.old(), maxBytes)
		if err == nil { // else it has been damaged, and newer events are here
			events = append(older, events...)
		}
	}
	if err := j.open(); err != nil {
		return nil, nil, fmt.Errorf("open events: %w", err)
	}
	if err := j.cut(size); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open events: %w", err), j.Close())
	}
	return j, tail(events, keep), nil
}

var errDamaged = errors.New("the file is damaged")

// read returns the events of a file and how many of its bytes they are. What
// follows is the end of a write that was broken off, unless there is a line
// in it that is an event.
func read(path string, maxBytes int64) (events []api.Event, size int64, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	// A batch may be larger than a file should be, but not without end.
	b, err := io.ReadAll(io.LimitReader(f, 16*maxBytes+1))
	if err != nil {
		return nil, 0, err
	}
	if int64(len(b)) > 16*maxBytes {
		return nil, 0, errDamaged
	}
	broken := false
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		b = rest
		var e api.Event
		ok := whole && json.Unmarshal(line, &e) == nil && e.Cursor != (api.Cursor{})
		switch {
		case !ok:
			broken = true
		case broken:
			return nil, 0, errDamaged
		default:
			events = append(events, e)
			size += int64(len(line)) + 1
		}
	}
	return events, size, nil
}

// tail returns the last events, at most keep, that follow each other.
func tail(events []api.Event, keep int) []api.Event {
	i := max(len(events)-1, 0)
	for i > 0 && len(events)-i < keep {
		a, b := events[i-1].Cursor, events[i].Cursor
		if a.Epoch != b.Epoch || a.N+1 != b.N {
			break
		}
		i--
	}
	return events[i:]
}

func (j *Journal) old() string { return j.path + ".1" }

func (j *Journal) open() error {
	f, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(j.path)); err != nil {
		return errors.Join(err, f.Close())
	}
	j.f, j.size = f, 0
	return nil
}

// cut makes the file end after size bytes.
func (j *Journal) cut(size int64) error {
	if err := j.f.Truncate(size); err != nil {
		return err
	}
	j.size = size
	return nil
}

// Append implements api.Journal.
func (j *Journal) Append(events []api.Event) error {
	var b []byte
	for _, e := range events {
		line, err := api.Marshal(e)
		if err != nil {
			return fmt.Errorf("write events: %w", err)
		}
		b = append(append(b, line...), '\n')
	}
	if j.f == nil || j.size > 0 && j.size+int64(len(b)) > j.maxBytes {
		if err := j.rotate(); err != nil {
			return fmt.Errorf("rotate events: %w", err)
		}
	}
	_, err := j.f.WriteAt(b, j.size)
	if err == nil {
		err = j.f.Sync()
	}
	if err != nil {
		// These events get other numbers, and must not be found here.
		if cerr := errors.Join(j.f.Truncate(j.size), j.f.Sync()); cerr != nil {
			err = errors.Join(err, cerr, j.f.Close())
			j.f = nil
		}
		return fmt.Errorf("write events: %w", err)
	}
	j.size += int64(len(b))
	return nil
}

// rotate closes, then renames: Windows refuses the reverse order.
func (j *Journal) rotate() error {
	if j.f != nil {
		err := j.f.Close()
		j.f = nil
		if err != nil {
			return err
		}
	}
	if err := os.Rename(j.path, j.old()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return j.open()
}

// Close closes the file.
func (j *Journal) Close() error {
	if j.f == nil {
		return nil
	}
	err := j.f.Close()
	j.f = nil
	return err
}

// syncDir makes sure that names in a folder are on disk. Windows does so by
// itself, and refuses.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
