package shard

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
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

func BenchmarkImportInPlace(b *testing.B) {
	dir := benchFolder(b)
	s := testStore(b)
	b.SetBytes(100 << 20)
	for b.Loop() {
		mustImportInPlace(b, s, dir)
	}
}

// BenchmarkPutGrowing stores one leaf at a time in a folder that grows.
func BenchmarkPutGrowing(b *testing.B) {
	from := testStore(b)
	imp := mustImportInPlace(b, from, benchFolder(b))
	b.SetBytes(100 << 20)
	for b.Loop() {
		b.StopTimer()
		s := testStore(b)
		leaves := pulled(b, from, s, imp.Root)
		b.StartTimer()
		dir := filepath.Join(b.TempDir(), "model")
		opts := FolderOptions{MaxBytes: imp.Bytes}
		if err := s.Grow(b.Context(), imp.Root, dir, opts); err != nil {
			b.Fatal(err)
		}
		for part := range slices.Chunk(leaves, 8) {
			var bs []blocks.Block
			for _, c := range part {
				block, err := from.Get(b.Context(), c)
				if err != nil {
					b.Fatal(err)
				}
				bs = append(bs, block)
			}
			if err := s.PutMany(b.Context(), bs); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := s.Folder(b.Context(), imp.Root, dir, opts); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		os.RemoveAll(dir)
		b.StartTimer()
	}
}

// BenchmarkMillion opens a store with a million leaves in a thousand files,
// and looks for leaves.
func BenchmarkMillion(b *testing.B) {
	const files, perFile = 1000, 1000
	dir := b.TempDir()
	s := testStore(b)
	h := &treeHead{Root: newCID(dagPB, digest{7}).String(), Dir: dir}
	for i := range files {
		f := treeFile{Path: fmt.Sprintf("model-%05d-of-01000.safetensors", i), Size: perFile * ChunkBytes, Leaves: perFile}
		out, err := os.Create(filepath.Join(dir, f.Path))
		if err == nil {
			err = errors.Join(out.Truncate(f.Size), out.Close())
		}
		if err != nil {
			b.Fatal(err)
		}
		fi, err := os.Stat(out.Name())
		if err != nil {
			b.Fatal(err)
		}
		f.Stamp = stampOf(fi)
		h.Files = append(h.Files, f)
	}
	name := func(i int) digest { return sha256.Sum256(fmt.Appendf(nil, "%d", i)) }
	if _, err := s.addTree(h, func(yield func(leafPlace) error) error {
		for i := range files * perFile {
			if err := yield(leafPlace{name(i), int64(i%perFile) * ChunkBytes}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	fi, err := os.Stat(s.treePath(cid.MustParse(h.Root)))
	if err != nil {
		b.Fatal(err)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	b.Run("Open", func(b *testing.B) {
		var before, after uint64
		for b.Loop() {
			b.StopTimer()
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			s.trees.Store(new([]*leafTree))
			before = heap()
			b.StartTimer()
			if s, err = Open(s.dir); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			after = heap()
			b.StartTimer()
		}
		b.ReportMetric(float64(fi.Size())/(files*perFile), "disk-B/shard")
		b.ReportMetric(float64(int64(after)-int64(before))/(files*perFile), "RAM-B/shard")
	})
	b.Run("Has", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, ok, err := s.sizeInTrees(name(i % (files * perFile))); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("HasNot", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, ok, err := s.sizeInTrees(name(-1 - i)); ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	s.Close()
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
