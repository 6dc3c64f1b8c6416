package shard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// mixed is a folder of files of all kinds of sizes.
func mixed(t testing.TB) map[string]string {
	big := string(random(t, "mixed", 3*ChunkBytes+7))
	return map[string]string{
		"big": big, "copy": big, "empty": "", "sub/empty": "", "sub/deep/b": "b", "sub/": "", "sub/deep/": "", "none/": "", "zeros": strings.Repeat("\x00", 2*ChunkBytes+1),
	}
}

func mustImportInPlace(t testing.TB, s *Store, dir string) Import {
	t.Helper()
	imp, err := s.ImportDir(t.Context(), dir, ImportOptions{InPlace: true})
	if err != nil {
		t.Fatal(err)
	}
	return imp
}

func reopen(t testing.TB, s *Store) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := OpenOptions{Problem: s.onProblem}.Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// assertWhole checks that every block of root is there and right.
func assertWhole(t testing.TB, s *Store, root cid.Cid) {
	t.Helper()
	if missing, _, _, err := s.Missing(t.Context(), root); err != nil || len(missing) > 0 {
		t.Errorf("Missing = %v, %v", missing, err)
	}
	if missing, err := s.Verify(t.Context(), root); err != nil || len(missing) > 0 {
		t.Errorf("Verify = %v, %v", missing, err)
	}
}

// blockBytes is how much is in the store's own blocks.
func blockBytes(t testing.TB, s *Store) (sum int64) {
	t.Helper()
	if err := s.each(t.Context(), func(_ digest, n int64) error { sum += n; return nil }); err != nil {
		t.Fatal(err)
	}
	return sum
}

