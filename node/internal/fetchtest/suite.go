package fetchtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/shard"
)

// New makes a node whose fetcher asks the host for providers, and blocks peers
// that it bans. It stops with the test.
type New func(t *testing.T, bs blockstore.Blockstore, o NodeOptions) *Node

// Slowly takes a moment for each block.
func Slowly(bs blockstore.Blockstore, d time.Duration) blockstore.Blockstore {
	return Altered{bs, func(_ context.Context, _ cid.Cid, b blocks.Block) (blocks.Block, error) {
		time.Sleep(d)
		return b, nil
	}}
}

// Fetcher is the suite.
func Fetcher(t *testing.T, newNode New) {
	for name, test := range map[string]func(*testing.T, New){
		"DialsProviders":       dialsProviders,
		"AsksRouter":           asksRouter,
		"Forger":               forger,
		"SourceDies":           sourceDies,
		"OnlySourceComesBack":  onlySourceComesBack,
		"ResumesAfterRestart":  resumesAfterRestart,
		"FolderOfRepetitions":  folderOfRepetitions,
		"SeveralFetches":       severalFetches,
		"ErrorSaysHowFarItWas": errorSaysHowFarItWas,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newNode)
		})
	}
}

// A peer is named, not connected; its address is known.
func dialsProviders(t *testing.T, newNode New) {
	bs, root, _ := DAG(t, 3, 3*MiB)
	seed, n := newNode(t, bs, NodeOptions{}), newNode(t, Memory(), NodeOptions{})
	n.introduce(seed)
	o := FetchOptions{Providers: []peer.ID{n.Host.ID(), seed.Host.ID()}}
	if err := n.Fetch(Within(t, 3*time.Minute), root, o); err != nil {
		t.Fatal(err)
	}
	WantAll(t, n.Store, bs)
}

// introduce tells n the addresses of another.
func (n *Node) introduce(o *Node) {
	info := o.Host.Libp2p().Peerstore().PeerInfo(o.Host.ID())
	n.Host.Libp2p().Peerstore().AddAddrs(info.ID, info.Addrs, time.Hour)
}

