package shard

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A file that is cut off while it is mapped is a fault, which is survived and
// seen.
func TestHashMapped(t *testing.T) {
	data := random(t, "mapped", 3*ChunkBytes)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	runOf := func(off int64, sizes ...int64) (out []hashResult) {
		for _, n := range sizes {
			out = append(out, hashResult{hashJob: hashJob{off: off, size: n}})
			off += n
		}
		return out
	}
	out := runOf(ChunkBytes, ChunkBytes, ChunkBytes)
	if !hashMapped(f, out) || out[1].digest != sha256.Sum256(data[2*ChunkBytes:]) {
		t.Errorf("hashMapped = %x", out[1].digest)
	}
	for _, out := range [][]hashResult{runOf(0, 3*ChunkBytes+1), runOf(1, ChunkBytes), runOf(0, 10)} {
		if hashMapped(f, out) {
			t.Errorf("hashMapped of %d bytes from %d", out[0].size, out[0].off)
		}
	}
	if maps, err := os.ReadFile("/proc/self/maps"); err != nil || strings.Contains(string(maps), path) {
		t.Errorf("still mapped, %v", err)
	}
	// The fault itself: SHA-256 runs into pages that are gone.
	m, err := unix.Mmap(int(f.Fd()), 0, 3*ChunkBytes, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(m) }()
	if err := f.Truncate(ChunkBytes); err != nil {
		t.Fatal(err)
	}
	if out := runOf(0, ChunkBytes, ChunkBytes, ChunkBytes); hashAll(m, out) {
		t.Error("a fault was not seen")
	}
	if out := runOf(0, ChunkBytes); !hashAll(m, out) || !bytes.Equal(out[0].digest[:], digestSlice(data[:ChunkBytes])) {
		t.Error("what is there was not hashed after a fault")
	}
}

func digestSlice(b []byte) []byte {
	d := sha256.Sum256(b)
	return d[:]
}