// A folder that is imported in place has the CID that a copy has, is served
// leaf by leaf, and is stored nowhere else.
func TestImportInPlace(t *testing.T) {
	files := mixed(t)
	dir := tree(t, files)
	s := testStore(t)
	var last int64
	imp, err := s.ImportDir(t.Context(), dir, ImportOptions{InPlace: true, Progress: func(done, total int64) {
		if done < last || done > total {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	}})
	if err != nil {
		t.Fatal(err)
	}
	copied := mustImport(t, testStore(t), dir)
	if imp != copied {
		t.Errorf("imported in place %+v, as a copy %+v", imp, copied)
	}
	if last != imp.Bytes {
		t.Errorf("last progress %d of %d", last, imp.Bytes)
	}
	for range 2 { // the second time after a restart
		assertWhole(t, s, imp.Root)
		if n := blockBytes(t, s); n > 8<<10 {
			t.Errorf("%d bytes of blocks beside the files", n)
		}
		if n, size, err := s.Usage(t.Context()); err != nil || size > 8<<10 {
			t.Errorf("Usage = %d, %d, %v", n, size, err)
		}
		out := filepath.Join(t.TempDir(), "out")
		if err := s.Materialize(t.Context(), imp.Root, out, MaterializeOptions{MaxBytes: imp.Bytes}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(files, readTree(t, out)); diff != "" {
			t.Errorf("folder (-want +got):\n%s", diff)
		}
		at, err := s.Folder(t.Context(), imp.Root, out+"2", FolderOptions{MaxBytes: imp.Bytes})
		if err != nil || at != dir {
			t.Errorf("Folder = %s, %v, want %s", at, err, dir)
		}
		s = reopen(t, s)
	}
	all := keys(t, s)
	for _, k := range []string{rawBlock(nil).Cid().String(), rawBlock([]byte("b")).Cid().String()} {
		if !slices.Contains(all, k) {
			t.Errorf("AllKeysChan has no %s", k)
		}
	}
}

// As the cache of Hugging Face has it: links out of the folder, followed only
// when the user says so, and noticed when they lead elsewhere.
func TestFollowLinks(t *testing.T) {
	ctx := t.Context()
	blobs := tree(t, map[string]string{"1": "config", "2": string(random(t, "linked", ChunkBytes+5)), "3": "other!"})
	dir := tree(t, map[string]string{"plain": "p"})
	link := func(target, name string) {
		t.Helper()
		_ = os.Remove(filepath.Join(dir, name))
		if err := os.Symlink(filepath.Join(blobs, target), filepath.Join(dir, name)); err != nil {
			t.Skip(err)
		}
	}
	link("1", "config.json")
	link("2", "weights")
	s := testStore(t)
	if _, err := s.ImportDir(ctx, dir, ImportOptions{InPlace: true}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "--follow-links") {
		t.Errorf("ImportDir without following = %v", err)
	}
	imp, err := s.ImportDir(ctx, dir, ImportOptions{InPlace: true, FollowLinks: true})
	if err != nil {
		t.Fatal(err)
	}
	want := mustImport(t, testStore(t), tree(t, map[string]string{
		"plain": "p", "config.json": "config", "weights": string(random(t, "linked", ChunkBytes+5)),
	}))
	if imp != want {
		t.Errorf("imported %+v, want %+v", imp, want)
	}
	s = reopen(t, s)
	assertWhole(t, s, imp.Root)
	opts := FolderOptions{MaxBytes: imp.Bytes}
	if at, err := s.Folder(ctx, imp.Root, "/nowhere", opts); err != nil || at != dir {
		t.Errorf("Folder = %s, %v", at, err)
	}
	link("3", "config.json")
	if _, err := s.Folder(ctx, imp.Root, "/nowhere", opts); !errors.As(err, new(*ChangedError)) {
		t.Errorf("Folder when a link leads elsewhere = %v", err)
	}
	assertMissing(t, s, rawBlock([]byte("config")).Cid())
	link("1", "config.json")
	if at, err := s.Folder(ctx, imp.Root, "/nowhere", opts); err != nil || at != dir {
		t.Errorf("Folder when it is put back = %s, %v", at, err)
	}
	for _, target := range []string{".", "none"} {
		link(target, "config.json")
		if imp, err := s.ImportDir(ctx, dir, ImportOptions{InPlace: true, FollowLinks: true}); err == nil {
			t.Errorf("ImportDir of a link to %s = %+v", target, imp)
		}
	}
}

// What changed after the import is never served, and named.
func TestChangedFiles(t *testing.T) {
	big := random(t, "changed", 3*ChunkBytes)
	middle := rawBlock(big[ChunkBytes : 2*ChunkBytes]).Cid()
	first := rawBlock(big[:ChunkBytes]).Cid()
	flipped := bytes.Clone(big)
	flipped[ChunkBytes+5] ^= 1
	for _, tt := range []struct {
		name   string
		change func(path string) error
		lost   []cid.Cid
	}{
		{"another byte", func(p string) error { return os.WriteFile(p, flipped, 0o644) }, []cid.Cid{middle}},
		{"another byte, the time put back", func(p string) error {
			fi, err := os.Stat(p)
			return errors.Join(err, os.WriteFile(p, flipped, 0o644), os.Chtimes(p, fi.ModTime(), fi.ModTime()))
		}, []cid.Cid{middle}},
		{"cut off", func(p string) error { return os.Truncate(p, ChunkBytes+100) }, []cid.Cid{middle}},
		{"grown", func(p string) error { return os.Truncate(p, 9*ChunkBytes) }, []cid.Cid{}},
		{"touched", func(p string) error { return os.Chtimes(p, time.Now(), time.Now().Add(time.Hour)) }, nil},
		{"removed", os.Remove, []cid.Cid{first, middle}},
		{"replaced", func(p string) error {
			return errors.Join(os.WriteFile(p+".new", flipped, 0o644), os.Rename(p+".new", p))
		}, []cid.Cid{middle}},
		{"a folder", func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }, []cid.Cid{first, middle}},
	} {
		for _, ask := range []string{"Get first", "Has first"} {
			t.Run(tt.name+"/"+ask, func(t *testing.T) {
				dir := tree(t, map[string]string{"big": string(big), "other": "o"})
				var problems []Problem
				s, err := OpenOptions{Problem: func(p Problem) { problems = append(problems, p) }}.Open(filepath.Join(t.TempDir(), "store"))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Close() })
				imp := mustImportInPlace(t, s, dir)
				if err := tt.change(filepath.Join(dir, "big")); err != nil {
					t.Fatal(err)
				}
				for _, c := range tt.lost {
					if ask == "Get first" {
						_, err := s.Get(t.Context(), c)
						if changed := new(ChangedError); !errors.As(err, &changed) || changed.Path != filepath.Join(dir, "big") || !ipld.IsNotFound(err) {
							t.Errorf("Get = %v, want a ChangedError with the file", err)
						}
					}
					if ask == "Has first" {
						if ok, err := s.Has(t.Context(), c); ok || err != nil {
							t.Errorf("Has = %v, %v, want false", ok, err)
						}
					}
					assertMissing(t, s, c)
				}
				if len(tt.lost) > 0 && len(problems) == 0 {
					t.Errorf("told of %v", problems)
				}
				for _, data := range [][]byte{big[:ChunkBytes], big[2*ChunkBytes:]} {
					c := rawBlock(data).Cid()
					if b, err := s.Get(t.Context(), c); err == nil && !bytes.Equal(b.RawData(), data) {
						t.Errorf("Get returned other bytes")
					} else if err != nil && len(tt.lost) == 0 {
						t.Errorf("Get = %v", err)
					}
				}
				at, err := s.Folder(t.Context(), imp.Root, filepath.Join(t.TempDir(), "out"), FolderOptions{MaxBytes: 1 << 30})
				if changed := new(ChangedError); tt.lost != nil && !errors.As(err, &changed) {
					t.Errorf("Folder = %s, %v, want a ChangedError", at, err)
				}
				if tt.lost == nil && (err != nil || at != dir) {
					t.Errorf("Folder = %s, %v", at, err)
				}
				// Put back, or imported again, all is well.
				if err := errors.Join(os.RemoveAll(filepath.Join(dir, "big")), os.WriteFile(filepath.Join(dir, "big"), big, 0o644)); err != nil {
					t.Fatal(err)
				}
				if at, err := s.Folder(t.Context(), imp.Root, "/nowhere", FolderOptions{MaxBytes: 1 << 30}); err != nil || at != dir {
					t.Errorf("Folder after it was put back = %s, %v", at, err)
				}
				assertWhole(t, s, imp.Root)
				assertWhole(t, reopen(t, s), imp.Root)
			})
		}
	}
}

