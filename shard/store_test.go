package shard

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/multiformats/go-multihash"
)

var _ blockstore.Blockstore = (*Store)(nil)

func rawBlock(data []byte) blocks.Block {
	b, err := blocks.NewBlockWithCid(data, newCID(rawCodec, sha256.Sum256(data)))
	if err != nil {
		panic(err)
	}
	return b
}

// keys lists a store.
func keys(t testing.TB, s *Store) []string {
	t.Helper()
	ch, err := s.AllKeysChan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for c := range ch {
		out = append(out, c.String())
	}
	slices.Sort(out)
	return out
}

func filesBelow(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			rel, _ := filepath.Rel(dir, p)
			out = append(out, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestStoreKeepsBlocks(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []blocks.Block
	var want []string
	for i, size := range []int{0, 1, 1000, ChunkBytes, MaxBlockBytes} {
		b := rawBlock(bytes.Repeat([]byte{byte(i)}, size))
		all = append(all, b, b)
		want = append(want, b.Cid().String())
	}
	slices.Sort(want)
	if err := s.PutMany(ctx, all); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if diff := cmp.Diff(want, keys(t, s)); diff != "" {
		t.Errorf("AllKeysChan (-want +got):\n%s", diff)
	}
	for _, b := range all {
		got, err := s.Get(ctx, b.Cid())
		if err != nil || !bytes.Equal(got.RawData(), b.RawData()) || got.Cid() != b.Cid() {
			t.Fatalf("Get(%s) = %v, %v", b.Cid(), got, err)
		}
		if n, err := s.GetSize(ctx, b.Cid()); err != nil || n != len(b.RawData()) {
			t.Errorf("GetSize = %d, %v, want %d", n, err, len(b.RawData()))
		}
		if ok, err := s.Has(ctx, b.Cid()); !ok || err != nil {
			t.Errorf("Has = %v, %v", ok, err)
		}
		// The same hash under another codec is the same bytes, as bitswap has it.
		if _, err := s.Get(ctx, cid.NewCidV1(dagPB, b.Cid().Hash())); err != nil {
			t.Errorf("Get by dag-pb CID: %v", err)
		}
	}
	if n, size, err := s.Usage(ctx); err != nil || n != 5 || size != 1+1000+ChunkBytes+MaxBlockBytes {
		t.Errorf("Usage = %d, %d, %v", n, size, err)
	}
	gone := all[4].Cid()
	for range 2 { // the second time it is not there
		if err := s.DeleteBlock(ctx, gone); err != nil {
			t.Errorf("DeleteBlock: %v", err)
		}
	}
	assertMissing(t, s, gone)
	if err := s.Put(ctx, all[4]); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, gone); err != nil {
		t.Errorf("Get after a second Put: %v", err)
	}
}

// assertMissing checks that each way to ask for c says that it is not there.
func assertMissing(t *testing.T, s *Store, c cid.Cid) {
	t.Helper()
	if b, err := s.Get(t.Context(), c); !ipld.IsNotFound(err) {
		t.Errorf("Get = %v, %v, want not found", b, err)
	}
	if n, err := s.GetSize(t.Context(), c); !ipld.IsNotFound(err) {
		t.Errorf("GetSize = %d, %v, want not found", n, err)
	}
	if ok, err := s.Has(t.Context(), c); ok || err != nil {
		t.Errorf("Has = %v, %v, want false", ok, err)
	}
}

func TestStoreRefusesBlocks(t *testing.T) {
	s := testStore(t)
	good := rawBlock([]byte("good"))
	lying, _ := blocks.NewBlockWithCid([]byte("other bytes"), good.Cid())
	sha1, _ := multihash.Sum([]byte("x"), multihash.SHA1, -1)
	foreign, _ := blocks.NewBlockWithCid([]byte("x"), cid.NewCidV1(rawCodec, sha1))
	identity, _ := multihash.Sum([]byte("x"), multihash.IDENTITY, -1)
	for _, tt := range []struct {
		name  string
		block blocks.Block
		want  error
	}{
		{"other bytes", lying, ErrInvalid},
		{"other hash", foreign, ErrInvalid},
		{"too large", rawBlock(make([]byte, MaxBlockBytes+1)), ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := s.Put(t.Context(), tt.block); !errors.Is(err, tt.want) {
				t.Errorf("Put = %v, want %v", err, tt.want)
			}
			assertMissing(t, s, tt.block.Cid())
		})
	}
	assertMissing(t, s, cid.NewCidV1(rawCodec, identity))
	assertMissing(t, s, cid.Undef)
	if left := filesBelow(t, filepath.Join(s.dir, "tmp")); len(left) > 0 {
		t.Errorf("left in tmp: %v", left)
	}
	if got := keys(t, s); len(got) > 0 {
		t.Errorf("stored: %v", got)
	}
}

