package pull

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moot-net/moot/node/internal/fetchtest"
	"github.com/moot-net/moot/shard"
)

// rotten is a store that gives a model of a folder in which 2 MiB are other than
// they were, and no file system noticed.
func rotten(t *testing.T) (st *shard.Store, imp shard.Import, good *shard.Store, told func() int) {
	t.Helper()
	model, dir := t.TempDir(), t.TempDir()
	path := filepath.Join(model, "weights")
	b := content(31, 9*mib)
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	open := func(dir string, o shard.OpenOptions) *shard.Store {
		st, err := o.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = st.Close() }) // once more
		return st
	}
	good = open(t.TempDir(), shard.OpenOptions{})
	if _, err := good.ImportDir(t.Context(), model, shard.ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	st = open(dir, shard.OpenOptions{})
	imp, err := st.ImportDir(t.Context(), model, shard.ImportOptions{InPlace: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	b[3*mib+7] ^= 1
	b[6*mib+8] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	pretendUnchanged(t, filepath.Join(dir, "trees", imp.Root.String()), path)
	var mu sync.Mutex
	n := 0
	st = open(dir, shard.OpenOptions{Problem: func(shard.Problem) {
		mu.Lock()
		defer mu.Unlock()
		n++
	}})
	return st, imp, good, func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// pretendUnchanged makes the store believe that its only file looks as ever.
func pretendUnchanged(t *testing.T, tree, path string) {
	t.Helper()
	b, err := os.ReadFile(tree)
	if err != nil {
		t.Fatal(err)
	}
	magic, rest, _ := bytes.Cut(b[:len(b)-sha256.Size], []byte("\n"))
	line, leaves, _ := bytes.Cut(rest, []byte("\n"))
	var head map[string]any
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.UseNumber()
	if err := dec.Decode(&head); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	sys := fi.Sys().(*syscall.Stat_t)
	head["files"].([]any)[0].(map[string]any)["stamp"] = map[string]any{
		"size": fi.Size(), "mtime": fi.ModTime().UnixNano(), "ctime": sys.Ctim.Nano(), "inode": sys.Ino,
	}
	if line, err = json.Marshal(head); err != nil {
		t.Fatal(err)
	}
	out := bytes.Join([][]byte{magic, line, leaves}, []byte("\n"))
	sum := sha256.Sum256(out)
	if err := os.WriteFile(tree, append(out, sum[:]...), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A peer whose disk decays is told of the first wrong block, looks, and is not
// banned for the second.
func TestRot(t *testing.T) {
	t.Parallel()
	st, imp, good, told := rotten(t)
	decayed := newNode(t, st, nodeOptions{})
	n := newNode(t, openShard(t, t.TempDir()), nodeOptions{seeds: []*node{decayed}, alone: true})
	ended := make(chan error, 1)
	go func() { ended <- n.p.Fetch(within(t, 3*time.Minute), imp.Root, FetchOptions{}) }()
	waitFor(t, "the peer to see both wrong blocks", func() bool { return told() >= 2 })
	late := newNode(t, fetchtest.Memory(), nodeOptions{})
	copySome(t, late.bs, good, nil)
	fetchtest.Connect(t, n.h, late.h.Addrs()[0])
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	wantAll(t, n.bs, good)
	if got := n.bans.list(); len(got) > 0 {
		t.Errorf("banned %v", got)
	}
	if missing, err := st.Verify(t.Context(), imp.Root); err != nil || len(missing) != 2 {
		t.Errorf("the decayed store lacks %v, %v; want two leaves", missing, err)
	}
	if got := decayed.p.Stats().SentBytes; got == 0 {
		t.Error("the decayed peer gave nothing")
	}
}
