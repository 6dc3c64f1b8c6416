package shard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"
)

func random(t testing.TB, seed string, n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(kuboRandom(t, seed), b); err != nil {
		t.Fatal(err)
	}
	return b
}

// putNode stores a hand-made node and returns a link to it.
func putNode(t testing.TB, s *Store, n *node) Link {
	t.Helper()
	b := pbBlock(n.encode())
	if err := s.Put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	size := uint64(len(b.RawData()))
	for _, l := range n.links {
		size += l.Size
	}
	return Link{CID: b.Cid(), Size: size}
}

func putLeaf(t testing.TB, s *Store, data string) Link {
	t.Helper()
	b := rawBlock([]byte(data))
	if err := s.Put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return Link{CID: b.Cid(), Size: uint64(len(data))}
}

func named(name string, l Link) Link { l.Name = name; return l }

func TestBytesRoundTrip(t *testing.T) {
	s := testStore(t)
	for _, size := range []int{0, 1, 1000, ChunkBytes - 1, ChunkBytes, ChunkBytes + 1, 3*ChunkBytes + 5} {
		data := random(t, "bytes", size)
		c, err := s.PutBytes(t.Context(), data)
		if err != nil {
			t.Fatal(err)
		}
		if only, err := BytesCID(data); err != nil || only != c {
			t.Errorf("BytesCID = %v, %v, want %v", only, err, c)
		}
		got, err := s.ReadBytes(t.Context(), c, int64(size))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: ReadBytes gives %d bytes, %v", size, len(got), err)
		}
		if size > 0 {
			if _, err := s.ReadBytes(t.Context(), c, int64(size-1)); !errors.Is(err, ErrTooLarge) {
				t.Errorf("%d bytes: ReadBytes with less = %v, want ErrTooLarge", size, err)
			}
		}
		f, err := s.OpenFile(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if size > 1000 {
			continue // what follows reads single bytes
		}
		if err := iotest.TestReader(io.NewSectionReader(f, 0, f.Size()), data); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestFileReadAt(t *testing.T) {
	s := testStore(t)
	// Leaves of odd sizes below nodes of odd sizes: not what we write, but valid.
	data := random(t, "odd", 5000)
	var level []Link
	for rest := data; len(rest) > 0; {
		n := min(len(rest), 1+len(rest)%37)
		level = append(level, putLeaf(t, s, string(rest[:n])))
		rest = rest[n:]
	}
	content := func(l Link) uint64 {
		n, _, err := s.node(t.Context(), l.CID)
		if err != nil {
			t.Fatal(err)
		}
		return n.fileSize
	}
	for len(level) > 1 {
		var above []Link
		for i := 0; i < len(level); i += 3 {
			n := &node{kind: kindFile, links: level[i:min(i+3, len(level))]}
			for _, l := range n.links {
				n.blockSizes = append(n.blockSizes, content(l))
				n.fileSize += content(l)
			}
			above = append(above, putNode(t, s, n))
		}
		level = above
	}
	f, err := s.OpenFile(t.Context(), level[0].CID)
	if err != nil {
		t.Fatal(err)
	}
	if f.Size() != int64(len(data)) {
		t.Fatalf("size %d", f.Size())
	}
	want := bytes.NewReader(data)
	rapid.Check(t, func(t *rapid.T) {
		off := rapid.Int64Range(0, 5100).Draw(t, "off")
		p, q := make([]byte, rapid.IntRange(0, 600).Draw(t, "n")), make([]byte, 600)
		n, err := f.ReadAt(p, off)
		m, wantErr := want.ReadAt(q[:len(p)], off)
		if n != m || !bytes.Equal(p[:n], q[:m]) || (len(p) > 0 && !errors.Is(err, wantErr)) {
			t.Fatalf("ReadAt(%d, %d) = %d, %v, want %d, %v", len(p), off, n, err, m, wantErr)
		}
	})
	if _, err := f.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("ReadAt(-1) = nil")
	}
	if got, err := s.ReadBytes(t.Context(), level[0].CID, 5000); err != nil || !bytes.Equal(got, data) {
		t.Errorf("ReadBytes: %v", err)
	}
}

func TestMissing(t *testing.T) {
	ctx := t.Context()
	full := testStore(t)
	dir := tree(t, map[string]string{
		"a/big": string(random(t, "big", 3*ChunkBytes+1)), "a/small": "small", "b/same": "small", "c/": "",
	})
	imp := mustImport(t, full, dir)
	missing, have, total, err := full.Missing(ctx, imp.Root)
	if err != nil || len(missing) > 0 || have != total {
		t.Fatalf("Missing of all = %v, %d of %d, %v", missing, have, total, err)
	}
	count, bytesOnDisk, err := full.Usage(ctx)
	if err != nil || count != imp.Blocks || bytesOnDisk != have {
		t.Errorf("%d blocks of %d bytes on disk, import says %d, Missing %d", count, bytesOnDisk, imp.Blocks, have)
	}
	// Pull it block by block in random order: what is there grows, nothing is
	// asked for twice, and the end is the whole.
	part := testStore(t)
	rng := rand.New(rand.NewPCG(3, 3))
	asked := make(map[cid.Cid]bool)
	lastHave, lastTotal := int64(-1), int64(0)
	for {
		missing, have, total, err := part.Missing(ctx, imp.Root)
		if err != nil {
			t.Fatal(err)
		}
		if have <= lastHave {
			t.Fatalf("have %d after %d", have, lastHave)
		}
		if lastTotal > 0 && total > lastTotal {
			t.Fatalf("total %d after %d", total, lastTotal)
		}
		lastHave, lastTotal = have, total
		if len(missing) == 0 {
			break
		}
		c := missing[rng.IntN(len(missing))]
		if asked[c] {
			t.Fatalf("%s is asked for again", c)
		}
		asked[c] = true
		b, err := full.Get(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		if err := part.Put(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	if len(asked) != imp.Blocks || lastHave != lastTotal || lastHave != have {
		t.Errorf("asked for %d blocks of %d, have %d of %d bytes, want %d", len(asked), imp.Blocks, lastHave, lastTotal, have)
	}
}

func TestMissingOfNothing(t *testing.T) {
	c := newCID(dagPB, digest{9})
	missing, have, total, err := testStore(t).Missing(t.Context(), c)
	if err != nil || !slices.Equal(missing, []cid.Cid{c}) || have != 0 || total != 0 {
		t.Errorf("Missing = %v, %d, %d, %v", missing, have, total, err)
	}
	if _, _, _, err := testStore(t).Missing(t.Context(), cid.Undef); !errors.Is(err, ErrInvalid) {
		t.Errorf("Missing of no CID = %v", err)
	}
}

// DAGs whose blocks are each well-formed, and that lie about each other.
func TestLyingDAGs(t *testing.T) {
	s := testStore(t)
	leaf := putLeaf(t, s, "leaf")
	file := putNode(t, s, fileNode(leaf))
	dir := putNode(t, s, dirNode(named("a", leaf)))
	with := func(l Link, size uint64) Link { l.Size = size; return l }
	deep := leaf
	for range maxDepth {
		deep = putNode(t, s, dirNode(named("d", deep)))
	}
	part := func(l Link, content uint64) *node {
		return &node{kind: kindFile, links: []Link{l}, blockSizes: []uint64{content}, fileSize: content}
	}
	for _, tt := range []struct {
		name string
		root cid.Cid
	}{
		{"leaf claimed larger", putNode(t, s, dirNode(named("a", with(leaf, 5)))).CID},
		{"leaf claimed smaller", putNode(t, s, dirNode(named("a", with(leaf, 3)))).CID},
		{"node claimed larger", putNode(t, s, dirNode(named("a", with(dir, dir.Size+1)))).CID},
		{"one leaf, two sizes", putNode(t, s, dirNode(named("a", leaf), named("b", with(leaf, 5)))).CID},
		{"one node, two sizes", putNode(t, s, dirNode(named("a", dir), named("b", with(dir, dir.Size+1)))).CID},
		{"directory in a file", putNode(t, s, part(dir, 4)).CID},
		{"content claimed larger", putNode(t, s, part(file, 5)).CID},
		{"content claimed smaller", putNode(t, s, part(file, 3)).CID},
		{"too deep", putNode(t, s, dirNode(named("d", deep))).CID},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, _, err := s.Missing(t.Context(), tt.root); !errors.Is(err, ErrInvalid) {
				t.Errorf("Missing = %v, want ErrInvalid", err)
			}
			if _, err := s.Verify(t.Context(), tt.root); !errors.Is(err, ErrInvalid) {
				t.Errorf("Verify = %v, want ErrInvalid", err)
			}
			out := filepath.Join(t.TempDir(), "out")
			if err := s.Materialize(t.Context(), tt.root, out, MaterializeOptions{MaxBytes: 1 << 20}); !errors.Is(err, ErrInvalid) {
				t.Errorf("Materialize = %v, want ErrInvalid", err)
			}
			if _, err := s.ReadBytes(t.Context(), tt.root, 1<<20); !errors.Is(err, ErrInvalid) {
				t.Errorf("ReadBytes = %v, want ErrInvalid", err)
			}
		})
	}
	if _, _, _, err := s.Missing(t.Context(), deep.CID); err == nil {
		t.Errorf("a leaf at depth %d is let through", maxDepth+1)
	}
}

// A few blocks that link to each other often stand for a petabyte. Walking
// must take no longer than the blocks are many, and writing must be refused.
func TestRepeatedLinks(t *testing.T) {
	s := testStore(t)
	l := putLeaf(t, s, strings.Repeat("x", 1000))
	content := uint64(1000)
	for range 3 {
		n := &node{kind: kindFile}
		for range 2000 {
			n.links = append(n.links, l)
			n.blockSizes = append(n.blockSizes, content)
			n.fileSize += content
		}
		l, content = putNode(t, s, n), n.fileSize
	}
	file := l
	var links []Link
	for i := range 100 {
		links = append(links, named(fmt.Sprintf("%03d", i), file))
	}
	root := putNode(t, s, dirNode(links...)).CID
	missing, have, total, err := s.Missing(t.Context(), root)
	if err != nil || len(missing) > 0 || have != total || have > 1<<20 {
		t.Errorf("Missing = %v, %d of %d, %v", missing, have, total, err)
	}
	err = s.Materialize(t.Context(), root, filepath.Join(t.TempDir(), "out"), MaterializeOptions{MaxBytes: 1 << 40})
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("Materialize = %v, want ErrTooLarge", err)
	}
	if _, err := s.ReadBytes(t.Context(), file.CID, 1<<30); !errors.Is(err, ErrTooLarge) {
		t.Errorf("ReadBytes = %v, want ErrTooLarge", err)
	}
	// Folders repeat too, without a byte of content.
	l = putNode(t, s, dirNode())
	for range 4 {
		links = nil
		for i := range 200 {
			links = append(links, named(fmt.Sprintf("%03d", i), l))
		}
		l = putNode(t, s, dirNode(links...))
	}
	err = s.Materialize(t.Context(), l.CID, filepath.Join(t.TempDir(), "out"), MaterializeOptions{MaxBytes: 1})
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("Materialize of folders = %v, want ErrTooLarge", err)
	}
}