// A damaged block is never served: it is removed and missing, and can be put again.
func TestStoreRemovesDamagedBlocks(t *testing.T) {
	ctx := t.Context()
	b := rawBlock([]byte("what was once written"))
	for _, tt := range []struct {
		name   string
		damage func(path string) error
	}{
		{"flipped bit", func(p string) error { return os.WriteFile(p, []byte("what was once writteN"), 0o644) }},
		{"truncated", func(p string) error { return os.Truncate(p, 3) }},
		{"emptied", func(p string) error { return os.Truncate(p, 0) }},
		{"grown", func(p string) error { return os.Truncate(p, 100) }},
		{"grown beyond a block", func(p string) error { return os.Truncate(p, MaxBlockBytes+1) }},
		{"a folder", func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := testStore(t)
			if err := s.Put(ctx, b); err != nil {
				t.Fatal(err)
			}
			d, _ := digestOf(b.Cid())
			if err := tt.damage(s.blockPath(d)); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Get(ctx, b.Cid()); !ipld.IsNotFound(err) {
				t.Fatalf("Get = %v, %v, want not found", got, err)
			}
			assertMissing(t, s, b.Cid())
			if _, err := os.Lstat(s.blockPath(d)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the damaged file is still there: %v", err)
			}
			if err := s.Put(ctx, b); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Get(ctx, b.Cid()); err != nil {
				t.Errorf("Get after repair: %v", err)
			}
		})
	}
	t.Run("repaired before it is removed", func(t *testing.T) {
		s := testStore(t)
		if err := s.Put(ctx, b); err != nil {
			t.Fatal(err)
		}
		d, _ := digestOf(b.Cid())
		old := []byte("what a reader saw before")
		if good, err := s.removeDamaged(d, &old); !good || err != nil || !bytes.Equal(old, b.RawData()) {
			t.Errorf("removeDamaged = %v, %v, %q", good, err, old)
		}
		if _, err := s.Get(ctx, b.Cid()); err != nil {
			t.Error(err)
		}
	})
	t.Run("repaired by a put alone", func(t *testing.T) {
		s := testStore(t)
		if err := s.Put(ctx, b); err != nil {
			t.Fatal(err)
		}
		d, _ := digestOf(b.Cid())
		if err := os.WriteFile(s.blockPath(d), []byte("what was once writteN"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := s.Put(ctx, b); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(ctx, b.Cid()); err != nil {
			t.Errorf("Get after repair: %v", err)
		}
	})
}

func TestOpenIsExclusive(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("second Open = %v, want ErrLocked with the process", err)
	}
	out, err := child(t, "open", dir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in use by process") {
		t.Errorf("Open in another process: %v\n%s", err, out)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := child(t, "open", dir).CombinedOutput(); err != nil {
		t.Errorf("Open in another process after Close: %v\n%s", err, out)
	}
}

func TestOpenCleansUp(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := os.WriteFile(filepath.Join(dir, "tmp", "block-1"), []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if left := filesBelow(t, filepath.Join(dir, "tmp")); len(left) > 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

func TestOpenRefusesOtherFolders(t *testing.T) {
	mine := t.TempDir()
	if err := os.MkdirAll(filepath.Join(mine, "tmp", "thesis"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(mine); err == nil || !strings.Contains(err.Error(), "no shard store") {
		t.Errorf("Open of a folder with other things = %v", err)
	}
	if _, err := os.Stat(filepath.Join(mine, "tmp", "thesis")); err != nil {
		t.Error(err)
	}
	newer := t.TempDir()
	if err := os.WriteFile(filepath.Join(newer, "version"), []byte("moot shard store 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(newer); err == nil || !strings.Contains(err.Error(), `"moot shard store 3"`) {
		t.Errorf("Open of a newer store = %v", err)
	}
}

// Writers, readers and removers at once: what is read is right, always.
func TestStoreConcurrently(t *testing.T) {
	s := testStore(t)
	ctx := t.Context()
	var bs []blocks.Block
	for i := range 20 {
		bs = append(bs, rawBlock(bytes.Repeat([]byte{byte(i)}, 100*i)))
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(g)))
			for range 100 {
				b := bs[rng.IntN(len(bs))]
				d, _ := digestOf(b.Cid())
				switch rng.IntN(4) {
				case 0:
					if err := s.Put(ctx, b); err != nil {
						t.Error(err)
					}
				case 1:
					if err := s.DeleteBlock(ctx, b.Cid()); err != nil {
						t.Error(err)
					}
				case 2:
					_ = os.Truncate(s.blockPath(d), 1)
				default:
					got, err := s.Get(ctx, b.Cid())
					if err == nil && !bytes.Equal(got.RawData(), b.RawData()) {
						t.Error("Get returned other bytes")
					}
					if err != nil && !ipld.IsNotFound(err) {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if err := s.PutMany(ctx, bs); err != nil {
		t.Fatal(err)
	}
	for _, b := range bs {
		if _, err := s.Get(ctx, b.Cid()); err != nil {
			t.Error(err)
		}
	}
}

// child runs this test binary as another process; see TestChild.
func child(t testing.TB, role, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), "MOOT_SHARD_CHILD="+role, "MOOT_SHARD_DIR="+dir)
	return cmd
}

// TestChild is no test but what child runs.
func TestChild(t *testing.T) {
	dir := os.Getenv("MOOT_SHARD_DIR")
	switch os.Getenv("MOOT_SHARD_CHILD") {
	case "":
		t.Skip("runs as a child of other tests")
	case "open":
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	case "write":
		writeForever(t, dir)
	}
}

// writeForever stores blocks from several goroutines and names on stdout
// those that are stored.
func writeForever(t *testing.T, dir string) {
	fmt.Println("started")
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	var wg sync.WaitGroup
	for g := range 3 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(g)))
			for t.Context().Err() == nil {
				var bs []blocks.Block
				for range 1 + rng.IntN(4) {
					data := make([]byte, rng.IntN(200_000))
					for i := range data {
						data[i] = byte(rng.Uint32())
					}
					bs = append(bs, rawBlock(data))
				}
				if err := s.PutMany(t.Context(), bs); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, b := range bs {
					fmt.Fprintln(out, "stored", b.Cid())
				}
				out.Flush()
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// Whenever the process is killed, the store opens, every block it lists is
// right, and every block that was reported as stored is there.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(7, 7))
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	var stored []string
	for round := range rounds {
		cmd := child(t, "write", dir)
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Some rounds are killed while the store is made or opened.
		delay := time.Duration(rng.IntN(100*(round%5)*(round%5)+1)) * time.Millisecond / 10
		// The last one gets as far as to store, however slow the machine is.
		cue := "started"
		if round == rounds-1 {
			cue = "stored"
		}
		scan := bufio.NewScanner(pipe)
		for scan.Scan() {
			line := scan.Text()
			if word, _, _ := strings.Cut(line, " "); word == cue {
				time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
			}
			if name, ok := strings.CutPrefix(line, "stored "); ok && len(name) == 59 {
				stored = append(stored, name)
			}
		}
		_ = cmd.Wait() // killed
		checkKilled(t, dir, stored)
		if t.Failed() {
			return
		}
	}
	if len(stored) == 0 {
		t.Error("no child got as far as to store a block")
	}
	t.Logf("%d kills, %d blocks reported as stored", rounds, len(stored))
}

func checkKilled(t *testing.T, dir string, stored []string) {
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if left := filesBelow(t, filepath.Join(dir, "tmp")); len(left) > 0 {
		t.Errorf("left in tmp: %v", left)
	}
	listed := make(map[string]bool)
	for _, k := range keys(t, s) {
		listed[k] = true
		c, err := cid.Decode(k)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context(), c); err != nil {
			t.Errorf("listed block: %v", err)
		}
	}
	for _, k := range stored {
		if !listed[k] {
			t.Errorf("block %s was stored and is not there", k)
		}
	}
}

var errPowerLoss = errors.New("power loss")

// powerLoss is a disk whose power fails at a given step. What was not synced
// by then is lost, in the worst way: content of files becomes garbage or
// nothing, names that were given vanish or stay.
type powerLoss struct {
	mu      sync.Mutex
	left    int             // steps until the power fails
	content map[string]bool // files that were written and not synced
	names   map[string]bool // files and folders that got their name in a folder that was not synced
	steps   []string
}

func (p *powerLoss) trace(op, path string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 {
		return errPowerLoss
	}
	p.left--
	p.steps = append(p.steps, op)
	switch op {
	case "write":
		p.content[path] = true
	case "sync":
		delete(p.content, path)
	case "rename", "mkdir":
		p.names[path] = true
	case "sync folder":
		for n := range p.names {
			if filepath.Dir(n) == path {
				delete(p.names, n)
			}
		}
	}
	return nil
}

// fail does to the disk what the loss of power does.
func (p *powerLoss) fail(rng *rand.Rand) {
	for f := range p.content {
		_ = os.WriteFile(f, make([]byte, rng.IntN(1000)), 0o644)
	}
	for f := range p.names {
		if rng.IntN(2) == 0 {
			_ = os.RemoveAll(f)
		}
	}
}

// Whichever step is the last one before the power fails: what Put reported as
// stored is there afterwards, and nothing that is there is wrong.
func TestPowerLoss(t *testing.T) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(1, 2))
	// Of the blocks of a call, one shares its folder with the earlier ones.
	var same []blocks.Block
	for i := 0; len(same) < 3; i++ {
		if b := rawBlock(fmt.Append(nil, i)); b.Cid().Hash()[2] == 0x77 {
			same = append(same, b)
		}
	}
	for step := 0; ; step++ {
		dir := filepath.Join(t.TempDir(), "store")
		loss := &powerLoss{left: step, content: map[string]bool{}, names: map[string]bool{}}
		s, err := open(dir, disk{trace: loss.trace}, OpenOptions{})
		var stored []string
		survived := false
		if err == nil {
			for i := range 3 {
				bs := []blocks.Block{same[i], rawBlock(fmt.Appendf(nil, "b %d", i))}
				if err = s.PutMany(ctx, bs); err != nil {
					break
				}
				stored = append(stored, bs[0].Cid().String(), bs[1].Cid().String())
			}
			survived = err == nil
			s.Close()
		}
		if err != nil && !errors.Is(err, errPowerLoss) {
			t.Fatal(err)
		}
		loss.fail(rng)
		// A name that was synced must belong to content that was: unsynced
		// content may only be in tmp.
		for f := range loss.content {
			if filepath.Base(filepath.Dir(f)) != "tmp" && filepath.Base(f) != "version.new" {
				t.Errorf("step %d: %s has its name and no content", step, f)
			}
		}
		checkKilled(t, dir, stored)
		if t.Failed() {
			t.Fatalf("after step %d: %q", step, loss.steps)
		}
		if survived {
			if step < 15 {
				t.Errorf("only %d steps were traced", step)
			}
			return
		}
	}
}

// The order of a write: the content is on disk before the name is given, and
// the name before the caller hears of it.
func TestOrderOfWrites(t *testing.T) {
	loss := &powerLoss{left: -1, content: map[string]bool{}, names: map[string]bool{}}
	s, err := open(t.TempDir(), disk{trace: loss.trace}, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	loss.steps = nil
	if err := s.Put(t.Context(), rawBlock([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	want := []string{"write", "sync", "mkdir", "rename", "sync folder", "sync folder"}
	if diff := cmp.Diff(want, loss.steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	loss.steps = nil
	if err := s.Put(t.Context(), rawBlock([]byte("x"))); err != nil || len(loss.steps) > 0 {
		t.Errorf("second Put: %v, steps %q, want none", err, loss.steps)
	}
}