// Nobody is named, and the one connected peer has nothing but the DHT.
func asksRouter(t *testing.T, newNode New) {
	bs, root, _ := DAG(t, 4, MiB)
	boot := newNode(t, Memory(), NodeOptions{})
	seed := newNode(t, bs, NodeOptions{Seeds: []*Node{boot}})
	n := newNode(t, Memory(), NodeOptions{Seeds: []*Node{boot}})
	for _, o := range []*Node{boot, seed, n} {
		Running(t, o.Host.Run)
	}
	if err := seed.Host.Provide(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	if err := n.Fetch(Within(t, 3*time.Minute), root, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	WantAll(t, n.Store, bs)
}

// A forger alone is banned, and nothing of it is stored; then a good peer comes.
func forger(t *testing.T, newNode New) {
	bs, root, size := DAG(t, 5, 20*MiB)
	bad := newNode(t, Forger(bs), NodeOptions{})
	n := newNode(t, Memory(), NodeOptions{Seeds: []*Node{bad}})
	ended := make(chan error, 1)
	w := &Watcher{T: t}
	go func() { ended <- n.Fetch(Within(t, 3*time.Minute), root, FetchOptions{Progress: w.Progress}) }()
	WaitFor(t, "the forger's ban", func() bool { return n.Host.Blocked(bad.Host.ID()) })
	WantClean(t, n.Store)
	if got := n.Pulled(); got > 1<<16 {
		t.Errorf("with a forger alone %d bytes were pulled", got)
	}
	seed := newNode(t, bs, NodeOptions{})
	Connect(t, n.Host, seed.Host.Addrs()[0])
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	WantAll(t, n.Store, bs)
	for _, p := range n.Banned() {
		if p != bad.Host.ID() {
			t.Errorf("%s was banned, the forger is %s", p, bad.Host.ID())
		}
	}
	if got := n.Pulled(); got != uint64(size) || w.Done != size {
		t.Errorf("pulled %d bytes, progress %d, want %d", got, w.Done, size)
	}
}

func sourceDies(t *testing.T, newNode New) {
	bs, root, size := DAG(t, 6, 20*MiB)
	dying, living := newNode(t, Slowly(bs, 5*time.Millisecond), NodeOptions{}), newNode(t, Slowly(bs, 5*time.Millisecond), NodeOptions{})
	n := newNode(t, Memory(), NodeOptions{Seeds: []*Node{dying, living}})
	var kill sync.Once
	w := &Watcher{T: t, At: func(done int64) {
		if done > size/4 {
			kill.Do(func() { _ = dying.Host.Close() })
		}
	}}
	if err := n.Fetch(Within(t, 3*time.Minute), root, FetchOptions{Progress: w.Progress}); err != nil {
		t.Fatal(err)
	}
	WantAll(t, n.Store, bs)
	if dying.Sent() == 0 {
		t.Error("the source that died had sent nothing")
	}
	if b := n.Banned(); len(b) > 0 {
		t.Errorf("banned %v", b)
	}
}

// The only source dies and comes back at the same address.
func onlySourceComesBack(t *testing.T, newNode New) {
	bs, root, size := DAG(t, 7, 20*MiB)
	key := NewKey(t)
	listen := "/ip4/127.0.0.1/tcp/0"
	if runtime.GOOS == "linux" { // this machine as well, with ports that no other test gets meanwhile
		pid := os.Getpid() // this suite runs in several processes at once
		listen = fmt.Sprintf("/ip4/127.9.%d.%d/tcp/0", pid/250%250+1, pid%250+1)
	}
	seed := newNode(t, Slowly(bs, 5*time.Millisecond), NodeOptions{Key: key, Listen: listen})
	listen = seed.Host.Libp2p().Addrs()[0].String()
	n := newNode(t, Memory(), NodeOptions{Seeds: []*Node{seed}})
	third := make(chan struct{})
	var once sync.Once
	w := &Watcher{T: t, At: func(done int64) {
		if done > size/3 {
			once.Do(func() { close(third) })
		}
	}}
	ended := make(chan error, 1)
	go func() {
		ended <- n.Fetch(Within(t, 3*time.Minute), root, FetchOptions{Progress: w.Progress, Providers: []peer.ID{seed.Host.ID()}})
	}()
	select {
	case <-third:
	case err := <-ended: // before this goroutine had its turn, or with an error
		if err != nil {
			t.Fatal(err)
		}
		ended <- nil
	}
	seed.Stop()
	back := newNode(t, bs, NodeOptions{Key: key, Listen: listen})
	Connect(t, back.Host, n.Host.Addrs()[0])
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	WantAll(t, n.Store, bs)
}

// holdsBack gives some leaves, and the others once it lets go: however slow the one
// that fetches them is to stop, it does not get all.
func holdsBack(bs blockstore.Blockstore, leaves int) (held blockstore.Blockstore, letGo func()) {
	open := make(chan struct{})
	var mu sync.Mutex
	given := make(map[cid.Cid]bool)
	free := func(c cid.Cid) bool {
		mu.Lock()
		defer mu.Unlock()
		if len(given) < leaves {
			given[c] = true
		}
		return given[c]
	}
	return Altered{bs, func(ctx context.Context, c cid.Cid, b blocks.Block) (blocks.Block, error) {
		if c.Prefix().Codec == cid.Raw && !free(c) {
			select {
			case <-open:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return b, nil
	}}, sync.OnceFunc(func() { close(open) })
}

func resumesAfterRestart(t *testing.T, newNode New) {
	bs, root, size := DAG(t, 8, 20*MiB)
	held, letGo := holdsBack(bs, 12)
	seed := newNode(t, held, NodeOptions{})
	t.Cleanup(letGo) // before the seed stops
	dir := t.TempDir()
	st := OpenShard(t, dir)
	n := newNode(t, st, NodeOptions{Seeds: []*Node{seed}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := &Watcher{T: t, At: func(done int64) {
		if done > size/3 {
			cancel()
		}
	}}
	if err := n.Fetch(ctx, root, FetchOptions{Progress: w.Progress}); !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted fetch: %v", err)
	}
	n.Stop()
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	letGo()

	st = OpenShard(t, dir)
	_, have, _, err := st.Missing(t.Context(), root)
	if err != nil || have < size/3 || have == size {
		t.Fatalf("%d bytes are local after the restart (%v)", have, err)
	}
	n = newNode(t, st, NodeOptions{Seeds: []*Node{seed}})
	w = &Watcher{T: t}
	if err := n.Fetch(Within(t, 3*time.Minute), root, FetchOptions{Progress: w.Progress}); err != nil {
		t.Fatal(err)
	}
	if got := n.Pulled(); got != uint64(size-have) {
		t.Errorf("pulled %d bytes after the restart, want %d", got, size-have)
	}
	if w.Done != size {
		t.Errorf("progress ended at %d of %d", w.Done, size)
	}
	got, err := st.ReadBytes(t.Context(), root, size)
	if err != nil || !bytes.Equal(got, Content(8, 20*MiB)) {
		t.Errorf("the file reads as %d bytes, %v", len(got), err)
	}
}

// Folder imports a folder in which files and leaves repeat, with directories in
// directories and a file without bytes. Size is that of its distinct blocks.
func Folder(t *testing.T) (st *shard.Store, root cid.Cid, size int64) {
	t.Helper()
	dir := t.TempDir()
	for i := range 6 {
		name := filepath.Join(dir, fmt.Sprint("d", i%2), "e", fmt.Sprint("f", i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		b := append(Content(9, MiB), Content(9, MiB)...)
		if i >= 3 {
			b = append(b, Content(byte(i), MiB/2)...)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "d1", "z"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	st = OpenShard(t, t.TempDir())
	imp, err := st.ImportDir(t.Context(), dir, shard.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, have, _, err := st.Missing(t.Context(), imp.Root)
	if err != nil {
		t.Fatal(err)
	}
	return st, imp.Root, have
}

func folderOfRepetitions(t *testing.T, newNode New) {
	from, root, size := Folder(t)
	to := OpenShard(t, t.TempDir())
	n := newNode(t, to, NodeOptions{Seeds: []*Node{newNode(t, from, NodeOptions{})}})
	w := &Watcher{T: t}
	if err := n.Fetch(Within(t, 3*time.Minute), root, FetchOptions{Progress: w.Progress}); err != nil {
		t.Fatal(err)
	}
	if w.Done != size || w.Total != size || n.Pulled() != uint64(size) {
		t.Errorf("progress ended at %d of %d, pulled %d; want %d", w.Done, w.Total, n.Pulled(), size)
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := to.Materialize(t.Context(), root, out, shard.MaterializeOptions{MaxBytes: 100 * MiB}); err != nil {
		t.Error(err)
	}
}

func severalFetches(t *testing.T, newNode New) {
	bs, root, size := DAG(t, 12, 5*MiB)
	seed, n := newNode(t, bs, NodeOptions{}), newNode(t, Memory(), NodeOptions{})
	n.introduce(seed)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			w := &Watcher{T: t}
			o := FetchOptions{Progress: w.Progress, Providers: []peer.ID{seed.Host.ID()}}
			if err := n.Fetch(Within(t, 3*time.Minute), root, o); err != nil || w.Done != size {
				t.Errorf("fetch: %v, %d of %d bytes", err, w.Done, size)
			}
		})
	}
	wg.Wait()
	WantAll(t, n.Store, bs)
	if b := n.Banned(); len(b) > 0 || n.Pulled() != uint64(size) {
		t.Errorf("pulled %d bytes, want %d; banned %v", n.Pulled(), size, b)
	}
}

func errorSaysHowFarItWas(t *testing.T, newNode New) {
	bs, root, _ := DAG(t, 13, 3*MiB)
	b, err := bs.Get(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	links, err := shard.Links(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := bs.DeleteBlock(t.Context(), links[1].CID); err != nil {
		t.Fatal(err)
	}
	seed := newNode(t, bs, NodeOptions{})
	n := newNode(t, Memory(), NodeOptions{Seeds: []*Node{seed}})
	const far = "3 of 4 blocks"
	for d := 2 * time.Second; d < 5*time.Minute; d *= 4 { // a slow machine does not come so far at once
		if err = n.Fetch(Within(t, d), root, FetchOptions{}); err == nil || strings.Contains(err.Error(), far) {
			break
		}
	}
	for _, want := range []string{root.String(), far, seed.Host.ID().String(), context.DeadlineExceeded.Error()} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}
