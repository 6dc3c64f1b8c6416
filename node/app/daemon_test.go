package app

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
	"github.com/moot-net/moot/node/client"
	"github.com/moot-net/moot/node/config"
)

// daemon is a whole one in this process.
type daemon struct {
	*client.Client
	endpoint api.Endpoint
	ended    chan error
	stop     func() error // ends it as a signal does; what Run returned
}

func startDaemon(t *testing.T, cfg config.Config) *daemon {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	started, ended := make(chan api.Endpoint, 1), make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{Config: cfg, Log: testLog(t), Started: func(e api.Endpoint) { started <- e }})
	}()
	d := &daemon{ended: ended}
	select {
	case d.endpoint = <-started:
	case err := <-ended:
		cancel()
		t.Fatal(err)
	}
	stopped := false
	d.stop = func() error {
		cancel()
		if stopped {
			return nil
		}
		stopped = true
		return <-ended
	}
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Error(err)
		}
	})
	c, err := client.Open(cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	d.Client = c
	return d
}

func TestDaemonTwice(t *testing.T) {
	cfg := testConfig(t.TempDir())
	d := startDaemon(t, cfg)
	first, err := d.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if first.Peer != d.endpoint.Peer || first.State != api.NodeIdle || first.DataDir != cfg.DataDir || first.PID != os.Getpid() || len(first.Addrs) == 0 {
		t.Errorf("status %+v", first)
	}
	if _, err := d.ImportModel(t.Context(), api.ImportModelRequest{Dir: assets(t).ModelDir}, nil); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(d.endpoint.URL + "/api/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without token: %s", resp.Status)
	}
	old, err := api.ReadToken(cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{api.EndpointFile, api.TokenFile} {
		if _, err := os.Stat(filepath.Join(cfg.DataDir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there after the end: %v", name, err)
		}
	}

	d = startDaemon(t, cfg)
	second, err := d.Status(t.Context())
	if err != nil || second.Peer != first.Peer {
		t.Errorf("the second start is %s (%v), the first was %s", second.Peer, err, first.Peer)
	}
	if l, err := d.Models(t.Context()); err != nil || len(l.Models) != 1 {
		t.Errorf("models %v, %v", l, err)
	}
	if token, err := api.ReadToken(cfg.DataDir); err != nil || token == old {
		t.Errorf("the token is that of the first start (%v)", err)
	}
}

func TestShutdownByAPI(t *testing.T) {
	d := startDaemon(t, testConfig(t.TempDir()))
	if err := d.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-d.ended:
		d.ended <- err
		if err != nil {
			t.Error(err)
		}
	case <-time.After(2 * time.Minute):
		t.Error("it goes on")
	}
}

// A second daemon must leave the files of the first alone.
func TestDataDirInUse(t *testing.T) {
	cfg := testConfig(t.TempDir())
	d := startDaemon(t, cfg)
	err := Run(t.Context(), Options{Config: cfg, Log: testLog(t)})
	wantCode(t, err, api.CodeConflict, ") uses "+cfg.DataDir)
	if _, err := d.Status(t.Context()); err != nil {
		t.Errorf("the first daemon: %v", err)
	}
	if c, err := client.Open(cfg.DataDir); err != nil {
		t.Errorf("the first daemon is not found any more: %v", err)
	} else {
		c.Close()
	}
}

// What a daemon that was killed left of its API is gone as soon as the next one
// has the folder.
func TestDataDirOfKilled(t *testing.T) {
	dir := t.TempDir()
	if err := api.WriteEndpoint(dir, api.Endpoint{URL: "http://127.0.0.1:1", PID: 1}); err != nil {
		t.Fatal(err)
	}
	store, err := openDataDir(dir, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if e, err := api.ReadEndpoint(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is still %+v, %v", e, err)
	}
	_, err = openDataDir(dir, testLog(t))
	wantCode(t, err, api.CodeConflict, "another mootd uses "+dir)
}

// What a node makes in a folder that others may look into is its user's alone.
func TestDataDirOpenToOthers(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes of files are for Unix")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	store, err := openDataDir(dir, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has the mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

// A node whose events cannot be kept has them all the same.
func TestEventsNotKept(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, eventsFile), 0o700); err != nil {
		t.Fatal(err)
	}
	n, stop := testNode(t, dir, new(fakeRuns).open)
	seen := errors.New("seen")
	if err := n.Watch(t.Context(), "", api.Cursor{}, func(api.Event) error { return seen }); !errors.Is(err, seen) {
		t.Errorf("watch: %v", err)
	}
	stop()
}

func TestPortsInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr)
	peers := "/ip4/127.0.0.1/tcp/" + strconv.Itoa(taken.Port)
	for _, tt := range []struct {
		name string
		set  func(*config.Config)
		any  func(*config.Config)
	}{
		{"peers", func(c *config.Config) { c.SetListen([]string{peers}) }, func(c *config.Config) { c.AnyPort = true }},
		{"API", func(c *config.Config) { c.SetAPI(taken.String()) }, func(c *config.Config) { c.AnyAPIPort = true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			tt.set(&cfg)
			err := Run(t.Context(), Options{Config: cfg, Log: testLog(t)})
			wantCode(t, err, api.CodeConflict, "address already in use")
			if api.AsError(err).Hint == "" {
				t.Error("no hint")
			}
			tt.any(&cfg)
			d := startDaemon(t, cfg)
			if _, err := d.Status(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestInvalidConfig(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.Threads = 0
	err := Run(t.Context(), Options{Config: cfg})
	wantCode(t, err, api.CodeConfig, "threads is 0")
	if l, _ := os.ReadDir(cfg.DataDir); len(l) > 0 {
		t.Errorf("something was written: %v", l)
	}
}

// Two daemons train a run, one of them is started again in the middle, and both
// come to the same state and export the same bytes.
func TestTwoDaemonsTrain(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for some seconds")
	}
	cfgA, cfgB := testConfig(t.TempDir()), testConfig(t.TempDir())
	cfgA.Threads, cfgB.Threads = 1, 1
	a, b := startDaemon(t, cfgA), startDaemon(t, cfgB)
	m, data := importedBy(t, a)
	r, err := a.Launch(t.Context(), api.LaunchRequest{Name: "run.toml", TOML: runText(m, data, `
rounds = 3
min_peers = 2
period = "2s"
eval_samples = 8
lora.rank = 2
inner.max_steps = 3
inner.batch_samples = 2
inner.sequence_tokens = 96
`)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	joined, err := b.Join(t.Context(), api.JoinRequest{Run: r.ID, Peers: a.endpoint.Addrs}, nil)
	if err != nil || !joined.Joined {
		t.Fatal(joined, err)
	}
	wait := func(d *daemon, what string, ok func(api.Run) bool) api.RunDetail {
		t.Helper()
		return apitest.Await(t, d, r.ID, what, ok)
	}
	wait(b, "a round has trained", func(r api.Run) bool { return r.TrainedRounds >= 1 })
	if l, err := b.Models(t.Context()); err != nil || len(l.Models) != 1 || l.Models[0].ID != m.ID || !l.Models[0].Trainable {
		t.Errorf("models of who joined: %+v, %v", l, err)
	}
	if l, err := b.Datasets(t.Context()); err != nil || len(l.Datasets) != 1 || l.Datasets[0].ID != data.ID || l.Datasets[0].Bytes != data.Bytes {
		t.Errorf("data sets of who joined: %+v, %v", l, err)
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	b = startDaemon(t, cfgB)
	// Two seats without each other both go on; they agree when they have met.
	ra := wait(a, "both are at the same end", func(r api.Run) bool {
		rb, err := b.Run(t.Context(), r.ID)
		return err == nil && r.Final && rb.Final && rb.Head == r.Head
	})
	if rb := wait(b, "it is final", func(r api.Run) bool { return r.Final }); ra.StateCID != rb.StateCID {
		t.Errorf("states %s and %s after record %s", ra.StateCID, rb.StateCID, ra.Head)
	}
	ea, err := a.Export(t.Context(), api.ExportRequest{Run: r.ID, Dir: filepath.Join(t.TempDir(), "a")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	eb, err := b.Export(t.Context(), api.ExportRequest{Run: r.ID, Dir: filepath.Join(t.TempDir(), "b")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range ea.Files {
		// The card has what each node measured, and one may not have come to it yet.
		if ea.Files[i] != eb.Files[i] && ea.Files[i].Name != "README.md" {
			t.Errorf("%+v and %+v", ea.Files[i], eb.Files[i])
		}
	}
	peers, err := a.Peers(t.Context())
	if err != nil || len(peers.Peers) != 1 || peers.Peers[0].ID != b.endpoint.Peer || peers.Peers[0].Where != "loopback" || len(peers.Peers[0].Runs) != 1 {
		t.Errorf("peers of the launcher: %+v, %v", peers, err)
	}
}