func TestVerify(t *testing.T) {
	ctx := t.Context()
	s := testStore(t)
	imp := mustImport(t, s, tree(t, map[string]string{"a": string(random(t, "a", 2*ChunkBytes+9)), "b": "b"}))
	if bad, err := s.Verify(ctx, imp.Root); err != nil || len(bad) > 0 {
		t.Fatalf("Verify = %v, %v", bad, err)
	}
	// Same size, other bytes: nobody sees it without reading.
	d, _ := digestOf(rawBlock([]byte("b")).Cid())
	if err := os.WriteFile(s.blockPath(d), []byte("c"), 0o644); err != nil {
		t.Fatal(err)
	}
	if missing, _, _, err := s.Missing(ctx, imp.Root); err != nil || len(missing) > 0 {
		t.Errorf("Missing = %v, %v", missing, err)
	}
	want := []cid.Cid{rawBlock([]byte("b")).Cid()}
	if bad, err := s.Verify(ctx, imp.Root); err != nil || !slices.Equal(bad, want) {
		t.Errorf("Verify = %v, %v, want %v", bad, err, want)
	}
	if missing, have, total, err := s.Missing(ctx, imp.Root); err != nil || !slices.Equal(missing, want) || have+1 != total {
		t.Errorf("Missing = %v, %d of %d, %v", missing, have, total, err)
	}
}