// A peer's copy of a leaf takes the place of one that the user changed, and
// the user's file is left alone.
func TestRepairBesideUserFiles(t *testing.T) {
	s := testStore(t)
	dir := tree(t, map[string]string{"a": "aaaa", "b": "bbbb"})
	imp := mustImportInPlace(t, s, dir)
	path := filepath.Join(dir, "a")
	if err := os.WriteFile(path, []byte("aaaX"), 0o644); err != nil {
		t.Fatal(err)
	}
	a := rawBlock([]byte("aaaa"))
	if missing, err := s.Verify(t.Context(), imp.Root); err != nil || len(missing) != 1 || missing[0] != a.Cid() {
		t.Fatalf("Verify = %v, %v", missing, err)
	}
	if err := s.Put(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	assertWhole(t, s, imp.Root)
	if b, err := os.ReadFile(path); err != nil || string(b) != "aaaX" {
		t.Errorf("the user's file is now %q, %v", b, err)
	}
	out := filepath.Join(t.TempDir(), "out")
	if at, err := s.Folder(t.Context(), imp.Root, out, FolderOptions{MaxBytes: 100}); err != nil || at != out {
		t.Errorf("Folder = %s, %v, want a new one", at, err)
	}
	if diff := cmp.Diff(map[string]string{"a": "aaaa", "b": "bbbb"}, readTree(t, out)); diff != "" {
		t.Errorf("folder (-want +got):\n%s", diff)
	}
	assertWhole(t, s, imp.Root)
}

// pulled puts the inner nodes of root into a store, and returns its leaves.
func pulled(t testing.TB, from, to *Store, root cid.Cid) (leaves []cid.Cid) {
	t.Helper()
	all := make(map[cid.Cid]bool)
	if err := from.collect(t.Context(), root, all, 1); err != nil {
		t.Fatal(err)
	}
	for c := range all {
		if c.Prefix().Codec == rawCodec {
			leaves = append(leaves, c)
			continue
		}
		give(t, from, to, c)
	}
	slices.SortFunc(leaves, func(a, b cid.Cid) int { return strings.Compare(a.String(), b.String()) })
	return leaves
}

func give(t testing.TB, from, to *Store, c cid.Cid) {
	t.Helper()
	b, err := from.Get(t.Context(), c)
	if err == nil {
		err = to.Put(t.Context(), b)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What is pulled lies once on the disk, in the folder that is made of it,
// wherever the process is restarted.
func TestGrow(t *testing.T) {
	files := mixed(t)
	from := testStore(t)
	imp := mustImportInPlace(t, from, tree(t, files))
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) {
			ctx := t.Context()
			s := testStore(t)
			leaves := pulled(t, from, s, imp.Root)
			give(t, from, s, leaves[0]) // is here before the folder is
			dir := filepath.Join(t.TempDir(), "model")
			opts := FolderOptions{MaxBytes: imp.Bytes}
			for i, c := range leaves {
				if i == 0 || restart {
					if err := s.Grow(ctx, imp.Root, dir, opts); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := s.Folder(ctx, imp.Root, dir, opts); !errors.Is(err, ErrIncomplete) && i < len(leaves)-1 {
					t.Errorf("Folder before all is there = %v", err)
				}
				if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the folder has its name: %v", err)
				}
				missing, _, _, err := s.Missing(ctx, imp.Root)
				if want := len(leaves) - max(i, 1); err != nil || len(missing) != want {
					t.Errorf("Missing = %d, %v, want %d", len(missing), err, want)
				}
				give(t, from, s, c)
				if restart {
					s = reopen(t, s)
				}
				if b, err := s.Get(ctx, c); err != nil || b.Cid() != c {
					t.Errorf("Get of leaf %d = %v", i, err)
				}
			}
			assertWhole(t, s, imp.Root)
			at, err := s.Folder(ctx, imp.Root, dir, opts)
			if err != nil || at != dir {
				t.Fatalf("Folder = %s, %v", at, err)
			}
			if diff := cmp.Diff(files, readTree(t, dir)); diff != "" {
				t.Errorf("folder (-want +got):\n%s", diff)
			}
			if n := blockBytes(t, s); n > 8<<10 {
				t.Errorf("%d bytes of blocks beside the folder", n)
			}
			if left := filesBelow(t, s.path("trees")); len(left) != 1 {
				t.Errorf("trees: %v", left)
			}
			if entries, _ := os.ReadDir(filepath.Dir(dir)); len(entries) != 1 {
				t.Errorf("beside the folder: %v", entries)
			}
			_, size, err := s.Usage(ctx)
			if err != nil || size < imp.Bytes || size > imp.Bytes+8<<10 {
				t.Errorf("Usage = %d, %v, want about %d", size, err, imp.Bytes)
			}
			s = reopen(t, s)
			assertWhole(t, s, imp.Root)
			if err := s.Grow(ctx, imp.Root, dir, opts); err != nil {
				t.Errorf("Grow of what is complete = %v", err)
			}
			freed, err := s.Delete(ctx, imp.Root)
			if err != nil || freed < imp.Bytes {
				t.Errorf("Delete = %d, %v", freed, err)
			}
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the folder is still there: %v", err)
			}
			if got := keys(t, s); len(got) > 0 {
				t.Errorf("left: %v", got)
			}
		})
	}
}

