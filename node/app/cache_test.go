package app

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
)

// folderSize adds up what is in a folder.
func folderSize(t *testing.T, dir string) int64 {
	t.Helper()
	n, err := folderBytes(dir)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A model that is imported in place takes no room, a copy takes its size once,
// whatever is done with it.
func TestImportTakesRoomOnce(t *testing.T) {
	for _, asCopy := range []bool{false, true} {
		n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
		dir := assets(t).ModelDir
		m, err := n.ImportModel(t.Context(), api.ImportModelRequest{Dir: dir, Copy: asCopy}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		at, err := n.modelDir(t.Context(), cid.MustParse(m.ID))
		if err != nil || m.Dir != at || m.InPlace == asCopy || (at == dir) == asCopy {
			t.Errorf("copy %v: it is in %s (%v), reported as %s, in place %v", asCopy, at, err, m.Dir, m.InPlace)
		}
		used := folderSize(t, n.dir)
		if want := m.Bytes; asCopy && (used < want || used > want+want/10+100<<10) {
			t.Errorf("a copy of %d bytes takes %d", want, used)
		}
		if !asCopy && used > m.Bytes/10+100<<10 {
			t.Errorf("in place it takes %d bytes", used)
		}
		c, err := n.Cache(t.Context())
		if err != nil || len(c.Entries) != 1 || c.Entries[0].InPlace == asCopy || c.Entries[0].Have != c.Entries[0].Total || c.FreeBytes <= 0 {
			t.Errorf("Cache = %+v, %v", c, err)
		}
		if temps, _ := filepath.Glob(filepath.Join(n.dir, importTemp+"*")); len(temps) > 0 {
			t.Errorf("left: %v", temps)
		}
	}
}

// A file that changed is named, and the model is not used.
func TestChangedModelIsNamed(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	dir := copyDir(t, assets(t).ModelDir)
	m, err := n.ImportModel(t.Context(), api.ImportModelRequest{Dir: dir}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "tokenizer.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(good, ' '), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = n.modelDir(t.Context(), cid.MustParse(m.ID))
	wantCode(t, err, api.CodeModel, path+" changed since it was imported")
	v, err := n.VerifyShards(t.Context(), api.VerifyRequest{}, quiet)
	if err != nil || len(v.Broken) != 1 || v.Broken[0].Disk != path || v.Broken[0].ID != m.ID {
		t.Errorf("VerifyShards = %+v, %v", v, err)
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if at, err := n.modelDir(t.Context(), cid.MustParse(m.ID)); err != nil || at != dir {
		t.Errorf("put back: %s, %v", at, err)
	}
}

// What is pinned, in use or the user's is not pruned.
func TestPruneCache(t *testing.T) {
	ctx := t.Context()
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, err := n.ImportModel(ctx, api.ImportModelRequest{Dir: assets(t).ModelDir, Copy: true}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	_, d := imported(t, n)
	if e, err := n.PinCache(ctx, api.PinRequest{ID: d.ID, Pinned: true}); err != nil || !e.Pinned {
		t.Fatalf("PinCache = %+v, %v", e, err)
	}
	_, err = n.PruneCache(ctx, api.PruneRequest{IDs: []string{d.ID}})
	wantCode(t, err, api.CodeConflict, "is pinned")
	dry, err := n.PruneCache(ctx, api.PruneRequest{All: true, DryRun: true})
	if err != nil || len(dry.Removed) != 1 || dry.Removed[0].ID != m.ID || dry.Bytes < m.Bytes {
		t.Errorf("dry run %+v, %v", dry, err)
	}
	if l, _ := n.Models(ctx); len(l) != 1 {
		t.Errorf("after a dry run: %v", l)
	}
	p, err := n.PruneCache(ctx, api.PruneRequest{Bytes: 1})
	if err != nil || len(p.Removed) != 1 || p.Bytes < m.Bytes {
		t.Errorf("PruneCache = %+v, %v", p, err)
	}
	if l, _ := n.Models(ctx); len(l) != 0 {
		t.Errorf("still listed: %v", l)
	}
	if _, err := os.Stat(m.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its folder is still there: %v", err)
	}
	if l, _ := n.Datasets(ctx); len(l) != 1 {
		t.Errorf("data sets: %v", l)
	}
	// In place it can only be forgotten by name, and the folder stays.
	mine := assets(t).ModelDir
	m, err = n.ImportModel(ctx, api.ImportModelRequest{Dir: mine}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := n.PruneCache(ctx, api.PruneRequest{All: true}); err != nil || len(p.Removed) != 0 {
		t.Errorf("PruneCache = %+v, %v", p, err)
	}
	if p, err := n.PruneCache(ctx, api.PruneRequest{IDs: []string{m.ID}}); err != nil || len(p.Removed) != 1 {
		t.Errorf("PruneCache = %+v, %v", p, err)
	}
	if _, err := os.Stat(filepath.Join(mine, "config.json")); err != nil {
		t.Error(err)
	}
	_, err = n.PinCache(ctx, api.PinRequest{ID: m.ID, Pinned: true})
	wantCode(t, err, api.CodeNotFound, "is not here")
}

// Under a cap, what was used longest ago makes room for something new.
func TestCacheCap(t *testing.T) {
	ctx := t.Context()
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, err := n.ImportModel(ctx, api.ImportModelRequest{Dir: assets(t).ModelDir, Copy: true}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	n.maxBytes.Store(m.Bytes + m.Bytes/2)
	if err := n.makeRoom(ctx, m.Bytes/4); err != nil {
		t.Error(err)
	}
	wantCode(t, n.makeRoom(ctx, 2*m.Bytes), api.CodeDisk, "more are needed")
	if l, _ := n.Models(ctx); len(l) != 1 {
		t.Errorf("removed in vain: %v", l)
	}
	if err := n.makeRoom(ctx, m.Bytes); err != nil {
		t.Error(err)
	}
	if l, _ := n.Models(ctx); len(l) != 0 {
		t.Errorf("still listed: %v", l)
	}
	// A cap that was lowered is kept to as well.
	again, err := n.ImportModel(ctx, api.ImportModelRequest{Dir: assets(t).ModelDir, Copy: true}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	n.maxBytes.Store(again.Bytes / 2)
	if err := n.makeRoom(ctx, 1); err != nil {
		t.Error(err)
	}
	if l, _ := n.Models(ctx); len(l) != 0 {
		t.Errorf("over the cap are still %v", l)
	}
	n.maxBytes.Store(0)
	n.minFree.Store(1 << 60)
	wantCode(t, n.makeRoom(ctx, 1), api.CodeDisk, "")
}

// A model goes from node to node as a file.
func TestShardsByFile(t *testing.T) {
	ctx := t.Context()
	from, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, from)
	to, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	dir := t.TempDir()
	for _, id := range []string{m.ID, d.ID} {
		file := filepath.Join(dir, id+".car")
		out, err := from.ExportShards(ctx, api.ExportShardsRequest{ID: id, File: file}, quiet)
		if err != nil || len(out.Roots) != 1 || out.Roots[0].ID != id || out.Blocks < 2 {
			t.Fatalf("ExportShards = %+v, %v", out, err)
		}
		_, err = from.ExportShards(ctx, api.ExportShardsRequest{ID: id, File: file}, quiet)
		wantCode(t, err, api.CodeConflict, "is there already")
		in, err := to.ImportShards(ctx, api.ImportShardsRequest{File: file}, quiet)
		if err != nil || len(in.Roots) != 1 || in.Roots[0].ID != id || in.Blocks != out.Blocks {
			t.Fatalf("ImportShards = %+v, %v", in, err)
		}
		// Cut off, it is refused, and what is here stays.
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b[:len(b)-10], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := to.ImportShards(ctx, api.ImportShardsRequest{File: file}, quiet); err == nil {
			t.Error("a file that was cut off was imported")
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := to.Models(ctx)
	if len(got) != 1 || !got[0].Trainable || got[0].ID != m.ID || got[0].InPlace || !strings.HasPrefix(got[0].Dir, to.dir) {
		t.Errorf("models %+v", got)
	}
	if l, _ := to.Datasets(ctx); len(l) != 1 || l[0].TrainRows != d.TrainRows {
		t.Errorf("data sets %+v", l)
	}
	if used := folderSize(t, to.dir); used > m.Bytes+d.Bytes+m.Bytes/10+200<<10 {
		t.Errorf("%d bytes of a model take %d", m.Bytes, used)
	}
	_, err := to.ImportShards(ctx, api.ImportShardsRequest{File: filepath.Join(dir, "none.car")}, quiet)
	wantCode(t, err, api.CodeNotFound, "none.car")
	_, err = from.ExportShards(ctx, api.ExportShardsRequest{ID: m.ID, File: filepath.Join(dir, "no", "such", "folder.car")}, quiet)
	wantCode(t, err, api.CodeNotFound, "folder.car")
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// What is broken in a copy is pulled from a peer.
func TestVerifyRepairs(t *testing.T) {
	ctx := t.Context()
	from, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, _ := imported(t, from)
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	mine := copyDir(t, assets(t).ModelDir)
	if _, err := n.ImportModel(ctx, api.ImportModelRequest{Dir: mine, Copy: true}, quiet); err != nil {
		t.Fatal(err)
	}
	dir, err := n.modelDir(ctx, cid.MustParse(m.ID))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "model.safetensors")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := n.VerifyShards(ctx, api.VerifyRequest{}, quiet)
	if err != nil || v.Damaged != 1 || len(v.Broken) != 1 || v.Broken[0].Disk != path {
		t.Fatalf("VerifyShards = %+v, %v", v, err)
	}
	<-n.runs.running
	eventually(t, func() bool { return n.host.Connect(t.Context(), from.host.Addrs()[0]) == nil })
	v, err = n.VerifyShards(ctx, api.VerifyRequest{ID: m.ID, Repair: true}, quiet)
	if err != nil || v.Repaired != 1 || len(v.Broken) != 0 {
		t.Fatalf("VerifyShards = %+v, %v", v, err)
	}
	if at, err := n.modelDir(ctx, cid.MustParse(m.ID)); err != nil || at != dir {
		t.Errorf("modelDir = %s, %v", at, err)
	}
	if v, err := n.VerifyShards(ctx, api.VerifyRequest{}, quiet); err != nil || v.Damaged != 0 || len(v.Broken) != 0 {
		t.Errorf("VerifyShards = %+v, %v", v, err)
	}
}

// A folder of links, as in the cache of Hugging Face, is taken when the user says
// so, in place and as a copy.
func TestImportLinks(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	blobs := assets(t).ModelDir
	plain, err := n.ImportModel(t.Context(), api.ImportModelRequest{Dir: blobs}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	entries, err := os.ReadDir(blobs)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Symlink(filepath.Join(blobs, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			t.Skip(err)
		}
	}
	for _, asCopy := range []bool{false, true} {
		_, err := n.ImportModel(t.Context(), api.ImportModelRequest{Dir: dir, Copy: asCopy}, quiet)
		if err == nil || !strings.Contains(err.Error(), "--follow-links") {
			t.Errorf("copy %v: links are not refused: %v", asCopy, err)
		}
		m, err := n.ImportModel(t.Context(), api.ImportModelRequest{Dir: dir, Copy: asCopy, FollowLinks: true}, quiet)
		if err != nil || m.ID != plain.ID || m.InPlace == asCopy || !m.Trainable {
			t.Errorf("copy %v: %+v, %v", asCopy, m, err)
		}
	}
}
