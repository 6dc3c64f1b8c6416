package shard

import (
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// benchFolder is a folder of two files, 100 MiB in all.
func benchFolder(b *testing.B) string {
	dir := b.TempDir()
	for _, name := range []string{"one", "two"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.CopyN(f, kuboRandom(b, name), 50<<20); err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

func BenchmarkSHA256(b *testing.B) {
	data := make([]byte, ChunkBytes)
	b.SetBytes(ChunkBytes)
	for b.Loop() {
		sha256.Sum256(data)
	}
}

func BenchmarkHashOnly(b *testing.B) {
	dir := benchFolder(b)
	b.SetBytes(100 << 20)
	for b.Loop() {
		if _, err := importDir(b.Context(), nil, dir, ImportOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkImport(b *testing.B) {
	dir := benchFolder(b)
	b.SetBytes(100 << 20)
	for b.Loop() {
		b.StopTimer()
		s, err := Open(filepath.Join(b.TempDir(), "store"))
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := s.ImportDir(b.Context(), dir, ImportOptions{}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		s.Close()
		os.RemoveAll(s.dir)
		b.StartTimer()
	}
}

func BenchmarkImportAgain(b *testing.B) {
	dir := benchFolder(b)
	s := testStore(b)
	mustImport(b, s, dir)
	b.SetBytes(100 << 20)
	for b.Loop() {
		mustImport(b, s, dir)
	}
}

// BenchmarkPut stores one block at a time, as a slow pull does.
func BenchmarkPut(b *testing.B) {
	s := testStore(b)
	r := kuboRandom(b, "put")
	b.SetBytes(ChunkBytes)
	for b.Loop() {
		b.StopTimer()
		data := make([]byte, ChunkBytes)
		if _, err := io.ReadFull(r, data); err != nil {
			b.Fatal(err)
		}
		block := rawBlock(data)
		b.StartTimer()
		if err := s.Put(b.Context(), block); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMissing(b *testing.B) {
	s := testStore(b)
	imp := mustImport(b, s, benchFolder(b))
	for b.Loop() {
		if _, _, _, err := s.Missing(b.Context(), imp.Root); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	s := testStore(b)
	c, err := s.PutBytes(b.Context(), make([]byte, ChunkBytes))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(ChunkBytes)
	for b.Loop() {
		if _, err := s.Get(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMaterialize(b *testing.B) {
	s := testStore(b)
	imp := mustImport(b, s, benchFolder(b))
	b.SetBytes(100 << 20)
	for b.Loop() {
		out := filepath.Join(b.TempDir(), "out")
		if err := s.Materialize(b.Context(), imp.Root, out, MaterializeOptions{MaxBytes: 1 << 30}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		os.RemoveAll(out)
		b.StartTimer()
	}
}

func BenchmarkOpenNew(b *testing.B) {
	for b.Loop() {
		s, err := Open(filepath.Join(b.TempDir(), "store"))
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