func TestDelete(t *testing.T) {
	ctx := t.Context()
	s := testStore(t)
	shared := string(random(t, "shared", ChunkBytes+1))
	one := mustImport(t, s, tree(t, map[string]string{"shared": shared, "one": "one", "sub/x": "x"}))
	two := mustImport(t, s, tree(t, map[string]string{"shared": shared, "two": "two"}))
	_, before, err := s.Usage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	freed, err := s.Delete(ctx, one.Root, two.Root)
	if err != nil || freed <= 0 {
		t.Fatalf("Delete = %d, %v", freed, err)
	}
	if _, after, err := s.Usage(ctx); err != nil || after != before-freed {
		t.Errorf("%d bytes after freeing %d of %d, %v", after, freed, before, err)
	}
	if missing, _, _, err := s.Missing(ctx, two.Root); err != nil || len(missing) > 0 {
		t.Errorf("Delete took %v of another DAG, %v", missing, err)
	}
	assertMissing(t, s, rawBlock([]byte("one")).Cid())
	assertMissing(t, s, rawBlock([]byte("x")).Cid())
	assertMissing(t, s, one.Root)
	if _, err := s.Delete(ctx, two.Root); err != nil {
		t.Fatal(err)
	}
	if left := keys(t, s); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if freed, err := s.Delete(ctx, two.Root); err != nil || freed != 0 {
		t.Errorf("Delete of what is gone = %d, %v", freed, err)
	}
}

