package shard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// treeBytes writes a tree file and returns it.
func treeBytes(t testing.TB, h *treeHead, leaves ...leafPlace) []byte {
	t.Helper()
	path, err := disk{}.writeTreeFile(t.TempDir(), h, func(yield func(leafPlace) error) error {
		for _, l := range leaves {
			if err := yield(l); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func exampleTree() (*treeHead, []leafPlace) {
	h := &treeHead{Root: newCID(dagPB, digest{7}).String(), Dir: filepath.Join(os.TempDir(), "model"), Growing: true, Files: []treeFile{
		{Path: "a", Size: 0, Leaves: 1}, {Path: "sub/b", Size: ChunkBytes + 3, Leaves: 2, Stamp: stamp{Size: 1, ModTime: 2, Change: 3, Inode: 4}},
	}}
	return h, []leafPlace{{digest{1}, 0}, {digest{3}, 0}, {digest{2}, ChunkBytes}}
}

func TestTreeFiles(t *testing.T) {
	h, leaves := exampleTree()
	good := treeBytes(t, h, leaves...)
	x, err := readTreeFile(bytes.NewReader(good))
	if err != nil || len(x.keys) != 3 || !x.head.Growing || x.head.Files[1].Stamp.Inode != 4 || x.head.Files[1].first != 1 {
		t.Fatalf("readTreeFile = %+v, %v", x, err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := readTreeFile(bytes.NewReader(bad)); err == nil {
			t.Errorf("byte %d flipped: no error", i)
		}
		if _, err := readTreeFile(bytes.NewReader(good[:i])); err == nil {
			t.Errorf("cut off at %d: no error", i)
		}
	}
	if _, err := readTreeFile(bytes.NewReader(append(good, 0))); err == nil {
		t.Error("a byte too many: no error")
	}
	for name, change := range map[string]func(h *treeHead, leaves []leafPlace) []leafPlace{
		"root":            func(h *treeHead, l []leafPlace) []leafPlace { h.Root = "x"; return l },
		"folder":          func(h *treeHead, l []leafPlace) []leafPlace { h.Dir = "relative"; return l },
		"path out":        func(h *treeHead, l []leafPlace) []leafPlace { h.Files[0].Path = "../a"; return l },
		"path twice":      func(h *treeHead, l []leafPlace) []leafPlace { h.Files[0].Path = "a//b"; return l },
		"size":            func(h *treeHead, l []leafPlace) []leafPlace { h.Files[0].Size = -1; return l },
		"leaves":          func(h *treeHead, l []leafPlace) []leafPlace { h.Files[0].Leaves = 2; return l },
		"too few leaves":  func(_ *treeHead, l []leafPlace) []leafPlace { return l[:2] },
		"too many leaves": func(_ *treeHead, l []leafPlace) []leafPlace { return append(l, leafPlace{}) },
		"late begin":      func(_ *treeHead, l []leafPlace) []leafPlace { l[1].off = 1; return l },
		"no step":         func(_ *treeHead, l []leafPlace) []leafPlace { l[2].off = 0; return l },
		"beyond the end":  func(_ *treeHead, l []leafPlace) []leafPlace { l[2].off = ChunkBytes + 3; return l },
		"too large a leaf": func(h *treeHead, l []leafPlace) []leafPlace {
			h.Files[1].Size = 9 * ChunkBytes
			return l
		},
	} {
		h, leaves := exampleTree()
		if _, err := readTreeFile(bytes.NewReader(treeBytes(t, h, change(h, leaves)...))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzTreeFile(f *testing.F) {
	h, leaves := exampleTree()
	f.Add(treeBytes(f, h, leaves...))
	f.Add(treeBytes(f, &treeHead{Root: h.Root, Dir: h.Dir, Ours: true}))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := readTreeFile(bytes.NewReader(b))
		if err != nil {
			return
		}
		n := 0
		for _, file := range x.head.Files {
			if err := checkTreePath(file.Path); err != nil {
				t.Error(err)
			}
			n += file.Leaves
		}
		if n != len(x.keys) || x.start+int64(n)*leafRecord+sha256Len != int64(len(b)) {
			t.Errorf("%d leaves in %d bytes", n, len(b))
		}
	})
}

func FuzzJournal(f *testing.F) {
	root := newCID(dagPB, digest{7})
	f.Add(appendJournalRecord(appendJournalRecord(nil, root, 0), root, 2))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, b []byte) {
		tr := &leafTree{root: root, leaves: 3, left: 3, here: newBitset(3)}
		if err := tr.readJournal(bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		count := 0
		for i := range 3 {
			if tr.here.has(i) {
				count++
				if !bytes.Contains(b, appendJournalRecord(nil, root, i)) {
					t.Errorf("leaf %d is there without a record", i)
				}
			}
		}
		if count+tr.left != 3 {
			t.Errorf("%d there, %d missing", count, tr.left)
		}
	})
}

// growing is a store with a folder that grows: some leaves are in it.
func growing(t testing.TB) (s, from *Store, imp Import, dir string, leaves []cid.Cid) {
	t.Helper()
	from = testStore(t)
	imp = mustImport(t, from, tree(t, map[string]string{"a": "aaaa", "b": "bbbb", "c": "cccc", "d": "dddd", "e": "eeee"}))
	s = testStore(t)
	leaves = pulled(t, from, s, imp.Root)
	dir = filepath.Join(t.TempDir(), "model")
	if err := s.Grow(t.Context(), imp.Root, dir, FolderOptions{MaxBytes: imp.Bytes}); err != nil {
		t.Fatal(err)
	}
	for _, c := range leaves[:3] {
		give(t, from, s, c)
	}
	return s, from, imp, dir, leaves
}

// Wherever the small files of a store are cut off, or filled with zeros from
// there on, it opens, serves nothing wrong, and is completed by a pull.
func TestCutOffAnywhere(t *testing.T) {
	base, from, imp, dir, _ := growing(t)
	if err := base.Close(); err != nil {
		t.Fatal(err)
	}
	var small []string
	for _, f := range filesBelow(t, base.dir) {
		if strings.HasPrefix(f, "trees/") || strings.HasPrefix(f, "roots/") {
			small = append(small, f)
		}
	}
	if len(small) != 2 {
		t.Fatalf("small files: %v", small)
	}
	content := make(map[string][]byte)
	for _, name := range small {
		b, err := os.ReadFile(filepath.Join(base.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		content[name] = b
	}
	for name, whole := range content {
		for _, zeros := range []bool{false, true} {
			for at := range whole {
				for other, b := range content { // opening may have removed them
					if err := os.WriteFile(filepath.Join(base.dir, other), b, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				cut := whole[:at:at]
				if zeros {
					cut = append(cut, make([]byte, len(whole)-at)...)
				}
				if err := os.WriteFile(filepath.Join(base.dir, name), cut, 0o644); err != nil {
					t.Fatal(err)
				}
				openCopy(t, base.dir)
				if at%97 == 0 { // it syncs a lot
					copied := filepath.Join(t.TempDir(), "store")
					if err := os.CopyFS(copied, os.DirFS(base.dir)); err != nil {
						t.Fatal(err)
					}
					completeCopy(t, copied, from, imp, dir)
				}
				if t.Failed() {
					t.Fatalf("%s cut off at %d, zeros: %v", name, at, zeros)
				}
			}
		}
	}
}

// openCopy checks that a store opens and holds what it lists.
func openCopy(t testing.TB, store string) {
	t.Helper()
	s, err := Open(store)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, k := range keys(t, s) {
		if _, err := s.Get(t.Context(), cid.MustParse(k)); err != nil {
			t.Errorf("listed block: %v", err)
		}
	}
}

// completeCopy opens a store and pulls what is missing. The folder is taken away
// again, for the next one.
func completeCopy(t testing.TB, store string, from *Store, imp Import, dir string) {
	t.Helper()
	partial := partialPath(dir, imp.Root)
	saved := t.TempDir()
	if err := os.CopyFS(saved, os.DirFS(partial)); err != nil {
		t.Fatal(err)
	}
	s, err := Open(store)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	opts := FolderOptions{MaxBytes: imp.Bytes}
	if err := s.Grow(t.Context(), imp.Root, dir, opts); err != nil {
		t.Fatal(err)
	}
	missing, err := s.Verify(t.Context(), imp.Root)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range missing {
		give(t, from, s, c)
	}
	if _, err := s.Folder(t.Context(), imp.Root, dir, opts); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "c")); err != nil || string(b) != "cccc" {
		t.Errorf("c holds %q, %v", b, err)
	}
	if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(partial), os.CopyFS(partial, os.DirFS(saved))); err != nil {
		t.Fatal(err)
	}
}

// growthLoss is a disk on which leaves and journals that were not synced are
// lost when the power fails, in the worst way.
type growthLoss struct {
	powerLoss
	at      map[string]int64 // leaves that were written and not synced, by PATH@OFFSET
	journal string
	sizes   int64 // of the journal when it was synced last
	dir     string
	partial string            // what dir is called again if its new name is lost
	before  map[string][]byte // what files held whose name another file got
}

func (p *growthLoss) trace(op, path string) error {
	if err := p.powerLoss.trace(op, path); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch op {
	case "rename":
		if b, err := os.ReadFile(path); err == nil {
			p.before[path] = b
		}
	case "write leaf":
		p.at[path] = 0
	case "sync leaves":
		for at := range p.at {
			if strings.Contains(at, string(filepath.Separator)+path+"@") {
				delete(p.at, at)
			}
		}
	case "journal":
		p.journal = path
	case "sync journal":
		if fi, err := os.Stat(path); err == nil {
			p.sizes = fi.Size()
		}
	}
	return nil
}

func (p *growthLoss) lose(t *testing.T, rng *rand.Rand) {
	for at := range p.at {
		path, off, _ := strings.Cut(at, "@")
		var n int64
		fmt.Sscan(off, &n)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			continue // renamed since
		}
		_, err = f.WriteAt(make([]byte, 4), n)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if fi, err := os.Stat(p.journal); err == nil && fi.Size() > p.sizes {
		if err := os.Truncate(p.journal, p.sizes+rng.Int64N(fi.Size()-p.sizes+1)); err != nil {
			t.Fatal(err)
		}
	}
	if p.names[p.dir] && rng.IntN(2) == 0 {
		if err := os.Rename(p.dir, p.partial); err != nil {
			t.Fatal(err)
		}
	}
	delete(p.names, p.dir)
	for path, b := range p.before {
		if p.names[path] && rng.IntN(2) == 0 {
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		delete(p.names, path) // one of the two is there
	}
	p.fail(rng)
}

// Whichever step is the last one before the power fails while a folder grows:
// what Put reported as stored is there afterwards, and what becomes of the
// folder is right.
func TestPowerLossWhileGrowing(t *testing.T) {
	t.Run("Put", func(t *testing.T) { powerLossWhileGrowing(t, false) })
	t.Run("PutLater", func(t *testing.T) { powerLossWhileGrowing(t, true) })
}

func powerLossWhileGrowing(t *testing.T, later bool) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(3, 4))
	from := testStore(t)
	imp := mustImport(t, from, tree(t, map[string]string{"a": "aaaa", "b": "bbbb", "c": "cccc"}))
	opts := FolderOptions{MaxBytes: imp.Bytes}
	for step := 0; ; step++ {
		base := t.TempDir()
		loss := &growthLoss{powerLoss: powerLoss{left: -1, content: map[string]bool{}, names: map[string]bool{}}, at: map[string]int64{}, before: map[string][]byte{}}
		s, err := open(filepath.Join(base, "store"), disk{trace: loss.trace}, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		leaves := pulled(t, from, s, imp.Root)
		loss.left = step
		dir := filepath.Join(base, "model")
		loss.dir, loss.partial = dir, partialPath(dir, imp.Root)
		var stored, unsynced []cid.Cid
		err = s.Grow(ctx, imp.Root, dir, opts)
		for i := 0; err == nil && i < len(leaves); i++ {
			b, gerr := from.Get(ctx, leaves[i])
			if gerr != nil {
				t.Fatal(gerr)
			}
			if !later {
				if err = s.Put(ctx, b); err == nil {
					stored = append(stored, leaves[i])
				}
				continue
			}
			if err = s.PutLater(ctx, []blocks.Block{b}); err == nil {
				unsynced = append(unsynced, leaves[i])
				if _, gerr := s.Get(ctx, leaves[i]); gerr != nil {
					t.Errorf("step %d: a leaf is not there at once: %v", step, gerr)
				}
			}
			if err == nil && i == 1 {
				if err = s.Sync(ctx); err == nil {
					stored, unsynced = append(stored, unsynced...), nil
				}
			}
		}
		if err == nil {
			_, err = s.Folder(ctx, imp.Root, dir, opts)
		}
		if err != nil && !errors.Is(err, errPowerLoss) {
			t.Fatal(err)
		}
		survived := err == nil
		s.Close()
		loss.lose(t, rng)

		s, err = Open(filepath.Join(base, "store"))
		if err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		for _, c := range stored {
			if _, err := s.Get(ctx, c); err != nil {
				t.Errorf("step %d: what was stored: %v", step, err)
			}
		}
		if err := s.Grow(ctx, imp.Root, dir, opts); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		missing, _, _, err := s.Missing(ctx, imp.Root)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range missing {
			give(t, from, s, c)
		}
		if at, err := s.Folder(ctx, imp.Root, dir, opts); err != nil || at != dir {
			t.Fatalf("step %d: Folder = %s, %v", step, at, err)
		}
		for name, content := range map[string]string{"a": "aaaa", "b": "bbbb", "c": "cccc"} {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != content {
				t.Errorf("step %d: %s holds %q, %v", step, name, b, err)
			}
		}
		s.Close()
		if t.Failed() {
			t.Fatalf("steps before: %q", loss.steps)
		}
		if survived {
			if step < 15 && !later || step < 12 {
				t.Errorf("only %d steps were traced", step)
			}
			return
		}
	}
}

// Readers, writers, a user who changes files, restarts of nothing: what is read
// is right, always.
func TestTreesConcurrently(t *testing.T) {
	ctx := t.Context()
	s, from, imp, dir, leaves := growing(t)
	other := tree(t, map[string]string{"u": "uuuu", "a": "aaaa"})
	u := mustImportInPlace(t, s, other)
	all := append(leaves[:len(leaves):len(leaves)], rawBlock([]byte("uuuu")).Cid())
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(5, uint64(g)))
			for range 60 {
				c := all[rng.IntN(len(all))]
				switch rng.IntN(6) {
				case 0:
					if b, err := from.Get(ctx, c); err == nil {
						if err := s.Put(ctx, b); err != nil {
							t.Error(err)
						}
					}
				case 1:
					_ = os.WriteFile(filepath.Join(other, "u"), []byte("uuu"+string(rune('u'+rng.IntN(2)))), 0o644)
				case 2:
					if _, err := s.Folder(ctx, imp.Root, dir, FolderOptions{MaxBytes: imp.Bytes}); err != nil && !errors.Is(err, ErrIncomplete) {
						t.Error(err)
					}
				case 3:
					if _, _, _, err := s.Missing(ctx, u.Root); err != nil {
						t.Error(err)
					}
				default:
					b, err := s.Get(ctx, c)
					if err == nil && rawBlock(b.RawData()).Cid() != c {
						t.Error("Get returned other bytes")
					}
					if err != nil && !isNotFound(err) {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, c := range leaves {
		give(t, from, s, c)
	}
	if at, err := s.Folder(ctx, imp.Root, dir, FolderOptions{MaxBytes: imp.Bytes}); err != nil || at != dir {
		t.Errorf("Folder = %s, %v", at, err)
	}
	assertWhole(t, s, imp.Root)
}

// What an earlier process wrote to a folder that grows is not believed: it is
// hashed before the folder gets its name.
func TestDoubts(t *testing.T) {
	s, from, imp, dir, leaves := growing(t)
	partial := partialPath(dir, imp.Root)
	s = reopen(t, s)
	wrong := 0
	for _, name := range filesBelow(t, partial) {
		path := filepath.Join(partial, name)
		b, err := os.ReadFile(path)
		if err == nil && b[0] != 0 && wrong == 0 {
			wrong++
			err = os.WriteFile(path, []byte("evil"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range leaves[3:] {
		give(t, from, s, c)
	}
	opts := FolderOptions{MaxBytes: imp.Bytes}
	if at, err := s.Folder(t.Context(), imp.Root, dir, opts); !errors.Is(err, ErrIncomplete) {
		t.Fatalf("Folder = %s, %v, want ErrIncomplete", at, err)
	}
	missing, _, _, err := s.Missing(t.Context(), imp.Root)
	if err != nil || len(missing) != 1 {
		t.Fatalf("Missing = %v, %v", missing, err)
	}
	give(t, from, s, missing[0])
	if at, err := s.Folder(t.Context(), imp.Root, dir, opts); err != nil || at != dir {
		t.Errorf("Folder = %s, %v", at, err)
	}
	assertWhole(t, s, imp.Root)
}

// A record that was cut off does not make those unreadable that follow.
func TestJournalAfterCut(t *testing.T) {
	s, from, imp, _, leaves := growing(t)
	path := s.journalPath(imp.Root)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 3*journalRecord-3); err != nil {
		t.Fatal(err)
	}
	s, err := Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range leaves[3:] {
		give(t, from, s, c)
	}
	s = reopen(t, s)
	if missing, _, _, err := s.Missing(t.Context(), imp.Root); err != nil || len(missing) != 1 {
		t.Errorf("Missing = %v, %v, want the one that was cut off", missing, err)
	}
}
