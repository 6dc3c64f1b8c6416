package app

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/config"
	"github.com/moot-net/moot/node/internal/demo"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/proto/run"
)

// testConfig is that of a node that finds nobody by itself.
func testConfig(dir string) config.Config {
	c := config.Default()
	c.DataDir, c.MDNS, c.Threads = dir, false, 2
	c.SetListen([]string{"/ip4/127.0.0.1/tcp/0"})
	c.SetAPI("127.0.0.1:0")
	return c
}

// testLog shows the log when a test fails.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// testNode is a node without API in dir, whose runs are made by open (nil: real
// ones). It runs until stop is called or the test ends.
func testNode(t *testing.T, dir string, open func(dir string, m *run.Manifest) (participant, error), prepare ...func(*node)) (n *node, stop func()) {
	t.Helper()
	store, err := openDataDir(dir, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n, err = newNode(Options{Config: testConfig(dir), Log: testLog(t), open: open}, store, cancel)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range prepare {
		p(n)
	}
	ended := make(chan error, 1)
	go func() { ended <- runStages(ctx, n.log, n.stages()) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the node ended with %v", err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return n, stop
}

// assets are the bundled model and data.
func assets(t testing.TB) api.DemoAssets {
	t.Helper()
	a, err := demo.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// imported puts the bundled model and data into a node.
func imported(t *testing.T, n *node) (api.Model, api.Dataset) {
	t.Helper()
	a := assets(t)
	m, err := n.ImportModel(t.Context(), api.ImportModelRequest{Dir: a.ModelDir}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	d, err := n.ImportDataset(t.Context(), a.Data, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return m, d
}

// importedBy puts the bundled model and data into a daemon.
func importedBy(t *testing.T, a *daemon) (api.Model, api.Dataset) {
	t.Helper()
	x := assets(t)
	m, err := a.ImportModel(t.Context(), api.ImportModelRequest{Dir: x.ModelDir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := a.ImportDataset(t.Context(), x.Data, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m, data
}

func quiet(api.Progress) {}

// runText is a run file.
func runText(m api.Model, d api.Dataset, more string) string {
	return "name = \"test\"\nmodel = \"" + m.ID + "\"\ndata = \"" + d.ID + "\"\n" + more
}

// wantCode checks the code of an error and that its text has want.
func wantCode(t *testing.T, err error, code api.Code, want string) {
	t.Helper()
	if e := api.AsError(err); e == nil || e.Code != code || !strings.Contains(e.Message, want) {
		t.Errorf("error %v, want %s with %q", err, code, want)
	}
}

// copyDir copies a folder without folders in it.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// rewrite replaces text in a file.
func rewrite(t *testing.T, path, old, with string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		t.Fatalf("%s has no %q", path, old)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(b), old, with, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fakeRun is a participant that does nothing by itself.
type fakeRun struct {
	dir      string
	manifest *run.Manifest
	began    chan struct{} // closed by Run
	fail     chan error    // ends Run
	ready    error         // of Ready
	now      *api.Run      // what it says of itself; nil: that it trains
	snapshot runner.Snapshot

	mu     sync.Mutex
	calls  []string // guarded by mu
	closed bool     // guarded by mu
}

func newFakeRun(dir string, m *run.Manifest) *fakeRun {
	return &fakeRun{dir: dir, manifest: m, began: make(chan struct{}), fail: make(chan error, 1)}
}

func (f *fakeRun) call(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, name)
	if f.closed {
		f.calls = append(f.calls, "after Close")
	}
	f.closed = f.closed || name == "Close"
}

func (f *fakeRun) did() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.calls, " ")
}

func (f *fakeRun) Run(ctx context.Context) error {
	f.call("Run")
	close(f.began) // panics when it is run twice
	defer f.call("ended")
	select {
	case <-ctx.Done():
		return nil
	case err := <-f.fail:
		return err
	}
}

func (f *fakeRun) Close() error { f.call("Close"); return nil }

func (f *fakeRun) Ready(ctx context.Context, _ api.ProgressFunc) error {
	select {
	case <-f.began:
		return f.ready
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fakeRun) Leave(context.Context) { f.call("Leave") }

func (f *fakeRun) Online() []api.OnlineSample { return nil }

func (f *fakeRun) Manifest() *run.Manifest { return f.manifest }

func (f *fakeRun) Summary() api.Run {
	id, _ := f.manifest.ID()
	if f.now != nil {
		r := *f.now
		r.ID = id.String()
		return r
	}
	return api.Run{ID: id.String(), Name: f.manifest.Name, State: api.RunTraining, Phase: "train", Round: 2}
}

func (f *fakeRun) Detail() api.RunDetail { return api.RunDetail{Run: f.Summary()} }

func (f *fakeRun) Rounds(from uint64, limit int) ([]api.Round, error) {
	var l []api.Round
	for n := from; n <= 2 && len(l) < limit; n++ {
		l = append(l, api.Round{Round: n})
	}
	return l, nil
}

func (f *fakeRun) StateAt(context.Context, *uint64, cid.Cid) (runner.Snapshot, error) {
	if f.snapshot.State == nil {
		return runner.Snapshot{}, errors.New("no state")
	}
	return f.snapshot, nil
}

// fakeRuns makes fake runs, and keeps all of them.
type fakeRuns struct {
	ready error    // of all; see fakeRun
	now   *api.Run // of all

	mu   sync.Mutex
	made []*fakeRun // guarded by mu
}

func (f *fakeRuns) open(dir string, m *run.Manifest) (participant, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := newFakeRun(dir, m)
	r.ready, r.now = f.ready, f.now
	f.made = append(f.made, r)
	return r, nil
}

func (f *fakeRuns) all() []*fakeRun {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*fakeRun(nil), f.made...)
}

// began waits until the i-th run that was made has begun.
func (f *fakeRuns) began(t *testing.T, i int) *fakeRun {
	t.Helper()
	eventually(t, func() bool { return len(f.all()) > i })
	r := f.all()[i]
	select {
	case <-r.began:
	case <-time.After(2 * time.Minute):
		t.Fatal("the run did not begin")
	}
	return r
}

// eventually waits for what another goroutine does.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen in time")
		}
	}
}

// leftovers lists what an interrupted or finished operation should not leave.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	l, err := filepath.Glob(filepath.Join(dir, "*"+tempInfix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}