// One hash may be a leaf of the DAG that is kept and a node of it as well:
// all below the node must stay.
func TestDeleteKeepsNodesThatAreAlsoLeaves(t *testing.T) {
	ctx := t.Context()
	s := testStore(t)
	x := putLeaf(t, s, "x")
	sub := dirNode(named("x", x))
	node := putNode(t, s, sub)
	asLeaf := Link{CID: cid.NewCidV1(rawCodec, node.CID.Hash()), Size: uint64(len(sub.encode()))}
	keep := putNode(t, s, dirNode(named("a", asLeaf), named("b", node)))
	gone := putNode(t, s, dirNode(named("x", x)))
	gone2 := putNode(t, s, dirNode(named("y", x)))
	for _, c := range []cid.Cid{gone.CID, gone2.CID} {
		if _, err := s.Delete(ctx, c, keep.CID); err != nil {
			t.Fatal(err)
		}
	}
	if missing, _, _, err := s.Missing(ctx, keep.CID); err != nil || len(missing) > 0 {
		t.Errorf("Missing = %v, %v", missing, err)
	}
}

// Delete must not take blocks that an import under way relies on.
func TestDeleteWhileImporting(t *testing.T) {
	ctx := t.Context()
	s := testStore(t)
	old := mustImport(t, s, tree(t, map[string]string{"a": "shared", "z": string(random(t, "z", 2*ChunkBytes))}))
	deleted := false
	dir := tree(t, map[string]string{"a": "shared", "b": string(random(t, "b", 5*ChunkBytes)), "z": string(random(t, "z", 2*ChunkBytes))})
	imp, err := s.ImportDir(ctx, dir, ImportOptions{Progress: func(done, total int64) {
		if !deleted && done > 2*ChunkBytes { // "a" was found in the store by now
			deleted = true
			if _, err := s.Delete(ctx, old.Root); err != nil {
				t.Error(err)
			}
		}
	}})
	if err != nil || !deleted {
		t.Fatal(deleted, err)
	}
	if missing, _, _, err := s.Missing(ctx, imp.Root); err != nil || len(missing) > 0 {
		t.Errorf("Missing = %v, %v", missing, err)
	}
	if len(s.held) > 0 {
		t.Errorf("%d blocks are held after the import", len(s.held))
	}
}

