package app

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// catalogue is a durable list of what this node holds of one kind: a JSON file
// for each, named by its CID. It says nothing that could not be found out from
// the store again, so a file that cannot be read costs the entry only.
type catalogue[T any] struct {
	// constant after openCatalogue
	dir string
	key func(T) (id string, added time.Time)

	mu      sync.Mutex
	entries map[string]T // guarded by mu; by ID
}

const (
	entrySuffix   = ".json"
	maxEntryBytes = 1 << 20
)

// openCatalogue reads the catalogue in dir, which it makes if needed, and
// removes what an interrupted write left behind.
func openCatalogue[T any](dir string, log *slog.Logger, key func(T) (id string, added time.Time)) (*catalogue[T], error) {
	c := &catalogue[T]{dir: dir, key: key, entries: make(map[string]T)}
	names, err := readEntries(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		var v T
		if err := readEntry(filepath.Join(dir, name), &v); err != nil {
			log.Warn("entry of the catalogue was not usable, import it again", "err", err)
			continue
		}
		id, _ := key(v)
		c.entries[id] = v
	}
	return c, nil
}

// put adds v, or replaces the entry with its ID. When it returns, the entry
// survives a crash.
func (c *catalogue[T]) put(v T) error {
	id, _ := c.key(v)
	if err := writeEntry(filepath.Join(c.dir, id+entrySuffix), v); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries[id] = v
	return nil
}

// remove takes an entry out, if it is there.
func (c *catalogue[T]) remove(id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[id]; !ok {
		return nil
	}
	delete(c.entries, id)
	err := os.Remove(filepath.Join(c.dir, id+entrySuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (c *catalogue[T]) get(id string) (T, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.entries[id]
	return v, ok
}

// list returns the entries, oldest first.
func (c *catalogue[T]) list() []T {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(maps.Values(c.entries), func(a, b T) int {
		idA, addedA := c.key(a)
		idB, addedB := c.key(b)
		return cmp.Or(addedA.Compare(addedB), cmp.Compare(idA, idB))
	})
}

// readEntries makes dir if needed, removes half-written entries, and lists the
// names of the others.
func readEntries(dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range list {
		switch {
		case e.IsDir():
		case strings.Contains(e.Name(), entrySuffix+tempInfix):
			os.Remove(filepath.Join(dir, e.Name()))
		case strings.HasSuffix(e.Name(), entrySuffix):
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func readEntry(path string, v any) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.Size() > maxEntryBytes {
		return fmt.Errorf("%s has %d bytes, at most %d", path, st.Size(), maxEntryBytes)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func writeEntry(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return writeFileDurably(path, append(b, '\n'), 0o600)
}
