package shard

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
)

// keepFolder stores a folder of one file as a root.
func keepFolder(t testing.TB, s *Store, name string, used time.Time) cid.Cid {
	t.Helper()
	imp := mustImport(t, s, tree(t, map[string]string{name: string(random(t, name, 1000)), "shared": "shared by all"}))
	if err := s.Keep(imp.Root, "model", name, used); err != nil {
		t.Fatal(err)
	}
	return imp.Root
}

func names(hs []Held) (out []string) {
	for _, h := range hs {
		out = append(out, h.Name)
	}
	return out
}

// What was used longest ago goes first, but for what is pinned or in use.
func TestPrune(t *testing.T) {
	ctx := t.Context()
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := testStore(t)
	var roots []cid.Cid
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		roots = append(roots, keepFolder(t, s, name, day.AddDate(0, 0, i)))
	}
	mine := tree(t, map[string]string{"mine": "mine"})
	inPlace := mustImportInPlace(t, s, mine)
	if err := s.Keep(inPlace.Root, "model", "mine", day.AddDate(-1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Pin(roots[0], true), s.Touch(roots[1], day.AddDate(0, 1, 0))); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	opts := PruneOptions{Bytes: 1500, Keep: []cid.Cid{roots[2]}}
	opts.DryRun = true
	dry, err := s.Prune(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"d", "e"} // a is pinned, b was touched, c is in use, mine is the user's
	if diff := cmp.Diff(want, names(dry.Roots)); diff != "" {
		t.Errorf("dry run (-want +got):\n%s", diff)
	}
	for _, r := range roots {
		assertWhole(t, s, r)
	}
	opts.DryRun = false
	done, err := s.Prune(ctx, opts)
	if err != nil || done.Bytes < 1500 {
		t.Fatalf("Prune = %+v, %v", done, err)
	}
	if diff := cmp.Diff(want, names(done.Roots)); diff != "" {
		t.Errorf("Prune (-want +got):\n%s", diff)
	}
	for _, r := range []cid.Cid{roots[0], roots[1], roots[2], inPlace.Root} {
		assertWhole(t, s, r)
	}
	assertMissing(t, s, roots[3])
	all, err := s.Prune(ctx, PruneOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"c", "b"}, names(all.Roots)); diff != "" {
		t.Errorf("Prune all (-want +got):\n%s", diff)
	}
	held, err := s.Held(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"mine", "a"}, names(held)); diff != "" {
		t.Errorf("Held (-want +got):\n%s", diff)
	}
	if h := held[0]; h.Bytes != 0 || h.Dir != mine || h.Ours || h.Have != h.Total || !h.Complete {
		t.Errorf("Held of the user's folder = %+v", h)
	}
	if _, err := s.Drop(ctx, roots[0]); err != nil {
		t.Fatal(err)
	}
	if err := s.Pin(roots[0], true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Pin of what is gone = %v", err)
	}
	if got := reopen(t, s).Roots(); len(got) != 1 {
		t.Errorf("Roots = %v", got)
	}
}

func TestRootFilesThatAreBroken(t *testing.T) {
	s := testStore(t)
	good := keepFolder(t, s, "good", time.Now())
	bad := keepFolder(t, s, "bad", time.Now())
	if err := os.Truncate(s.path("roots", bad.String()), 7); err != nil {
		t.Fatal(err)
	}
	var told []Problem
	s.onProblem = func(p Problem) { told = append(told, p) }
	s = reopen(t, s)
	if got := s.Roots(); len(got) != 1 || got[0].CID != good || len(told) != 1 {
		t.Errorf("Roots = %v, told of %v", got, told)
	}
}

// Check names the files that are damaged, wherever they lie.
func TestCheck(t *testing.T) {
	ctx := t.Context()
	big := random(t, "check", 2*ChunkBytes+5)
	s := testStore(t)
	dir := tree(t, map[string]string{"sub/big": string(big), "ok": "ok", "sub/": ""})
	inPlace := mustImportInPlace(t, s, dir)
	copied := mustImport(t, s, tree(t, map[string]string{"x/y": "yyyy", "z": "zzzz"}))
	for _, r := range []cid.Cid{inPlace.Root, copied.Root} {
		if err := s.Keep(r, "model", "", time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	var last int64
	opts := CheckOptions{Progress: func(done, total int64) {
		if done < last || done > total {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	}}
	good, err := s.Check(ctx, opts)
	if err != nil || good.Damaged != 0 || len(good.Broken) != 0 || good.Blocks != 4+2+2+3 || good.Bytes < int64(len(big)) {
		t.Fatalf("Check = %+v, %v", good, err)
	}
	damaged := slices.Clone(big)
	damaged[ChunkBytes] ^= 1
	d, _ := digestOf(rawBlock([]byte("yyyy")).Cid())
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "sub/big"), damaged, 0o644), os.WriteFile(s.blockPath(d), []byte("yyyX"), 0o644)); err != nil {
		t.Fatal(err)
	}
	last = 0
	bad, err := s.Check(ctx, opts)
	if err != nil || bad.Damaged != 2 {
		t.Fatalf("Check = %+v, %v", bad, err)
	}
	want := []BrokenFile{
		{Root: inPlace.Root, Path: "sub/big", Disk: filepath.Join(dir, "sub", "big"), Missing: 1, Bytes: ChunkBytes},
		{Root: copied.Root, Path: "x/y", Missing: 1, Bytes: 4},
	}
	less := func(a, b BrokenFile) int { return int(b.Bytes - a.Bytes) }
	slices.SortFunc(bad.Broken, less)
	if diff := cmp.Diff(want, bad.Broken, cmp.Comparer(func(a, b cid.Cid) bool { return a == b })); diff != "" {
		t.Errorf("Broken (-want +got):\n%s", diff)
	}
	one, err := s.Check(ctx, CheckOptions{Roots: []cid.Cid{copied.Root}})
	if err != nil || one.Damaged != 0 || len(one.Broken) != 1 || one.Broken[0].Path != "x/y" {
		t.Errorf("Check of one = %+v, %v", one, err)
	}
	if err := errors.Join(s.Put(ctx, rawBlock([]byte("yyyy"))), os.WriteFile(filepath.Join(dir, "sub/big"), big, 0o644)); err != nil {
		t.Fatal(err)
	}
	last = 0
	if again, err := s.Check(ctx, opts); err != nil || again.Damaged != 0 || len(again.Broken) != 0 {
		t.Errorf("Check after repair = %+v, %v", again, err)
	}
}
