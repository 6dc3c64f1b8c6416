package shard

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// OpenQuick believes a file that looks as it did, and no other; who doubts a wrong
// block makes it hash all again, also after a restart.
func TestOpenQuick(t *testing.T) {
	ctx := t.Context()
	s := testStore(t)
	dir := tree(t, map[string]string{"a": "aaaa", "b": "bbbb", "empty": ""})
	imp := mustImportInPlace(t, s, dir)
	a, b := rawBlock([]byte("aaaa")).Cid(), rawBlock([]byte("bbbb")).Cid()
	if _, inode := changeTime(mustStat(t, filepath.Join(dir, "a"))); inode == 0 {
		t.Skip("this system does not say when a file changed")
	}
	read := func(q *QuickBlock) (string, error) {
		defer q.Close()
		var out []byte
		for buf := make([]byte, 3); ; {
			b, err := q.Next(buf)
			out = append(out, b...)
			if err != nil || len(b) == 0 {
				return string(out), err
			}
		}
	}
	quick := func(c string) string {
		t.Helper()
		blk := a
		if c == "b" {
			blk = b
		}
		q, err := s.OpenQuick(ctx, blk)
		if isNotFound(err) {
			return "missing"
		}
		if err != nil || q.Size() != 4 {
			t.Fatal(q, err)
		}
		got, err := read(q)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := quick("a") + quick("b"); got != "aaaabbbb" {
		t.Errorf("OpenQuick = %s", got)
	}
	q, err := s.OpenQuick(ctx, rawBlock(nil).Cid())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := read(q); err != nil || got != "" {
		t.Errorf("an empty leaf reads as %q, %v", got, err)
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
		t.Errorf("OpenQuick of a leaf that was overwritten = %s", got)
	}

	// One that changes while it is read does not end well.
	q, err = s.OpenQuick(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	write("b", "bbbb")
	if got, err := read(q); !errors.Is(err, ErrChanged) {
		t.Errorf("a file that changed reads as %q, %v", got, err)
	}
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
	believe("b")

	// One that changed without a trace is not hashed, until somebody doubts it.
	if right, err := s.Doubt(ctx, b); err != nil || !right {
		t.Errorf("Doubt of a right block = %v, %v", right, err)
	}
	write("b", "rott")
	believe("b")
	if got := quick("b"); got != "rott" {
		t.Errorf("OpenQuick of what rotted = %s: it hashes after all", got)
	}
	if right, err := s.Doubt(ctx, b); err != nil || right {
		t.Errorf("Doubt of a wrong block = %v, %v", right, err)
	}
	if got := quick("b"); got != "missing" {
		t.Errorf("OpenQuick after Doubt = %s", got)
	}
	s = reopen(t, s)
	if got := quick("b"); got != "missing" {
		t.Errorf("OpenQuick after Doubt and a restart = %s", got)
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
