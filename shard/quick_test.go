package shard

import (
	"os"
	"path/filepath"
	"testing"
)

// GetQuick believes a file that looks as it did, and no other; who doubts a wrong
// block makes it hash all again, also after a restart.
func TestGetQuick(t *testing.T) {
	ctx := t.Context()
	s := testStore(t)
	dir := tree(t, map[string]string{"a": "aaaa", "b": "bbbb", "empty": ""})
	imp := mustImportInPlace(t, s, dir)
	a, b := rawBlock([]byte("aaaa")).Cid(), rawBlock([]byte("bbbb")).Cid()
	if _, inode := changeTime(mustStat(t, filepath.Join(dir, "a"))); inode == 0 {
		t.Skip("this system does not say when a file changed")
	}
	buf := make([]byte, 0, 16)
	quick := func(c string) string {
		t.Helper()
		blk := a
		if c == "b" {
			blk = b
		}
		got, err := s.GetQuick(ctx, blk, buf)
		if isNotFound(err) {
			return "missing"
		}
		if err != nil {
			t.Fatal(err)
		}
		if &got[0] != &buf[:1][0] {
			t.Error("the buffer was not used")
		}
		return string(got)
	}
	if got := quick("a") + quick("b"); got != "aaaabbbb" {
		t.Errorf("GetQuick = %s", got)
	}
	if got, err := s.GetQuick(ctx, rawBlock(nil).Cid(), buf); err != nil || got == nil || len(got) != 0 {
		t.Errorf("GetQuick of an empty leaf = %v, %v", got, err)
	}

	// A file that looks changed is hashed.
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a", "evil")
	if got := quick("a"); got != "missing" {
		t.Errorf("GetQuick of a leaf that was overwritten = %s", got)
	}

	// One that changed without a trace is not, until somebody doubts it.
	believe := func(name string) {
		t.Helper()
		tr := s.tree(imp.Root)
		tr.mu.Lock()
		defer tr.mu.Unlock()
		for i := range tr.files {
			if tr.files[i].Path == name {
				tr.files[i].Stamp = stampOf(mustStat(t, filepath.Join(dir, name)))
			}
		}
	}
	if right, err := s.Doubt(ctx, b); err != nil || !right {
		t.Errorf("Doubt of a right block = %v, %v", right, err)
	}
	write("b", "rott")
	believe("b")
	if got := quick("b"); got != "rott" {
		t.Errorf("GetQuick of what rotted = %s: it hashes after all", got)
	}
	if right, err := s.Doubt(ctx, b); err != nil || right {
		t.Errorf("Doubt of a wrong block = %v, %v", right, err)
	}
	if got := quick("b"); got != "missing" {
		t.Errorf("GetQuick after Doubt = %s", got)
	}
	s = reopen(t, s)
	if got := quick("b"); got != "missing" {
		t.Errorf("GetQuick after Doubt and a restart = %s", got)
	}
	if right, err := s.Doubt(ctx, rawBlock([]byte("x")).Cid()); err != nil || right {
		t.Errorf("Doubt of what is not there = %v, %v", right, err)
	}
}

func mustStat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi
}