// A folder of our own in which something went wrong is repaired in place.
func TestRepairOwnFolder(t *testing.T) {
	ctx := t.Context()
	files := mixed(t)
	from := testStore(t)
	imp := mustImportInPlace(t, from, tree(t, files))
	s := testStore(t)
	leaves := pulled(t, from, s, imp.Root)
	dir := filepath.Join(t.TempDir(), "model")
	opts := FolderOptions{MaxBytes: imp.Bytes}
	if err := s.Grow(ctx, imp.Root, dir, opts); err != nil {
		t.Fatal(err)
	}
	for _, c := range leaves {
		give(t, from, s, c)
	}
	if _, err := s.Folder(ctx, imp.Root, dir, opts); err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte(files["big"]), "and more"...)
	damaged[2*ChunkBytes] ^= 1
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "big"), damaged, 0o644), os.Remove(filepath.Join(dir, "sub/deep/b"))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Folder(ctx, imp.Root, dir, opts); !errors.As(err, new(*ChangedError)) {
		t.Errorf("Folder = %v, want a ChangedError", err)
	}
	missing, err := s.Verify(ctx, imp.Root)
	if err != nil || len(missing) != 1 { // the leaf of big is in "copy" as well
		t.Fatalf("Verify = %v, %v", missing, err)
	}
	for _, c := range missing {
		give(t, from, s, c)
	}
	for range 2 {
		if at, err := s.Folder(ctx, imp.Root, dir, opts); err != nil || at != dir {
			t.Fatalf("Folder = %s, %v", at, err)
		}
		if diff := cmp.Diff(files, readTree(t, dir)); diff != "" {
			t.Errorf("folder (-want +got):\n%s", diff)
		}
		s = reopen(t, s)
	}
}