func TestImportRefuses(t *testing.T) {
	s := testStore(t)
	for _, tt := range []struct {
		name string
		make func(dir string) error
		want string
	}{
		{"symbolic link", func(d string) error { return os.Symlink("/etc/hostname", filepath.Join(d, "link")) }, "symbolic link"},
		{"link to a folder", func(d string) error { return os.Symlink("/etc", filepath.Join(d, "link")) }, "--follow-links"},
		{"name of a device", func(d string) error { return os.WriteFile(filepath.Join(d, "nul.txt"), nil, 0o644) }, "device"},
		{"names that fold", func(d string) error {
			return errors.Join(os.WriteFile(filepath.Join(d, "A"), nil, 0o644), os.WriteFile(filepath.Join(d, "a"), nil, 0o644))
		}, "ignore case"},
		{"too deep", func(d string) error { return os.MkdirAll(filepath.Join(d, strings.Repeat("d/", maxDepth)), 0o755) }, "in each other"},
		{"long path", func(d string) error {
			return os.MkdirAll(filepath.Join(d, strings.Repeat(strings.Repeat("d", 200)+"/", 6)), 0o755)
		}, "path of"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := tree(t, map[string]string{"file": "x"})
			if err := tt.make(dir); err != nil {
				t.Skip(err)
			}
			_, err := s.ImportDir(t.Context(), dir, ImportOptions{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ImportDir = %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := s.ImportDir(t.Context(), filepath.Join(t.TempDir(), "none"), ImportOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ImportDir of nothing = %v", err)
	}
	if got := keys(t, s); len(got) > 0 {
		t.Errorf("stored: %v", got)
	}
}

// What import makes, the walk accepts: the deepest folder that is let
// through, and one node more.
func TestImportDepth(t *testing.T) {
	s := testStore(t)
	deep := strings.Repeat("d/", maxDepth-2)
	imp := mustImport(t, s, tree(t, map[string]string{deep + "leaf": "x"}))
	if missing, _, _, err := s.Missing(t.Context(), imp.Root); err != nil || len(missing) > 0 {
		t.Errorf("Missing = %v, %v", missing, err)
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := s.Materialize(t.Context(), imp.Root, out, MaterializeOptions{MaxBytes: 1}); err != nil {
		t.Error(err)
	}
	for _, files := range []map[string]string{{deep + "two": string(make([]byte, ChunkBytes+1))}, {deep + "d/leaf": "x"}} {
		if _, err := s.ImportDir(t.Context(), tree(t, files), ImportOptions{}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("ImportDir = %v, want ErrTooLarge", err)
		}
	}
}

func TestImportSeesChanges(t *testing.T) {
	dir := tree(t, map[string]string{"a": string(random(t, "a", 3*ChunkBytes)), "b": "b"})
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	past := time.Unix(1_000_000_000, 0)
	for _, change := range []func() error{
		func() error { return os.WriteFile(b, []byte("c"), 0o644) },                                // another time
		func() error { return errors.Join(os.Truncate(a, ChunkBytes), os.Chtimes(a, past, past)) }, // another size
	} {
		if err := errors.Join(os.Truncate(a, 3*ChunkBytes), os.Chtimes(a, past, past), os.Chtimes(b, past, past)); err != nil {
			t.Fatal(err)
		}
		done := false
		_, err := testStore(t).ImportDir(t.Context(), dir, ImportOptions{Progress: func(int64, int64) {
			if !done {
				done = true
				if err := change(); err != nil {
					t.Error(err)
				}
			}
		}})
		if !errors.Is(err, errChanged) {
			t.Errorf("ImportDir = %v, want errChanged", err)
		}
	}
}

func TestImportProgressAndCancel(t *testing.T) {
	dir := tree(t, map[string]string{"a": string(random(t, "a", 3*ChunkBytes+7)), "b": "b", "c": ""})
	var last int64
	imp, err := testStore(t).ImportDir(t.Context(), dir, ImportOptions{Progress: func(done, total int64) {
		if done < last || total != 3*ChunkBytes+8 {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	}})
	if err != nil || last != imp.Bytes || imp.Files != 3 {
		t.Errorf("import %+v, %v, last progress %d", imp, err, last)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := testStore(t)
	_, err = s.ImportDir(ctx, dir, ImportOptions{Progress: func(int64, int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled import = %v", err)
	}
	if left := filesBelow(t, filepath.Join(s.dir, "tmp")); len(left) > 0 || len(s.held) > 0 {
		t.Errorf("left in tmp: %v, held: %d", left, len(s.held))
	}
}

// readTree is the inverse of tree.
func readTree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		rel = filepath.ToSlash(rel)
		if e.IsDir() {
			out[rel+"/"] = ""
			return nil
		}
		b, err := os.ReadFile(p)
		out[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestMaterialize(t *testing.T) {
	ctx := t.Context()
	files := map[string]string{
		"a": string(random(t, "a", 2*ChunkBytes+7)), "empty": "", "sub/": "", "sub/deep/": "", "sub/deep/b": "b", "none/": "",
	}
	s := testStore(t)
	imp := mustImport(t, s, tree(t, files))
	opts := MaterializeOptions{MaxBytes: imp.Bytes}
	out := filepath.Join(t.TempDir(), "out")
	var last int64
	opts.Progress = func(done, total int64) {
		if done < last || total != imp.Bytes {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	}
	if err := s.Materialize(ctx, imp.Root, out, opts); err != nil {
		t.Fatal(err)
	}
	opts.Progress = nil
	if diff := cmp.Diff(files, readTree(t, out)); diff != "" {
		t.Errorf("folder (-want +got):\n%s", diff)
	}
	if last != imp.Bytes {
		t.Errorf("last progress %d of %d", last, imp.Bytes)
	}
	if again := mustImport(t, s, out); again.Root != imp.Root {
		t.Errorf("imported again: %s, want %s", again.Root, imp.Root)
	}
	if err := s.Materialize(ctx, imp.Root, out, opts); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Materialize over a folder = %v, want ErrExist", err)
	}
	empty := t.TempDir()
	if err := s.Materialize(ctx, imp.Root, empty, opts); err != nil {
		t.Errorf("Materialize to an empty folder = %v", err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(out)); len(entries) != 1 {
		t.Errorf("beside the folder: %v", entries)
	}
	opts.MaxBytes--
	if err := s.Materialize(ctx, imp.Root, out+"2", opts); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Materialize with less bytes = %v, want ErrTooLarge", err)
	}
	if err := s.Materialize(ctx, rawBlock([]byte("b")).Cid(), out+"3", MaterializeOptions{MaxBytes: 9}); !errors.Is(err, ErrInvalid) {
		t.Errorf("Materialize of a file = %v, want ErrInvalid", err)
	}
}

func TestMaterializeIncomplete(t *testing.T) {
	ctx := t.Context()
	s := testStore(t)
	imp := mustImport(t, s, tree(t, map[string]string{"a": "aaaa", "b": "bbbb"}))
	b := rawBlock([]byte("bbbb"))
	if err := s.DeleteBlock(ctx, b.Cid()); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	opts := MaterializeOptions{MaxBytes: 100}
	if err := s.Materialize(ctx, imp.Root, out, opts); !errors.Is(err, ErrIncomplete) {
		t.Errorf("Materialize without a block = %v, want ErrIncomplete", err)
	}
	if begun, _ := os.ReadDir(filepath.Dir(out)); len(begun) > 0 {
		t.Errorf("writing began without all blocks: %v", begun)
	}
	// Damaged, and noticed only when it is read.
	if err := s.Put(ctx, b); err != nil {
		t.Fatal(err)
	}
	d, _ := digestOf(b.Cid())
	if err := os.WriteFile(s.blockPath(d), []byte("bbbX"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Materialize(ctx, imp.Root, out, opts); !errors.Is(err, ErrIncomplete) {
		t.Errorf("Materialize with a damaged block = %v, want ErrIncomplete", err)
	}
	if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an incomplete folder is there: %v", err)
	}
	if err := s.Put(ctx, b); err != nil {
		t.Fatal(err)
	}
	if err := s.Materialize(ctx, imp.Root, out, opts); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"a": "aaaa", "b": "bbbb"}, readTree(t, out)); diff != "" {
		t.Errorf("folder (-want +got):\n%s", diff)
	}
}

// A folder that was half written is continued: what is right stays, what is
// wrong, foreign or a trap is replaced.
func TestMaterializeResumes(t *testing.T) {
	ctx := t.Context()
	s := testStore(t)
	big := random(t, "big", 3*ChunkBytes+7)
	files := map[string]string{"big": string(big), "sub/": "", "sub/b": "b", "was-a-folder": "x", "was-a-link": "y", "longer": "l"}
	imp := mustImport(t, s, tree(t, files))
	out := filepath.Join(t.TempDir(), "out")
	partial := fmt.Sprintf("%s.%s.partial", out, imp.Root.String()[len(imp.Root.String())-8:])
	half := bytes.Clone(big[:2*ChunkBytes+100])
	half[ChunkBytes+5] ^= 1 // the second leaf is wrong, the third is not whole
	for name, content := range map[string]string{
		"big": string(half), "foreign/file": "f", "sub/foreign": "f", "was-a-folder/x": "f", ".hidden": "h", "longer": "longer",
	} {
		p := filepath.Join(partial, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(partial, "was-a-link")); err != nil && runtime.GOOS != "windows" {
		t.Fatal(err)
	}
	// The first leaf is right on disk already, so its block is not needed: a
	// damaged one must not be noticed.
	d, _ := digestOf(rawBlock(big[:ChunkBytes]).Cid())
	if err := os.WriteFile(s.blockPath(d), make([]byte, ChunkBytes), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Materialize(ctx, imp.Root, out, MaterializeOptions{MaxBytes: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(files, readTree(t, out)); diff != "" {
		t.Errorf("folder (-want +got):\n%s", diff)
	}
	if b, _ := os.ReadFile(victim); string(b) != "untouched" {
		t.Errorf("a file outside became %q", b)
	}
}

func TestReadDirAndLookup(t *testing.T) {
	ctx := t.Context()
	s := testStore(t)
	big := strings.Repeat("b", ChunkBytes+1)
	imp := mustImport(t, s, tree(t, map[string]string{"big": big, "sub/x": "xx", "small": "s"}))
	entries, err := s.ReadDir(ctx, imp.Root)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, fmt.Sprint(e.Name, " ", e.Dir, " ", e.Size))
	}
	if diff := cmp.Diff([]string{"big false 1048577", "small false 1", "sub true 0"}, got); diff != "" {
		t.Errorf("ReadDir (-want +got):\n%s", diff)
	}
	e, err := s.Lookup(ctx, imp.Root, "sub/x")
	if err != nil || e.Size != 2 || e.Dir || e.CID != rawBlock([]byte("xx")).Cid() {
		t.Errorf("Lookup(sub/x) = %+v, %v", e, err)
	}
	if err := s.DeleteBlock(ctx, rawBlock([]byte("s")).Cid()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{ // "small" need not be there to be no folder
		"none": fs.ErrNotExist, "sub/none": fs.ErrNotExist, "small/x": fs.ErrNotExist, "../x": fs.ErrInvalid, "/small": fs.ErrInvalid, "": fs.ErrInvalid,
	} {
		if _, err := s.Lookup(ctx, imp.Root, name); !errors.Is(err, want) {
			t.Errorf("Lookup(%q) = %v, want %v", name, err, want)
		}
	}
	putLeaf(t, s, "s")
	if _, err := s.ReadDir(ctx, rawBlock([]byte("s")).Cid()); !errors.Is(err, ErrInvalid) {
		t.Errorf("ReadDir of a file = %v", err)
	}
	if _, err := s.ReadDir(ctx, newCID(dagPB, digest{1})); !errors.Is(err, ErrIncomplete) {
		t.Errorf("ReadDir of nothing = %v", err)
	}
	if err := fstest.TestFS(s.FS(ctx, imp.Root), "big", "small", "sub/x"); err != nil {
		t.Error(err)
	}
}

// Any folder of valid names comes back as it was, from any store that got its
// blocks.
func TestImportMaterializeLaw(t *testing.T) {
	s := testStore(t)
	base := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		dir := filepath.Join(base, fmt.Sprint("in", n))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			rt.Fatal(err)
		}
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z][a-z0-9_-]{0,8}`), 0, 6, func(s string) string { return s }).Draw(rt, "names")
		for i, name := range names {
			p := filepath.Join(dir, name)
			if isDevice(name) {
				continue
			}
			if i%3 == 2 {
				p = filepath.Join(dir, name, "inside")
				if err := os.Mkdir(filepath.Dir(p), 0o755); err != nil {
					rt.Fatal(err)
				}
			}
			size := rapid.SampledFrom([]int{0, 1, 1, 100, 100, 100, ChunkBytes + 1}).Draw(rt, "size")
			if err := os.WriteFile(p, bytes.Repeat([]byte(name[:1]), size), 0o644); err != nil {
				rt.Fatal(err)
			}
		}
		imp, err := s.ImportDir(context.Background(), dir, ImportOptions{})
		if err != nil {
			rt.Fatal(err)
		}
		out := filepath.Join(base, fmt.Sprint("out", n))
		if err := s.Materialize(context.Background(), imp.Root, out, MaterializeOptions{MaxBytes: 1 << 30}); err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(readTree(t, dir), readTree(t, out)); diff != "" {
			rt.Errorf("folder (-want +got):\n%s", diff)
		}
		if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(out)); err != nil {
			rt.Fatal(err)
		}
	})
}
