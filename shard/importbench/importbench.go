// Package importbench measures how fast a folder is imported in place, beside
// plain SHA-256 of the same bytes.
package importbench

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/moot-net/moot/shard"
)

// Result is what was measured. Ratios are above 1 where the import is faster.
type Result struct {
	// Ratio is the speed of the import over that of plain SHA-256, on all
	// cores; CPURatio is the same by processor time, 0 where that is not known.
	Ratio    float64 `json:"import_ratio_sha256"`
	CPURatio float64 `json:"import_cpu_ratio_sha256"`
	// In bytes a second, the best of all rounds.
	Import float64 `json:"import_bytes_per_s"`
	SHA256 float64 `json:"sha256_bytes_per_s"`
}

// fileBytes is the size of the files that are made: as that of many
// checkpoints, not of whole leaves.
const fileBytes = 100_000_001

// Measure imports a folder of size bytes, which it makes in dir and removes, and
// hashes the same bytes in memory, in turns. The files are in the cache of the
// system.
func Measure(ctx context.Context, dir string, size int64, rounds int) (r Result, err error) {
	work, err := os.MkdirTemp(dir, "importbench-*")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	data := make([]byte, size)
	if _, err := io.ReadFull(rand.NewChaCha8([32]byte{1}), data); err != nil {
		return r, err
	}
	folder := filepath.Join(work, "folder")
	if err := os.Mkdir(folder, 0o755); err != nil {
		return r, err
	}
	for i, left := 0, data; len(left) > 0; i++ {
		part := left[:min(len(left), fileBytes)]
		left = left[len(part):]
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("part-%d", i)), part, 0o600); err != nil {
			return r, err
		}
	}
	var plain, imports lap
	for i := range rounds {
		if err := plain.time(func() error { hash(data); return ctx.Err() }); err != nil {
			return r, err
		}
		store, err := shard.Open(filepath.Join(work, fmt.Sprintf("store-%d", i)))
		if err != nil {
			return r, err
		}
		err = imports.time(func() error {
			_, err := store.ImportDir(ctx, folder, shard.ImportOptions{InPlace: true})
			return err
		})
		if err := errors.Join(err, store.Close()); err != nil {
			return r, err
		}
	}
	r.Import, r.SHA256 = float64(size)/imports.best.Seconds(), float64(size)/plain.best.Seconds()
	r.Ratio = plain.best.Seconds() / imports.best.Seconds()
	if imports.bestCPU > 0 {
		r.CPURatio = plain.bestCPU.Seconds() / imports.bestCPU.Seconds()
	}
	return r, nil
}

// lap keeps the best of some times.
type lap struct{ best, bestCPU time.Duration }

func (l *lap) time(fn func() error) error {
	runtime.GC() // not while it is measured
	began, cpu := time.Now(), cpuTime()
	err := fn()
	took, took2 := time.Since(began), cpuTime()-cpu
	if l.best == 0 || took < l.best {
		l.best = took
	}
	if l.bestCPU == 0 || took2 < l.bestCPU {
		l.bestCPU = took2
	}
	return err
}

// hash hashes data by leaves on all cores.
func hash(data []byte) {
	var wg sync.WaitGroup
	leaves := make(chan []byte, 64)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for l := range leaves {
				sha256.Sum256(l)
			}
		})
	}
	for len(data) > 0 {
		n := min(len(data), shard.ChunkBytes)
		leaves <- data[:n]
		data = data[n:]
	}
	close(leaves)
	wg.Wait()
}
