package runner

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/demo"
	"github.com/moot-net/moot/node/internal/fence"
	"github.com/moot-net/moot/node/internal/gossip"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/p2p"
	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// testNode is what a run needs of a node.
type testNode struct {
	key    crypto.PrivKey
	host   *p2p.Host
	store  *shard.Store
	hub    *Hub
	dir    string
	events *events
}

// events collects what was emitted.
type events struct {
	mu  sync.Mutex
	all []api.Event
}

func (e *events) add(ev api.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

func (e *events) count(t api.EventType) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, ev := range e.all {
		if ev.Type == t {
			n++
		}
	}
	return n
}

func nodeKey(t testing.TB, n int) (crypto.PrivKey, peer.ID) {
	t.Helper()
	seed := sha256.Sum256(fmt.Append(nil, "runner test ", n))
	k, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return k, id
}

// newNode makes node n, running until the end of the test.
func newNode(t testing.TB, n int, bootstrap ...string) *testNode {
	t.Helper()
	x := &testNode{dir: t.TempDir(), events: &events{}}
	x.key, _ = nodeKey(t, n)
	var err error
	if x.store, err = shard.Open(filepath.Join(x.dir, "store")); err != nil {
		t.Fatal(err)
	}
	if x.host, err = p2p.New(p2p.Options{Key: x.key, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Bootstrap: bootstrap}); err != nil {
		t.Fatal(err)
	}
	fenced := fence.New(x.host.ID())
	pl, err := pull.New(x.host.Libp2p(), x.store, pull.Options{Router: x.host, Serves: fenced.Serves})
	if err != nil {
		t.Fatal(err)
	}
	gs, err := gossip.New(x.host.Libp2p(), gossip.Options{Fence: fenced})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, fn := range []func(context.Context) error{pl.Run, gs.Run, x.host.Run} {
		running.Go(func() {
			if err := fn(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { stop(); running.Wait(); x.store.Close() })
	x.hub = NewHub(HubOptions{
		Key: x.key, Host: x.host, Gossip: gs, Puller: pl, Store: x.store, Threads: 1, Device: "cpu", Agent: "moot/test",
		Emit: x.events.add, Fence: fenced,
		ModelDir: func(ctx context.Context, c cid.Cid) (string, error) {
			dir := filepath.Join(x.dir, "models", c.String())
			if _, err := os.Stat(dir); err == nil {
				return dir, nil
			}
			return dir, x.store.Materialize(ctx, c, dir, shard.MaterializeOptions{MaxBytes: 1 << 30})
		},
	})
	return x
}

func (x *testNode) addr() string { return x.host.Addrs()[0] }

// launch imports the bundled model and data into x and makes a manifest.
func launch(t testing.TB, x *testNode, change func(*run.Manifest)) *run.Manifest {
	t.Helper()
	assets, err := demo.Write(filepath.Join(t.TempDir(), "assets"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := x.store.ImportModel(t.Context(), assets.ModelDir, shard.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := x.store.ImportDataset(t.Context(), shard.DatasetOptions{
		Files: assets.Data.Files, EvalFile: assets.Data.EvalFile, ShardBytes: assets.Data.ShardBytes, Seed: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	targets := []string{"q_proj", "v_proj"}
	tensors, err := train.Layout(assets.ModelDir, lora.Spec{Rank: 4, Alpha: 8, Targets: targets})
	if err != nil {
		t.Fatal(err)
	}
	man := &run.Manifest{
		Version: run.ManifestVersion, Name: "test", Model: m.Root, ModelBytes: uint64(m.Bytes),
		Dataset: d.Root, DatasetBytes: uint64(d.Bytes), LoRA: run.LoRA{Rank: 4, Alpha: 8, Targets: targets}, GenesisSeed: 1,
		Inner: run.Inner{
			LearningRateNano: 1e6, Beta1PPM: 9e5, Beta2PPM: 95e4, EpsilonPico: 1e4, ClipMilli: 1000,
			MinSteps: 1, MaxSteps: 3, BatchSamples: 4, MaxTokens: 96,
		},
		Outer: run.Outer{LearningRateQ16: 45875, MomentumQ16: 39322}, CodecBits: 2, PeriodMillis: 2000, Seats: 8, MinPeers: 1,
		MaxRounds: 3, Schedule: run.ScheduleCosine, EvalSamples: 8, Launcher: x.hub.self, Template: "alpaca",
	}
	for _, s := range tensors {
		man.Tensors = append(man.Tensors, run.Tensor{Name: s.Name, Rows: uint32(s.Rows), Cols: uint32(s.Cols)})
	}
	if change != nil {
		change(man)
	}
	if err := man.Validate(); err != nil {
		t.Fatal(err)
	}
	return man
}

// takePart runs a run on x until stop is called, or the end of the test.
func (x *testNode) takePart(t testing.TB, man *run.Manifest) (r *Runner, stop func() error) {
	t.Helper()
	r, err := x.hub.Open(filepath.Join(x.dir, "run"), man)
	if err != nil {
		t.Fatal(err)
	}
	return r, x.goOn(t, r)
}

// goOn runs a run that is open.
func (x *testNode) goOn(t testing.TB, r *Runner) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		err := <-ended
		if cerr := r.Close(); err == nil {
			err = cerr
		}
		return err
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

// until waits for what comes within ten minutes, on a busy machine, or fails.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within ten minutes", what)
		}
	}
}

// endNow has the launcher, whose runner is the first, end a run that all take part in.
func endNow(t testing.TB, rs ...*Runner) {
	t.Helper()
	until(t, "order that is taken", func() bool { return rs[0].Order(t.Context(), msg.Order{Action: msg.ActionStop}) == nil })
	sameEnd(t, rs...)
}

// sameEnd checks that runs ended with the same record.
func sameEnd(t testing.TB, rs ...*Runner) {
	t.Helper()
	for _, r := range rs {
		until(t, "final round", func() bool { return r.Summary().Final })
	}
	heads := []string{}
	for _, r := range rs {
		heads = append(heads, r.Summary().Head)
	}
	if len(slices.Compact(heads)) != 1 {
		t.Errorf("the heads differ: %v", heads)
	}
}