// What was stored as blocks, and what an older version unpacked beside them,
// becomes one folder.
func TestFolderOfBlocks(t *testing.T) {
	ctx := t.Context()
	files := mixed(t)
	for _, unpacked := range []bool{false, true} {
		t.Run(fmt.Sprint("unpacked ", unpacked), func(t *testing.T) {
			s := testStore(t)
			imp := mustImport(t, s, tree(t, files))
			dir := filepath.Join(t.TempDir(), "model")
			if unpacked {
				if err := s.Materialize(ctx, imp.Root, dir, MaterializeOptions{MaxBytes: imp.Bytes}); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, "sub/empty"), []byte("not any more"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if at, err := s.Folder(ctx, imp.Root, dir, FolderOptions{MaxBytes: imp.Bytes}); err != nil || at != dir {
				t.Fatalf("Folder = %s, %v", at, err)
			}
			if diff := cmp.Diff(files, readTree(t, dir)); diff != "" {
				t.Errorf("folder (-want +got):\n%s", diff)
			}
			if n := blockBytes(t, s); n > 8<<10 {
				t.Errorf("%d bytes of blocks beside the folder", n)
			}
			assertWhole(t, reopen(t, s), imp.Root)
		})
	}
}

func TestFolderLimits(t *testing.T) {
	ctx := t.Context()
	s := testStore(t)
	imp := mustImport(t, s, tree(t, map[string]string{"a": "aaaa"}))
	dir := filepath.Join(t.TempDir(), "x")
	for _, opts := range []FolderOptions{{}, {MaxBytes: 3}} {
		if err := s.Grow(ctx, imp.Root, dir, opts); err == nil {
			t.Errorf("Grow(%+v) did not fail", opts)
		}
	}
	if err := s.Grow(ctx, newCID(dagPB, digest{1}), dir, FolderOptions{MaxBytes: 10}); !errors.Is(err, ErrIncomplete) {
		t.Errorf("Grow of nothing = %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(dir)); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Deleting a folder keeps what others need of it, and a user's folder is never
// touched.
func TestDeleteTrees(t *testing.T) {
	ctx := context.Background()
	s := testStore(t)
	dir := tree(t, map[string]string{"shared": "shared", "a": "a"})
	a := mustImportInPlace(t, s, dir)
	// b is pulled, and does not get what is here already.
	other := testStore(t)
	b := mustImport(t, other, tree(t, map[string]string{"shared": "shared", "b": "b"}))
	missing, _, _, _ := s.Missing(ctx, b.Root)
	for len(missing) > 0 {
		for _, c := range missing {
			give(t, other, s, c)
		}
		missing, _, _, _ = s.Missing(ctx, b.Root)
	}
	if _, err := s.Delete(ctx, a.Root, b.Root); err != nil {
		t.Fatal(err)
	}
	assertWhole(t, s, b.Root)
	assertMissing(t, s, rawBlock([]byte("a")).Cid())
	if diff := cmp.Diff(map[string]string{"shared": "shared", "a": "a"}, readTree(t, dir)); diff != "" {
		t.Errorf("the user's folder (-want +got):\n%s", diff)
	}
	assertWhole(t, reopen(t, s), b.Root)
}

// A folder that is given to the store moves, and is not copied.
func TestTakeFolder(t *testing.T) {
	ctx := t.Context()
	files := mixed(t)
	s := testStore(t)
	base := t.TempDir()
	give := func() Import {
		t.Helper()
		dir := filepath.Join(base, "temp")
		if err := os.CopyFS(dir, os.DirFS(tree(t, files))); err != nil {
			t.Fatal(err)
		}
		imp, err := s.ImportDir(ctx, dir, ImportOptions{TakeTo: func(root cid.Cid) string { return filepath.Join(base, root.String()) }})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the folder is still there: %v", err)
		}
		return imp
	}
	imp := give()
	give() // again
	want := filepath.Join(base, imp.Root.String())
	if at, err := s.Folder(ctx, imp.Root, "/nowhere", FolderOptions{MaxBytes: imp.Bytes}); err != nil || at != want {
		t.Errorf("Folder = %s, %v", at, err)
	}
	s = reopen(t, s)
	assertWhole(t, s, imp.Root)
	// In place later: the store has it, so nothing changes.
	mustImportInPlace(t, s, tree(t, files))
	if at, err := s.Folder(ctx, imp.Root, "/nowhere", FolderOptions{MaxBytes: imp.Bytes}); err != nil || at != want {
		t.Errorf("Folder after an import in place = %s, %v", at, err)
	}
	if _, err := s.Delete(ctx, imp.Root); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(base); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

// Many may ask for a folder at the same time.
func TestGrowTogether(t *testing.T) {
	ctx := t.Context()
	from := testStore(t)
	files := map[string]string{"a": "aaaa", "b": "bbbb", "c/d": "dddd", "c/": ""}
	imp := mustImport(t, from, tree(t, files))
	s := testStore(t)
	leaves := pulled(t, from, s, imp.Root)
	dir := filepath.Join(t.TempDir(), "model")
	opts := FolderOptions{MaxBytes: imp.Bytes}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := s.Grow(ctx, imp.Root, dir, opts); err != nil {
				t.Error(err)
			}
			for _, c := range leaves {
				b, err := from.Get(ctx, c)
				if err == nil {
					err = s.Put(ctx, b)
				}
				if err != nil {
					t.Error(err)
				}
			}
			if at, err := s.Folder(ctx, imp.Root, dir, opts); err != nil || at != dir {
				t.Errorf("Folder = %s, %v", at, err)
			}
		})
	}
	wg.Wait()
	if diff := cmp.Diff(files, readTree(t, dir)); diff != "" {
		t.Errorf("folder (-want +got):\n%s", diff)
	}
	assertWhole(t, reopen(t, s), imp.Root)
}
