package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// daemon is the real API server before a fake daemon.
type daemon struct {
	*apitest.Fake
	dir  string
	addr string
	stop func()
}

// start runs a daemon with data folder dir, at addr ("127.0.0.1:0" for any).
func start(t *testing.T, fake *apitest.Fake, dir, addr string) *daemon {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
	for end := time.Now().Add(2 * time.Minute); err != nil && time.Now().Before(end); l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", addr) {
		time.Sleep(20 * time.Millisecond) // a connection of somebody else may have the port for a moment
	}
	if err != nil {
		t.Fatal(err)
	}
	token, err := api.NewToken(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{Fake: fake, dir: dir, addr: l.Addr().String()}
	if err := api.WriteEndpoint(dir, api.Endpoint{URL: "http://" + d.addr, Peer: fake.Node.Peer, PID: os.Getpid()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		s := api.NewServer(fake, api.Options{Token: token, PingInterval: 20 * time.Millisecond})
		if err := s.Serve(ctx, l); err != nil {
			t.Error(err)
		}
	})
	d.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(d.stop)
	return d
}

func open(t *testing.T, d *daemon) *Client {
	t.Helper()
	c, err := Open(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// wantError checks code, text and that a hint is there.
func wantError(t *testing.T, err error, code api.Code, text string) {
	t.Helper()
	e := new(api.Error)
	if !errors.As(err, &e) {
		t.Errorf("error is %T (%v), want *api.Error", err, err)
		return
	}
	if e.Code != code || e.Exit != code.Exit() || !strings.Contains(e.Message, text) {
		t.Errorf("error is %s (%d): %s, want %s (%d) with %q", e.Code, e.Exit, e.Message, code, code.Exit(), text)
	}
	if code == api.CodeDaemon && e.Hint == "" && !strings.Contains(text, "not understood") {
		t.Errorf("error %q has no hint", e.Message)
	}
}

// TestEveryRoute walks through all methods against the real server.
func TestEveryRoute(t *testing.T) {
	fake := apitest.New("node")
	stopped := make(chan struct{})
	fake.OnShutdown = func() { close(stopped) }
	fake.AddPeer(api.Peer{ID: apitest.PeerID("other"), Where: "loopback"})
	c := open(t, start(t, fake, t.TempDir(), "127.0.0.1:0"))
	ctx := t.Context()
	var phases []string
	progress := func(p api.Progress) {
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		}
	}

	if err := c.Healthy(ctx); err != nil {
		t.Error(err)
	}
	if v, err := c.Version(ctx); err != nil || v.Go == "" {
		t.Errorf("Version = %+v, %v", v, err)
	}
	if s, err := c.Status(ctx); err != nil || s.Peer != apitest.PeerID("node") || s.Peers != 1 {
		t.Errorf("Status = %+v, %v", s, err)
	}
	if p, err := c.Peers(ctx); err != nil || len(p.Peers) != 1 || p.Peers[0].Where != "loopback" {
		t.Errorf("Peers = %+v, %v", p, err)
	}
	dir := filepath.Join(t.TempDir(), "demo")
	assets, err := c.DemoAssets(ctx, dir)
	if err != nil || assets.ModelDir != filepath.Join(dir, "model") {
		t.Fatalf("DemoAssets = %+v, %v", assets, err)
	}
	m, err := c.ImportModel(ctx, api.ImportModelRequest{Dir: assets.ModelDir}, progress)
	if err != nil || m.ID != apitest.DirID("model") {
		t.Fatalf("ImportModel = %+v, %v", m, err)
	}
	if diff := cmp.Diff([]string{"check", "store"}, phases); diff != "" {
		t.Errorf("phases of ImportModel (-want +got):\n%s", diff)
	}
	d, err := c.ImportDataset(ctx, assets.Data, nil)
	if err != nil || d.ID != apitest.DirID("train.jsonl") {
		t.Fatalf("ImportDataset = %+v, %v", d, err)
	}
	if l, err := c.Models(ctx); err != nil || len(l.Models) != 1 || l.Models[0].ID != m.ID {
		t.Errorf("Models = %+v, %v", l, err)
	}
	if l, err := c.Datasets(ctx); err != nil || len(l.Datasets) != 1 || l.Datasets[0].ID != d.ID {
		t.Errorf("Datasets = %+v, %v", l, err)
	}
	fake.UploadDir(t.TempDir())
	u, err := c.Upload(ctx, api.UploadRequest{Name: "a & b.jsonl", Bytes: 3}, strings.NewReader("abc"))
	if err != nil || u.Name != "a & b.jsonl" || u.Bytes != 3 {
		t.Errorf("Upload = %+v, %v", u, err)
	}
	if p, err := c.PreviewDataset(ctx, api.PreviewRequest{Files: []string{u.File}}); err != nil || len(p.Files) != 1 || p.Files[0].Rows[0].Values[0].Text != "abc" {
		t.Errorf("PreviewDataset = %+v, %v", p, err)
	}
	if l, err := c.Uploads(ctx); err != nil || len(l.Uploads) != 1 || l.Uploads[0].ID != u.ID {
		t.Errorf("Uploads = %+v, %v", l, err)
	}
	if gone, err := c.RemoveUpload(ctx, u.ID); err != nil || gone.ID != u.ID {
		t.Errorf("RemoveUpload = %+v, %v", gone, err)
	}
	if _, err := c.RemoveUpload(ctx, "../"+u.ID); api.AsError(err).Code != api.CodeNotFound {
		t.Errorf("RemoveUpload of what is none: %v", err)
	}
	toml, err := os.ReadFile(assets.RunFile)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Launch(ctx, api.LaunchRequest{Name: "run.toml", TOML: string(toml), Model: m.ID[:12], Dataset: "last"}, nil)
	if err != nil || r.ID != apitest.ID("demo") || r.Model != m.ID || r.Dataset != d.ID {
		t.Fatalf("Launch = %+v, %v", r, err)
	}
	const rounds = 130 // more than one page
	for n := range uint64(rounds) {
		fake.Decide(r.ID, apitest.DecidedRound("demo", n+1, n+1 == rounds, apitest.PeerID("node")))
	}
	if l, err := c.Runs(ctx); err != nil || len(l.Runs) != 1 || l.Runs[0].Round != rounds {
		t.Errorf("Runs = %+v, %v", l, err)
	}
	if x, err := c.Run(ctx, "last"); err != nil || x.ID != r.ID || x.State != api.RunFinal || x.Manifest.LoRARank != 8 {
		t.Errorf("Run = %+v, %v", x, err)
	}
	if p, err := c.Rounds(ctx, r.ID, 2, 2); err != nil || len(p.Rounds) != 2 || p.Rounds[1].Round != 3 {
		t.Errorf("Rounds = %+v, %v", p, err)
	}
	if l, err := c.AllRounds(ctx, r.ID); err != nil || len(l) != rounds || l[rounds-1].Round != rounds {
		t.Errorf("AllRounds has %d rounds, %v, want %d", len(l), err, rounds)
	}
	if x, err := c.Round(ctx, r.ID, 3); err != nil || x.Record != apitest.ID("demo record 3") {
		t.Errorf("Round = %+v, %v", x, err)
	}
	out := filepath.Join(t.TempDir(), "adapter")
	if e, err := c.Export(ctx, api.ExportRequest{Run: r.ID, Dir: out}, nil); err != nil || len(e.Files) != 2 || e.Dir != out {
		t.Errorf("Export = %+v, %v", e, err)
	}
	if v, err := c.VerifyAdapter(ctx, api.VerifyAdapterRequest{Path: out}, nil); err != nil || !v.OK || v.Path != out || len(v.Checks) != 5 {
		t.Errorf("VerifyAdapter = %+v, %v", v, err)
	}
	prompt := api.Prompt{Instruction: "hello"}
	if g, err := c.Generate(ctx, api.GenerateRequest{Subject: api.Subject{Model: m.ID}, Prompts: []api.Prompt{prompt}}, nil); err != nil || g.Outputs[0].Text != "hello hello" {
		t.Errorf("Generate = %+v, %v", g, err)
	}
	if e, err := c.Evaluate(ctx, api.EvaluateRequest{Subject: api.Subject{Run: r.ID}}, nil); err != nil || *e.Accuracy != 0.9 {
		t.Errorf("Evaluate = %+v, %v", e, err)
	}
	if x, err := c.Leave(ctx, r.ID); err != nil || x.State != api.RunLeft {
		t.Errorf("Leave = %+v, %v", x, err)
	}
	if p, err := c.Plan(ctx, api.LaunchRequest{Name: "run.toml", TOML: string(toml), Model: m.ID[:12], Dataset: "last"}, nil); err != nil || p.Name != "demo" {
		t.Errorf("Plan = %+v, %v", p, err)
	}
	if f, err := c.CheckRun(ctx, api.CheckRunRequest{Run: r.ID}, nil); err != nil || f.Run != r.ID || f.Err() != nil {
		t.Errorf("CheckRun = %+v, %v", f, err)
	}
	if f, err := c.CheckRun(ctx, api.CheckRunRequest{Run: apitest.ID("large")}, nil); err != nil || api.AsError(f.Err()).Exit != 10 {
		t.Errorf("CheckRun = %+v, %v", f, err)
	}
	phases = nil
	if x, err := c.Join(ctx, api.JoinRequest{Run: r.ID, Peers: []string{"/ip4/127.0.0.1/tcp/1"}}, progress); err != nil || !x.Joined {
		t.Errorf("Join = %+v, %v", x, err)
	}
	if diff := cmp.Diff([]string{"manifest", "fit", "model", "data", "state"}, phases); diff != "" {
		t.Errorf("phases of Join (-want +got):\n%s", diff)
	}
	if err := c.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	<-stopped
}

// TestErrorsAsSent checks that code, exit code and hint of the daemon arrive,
// before and after a stream has begun.
func TestErrorsAsSent(t *testing.T) {
	fake := apitest.New("node")
	c := open(t, start(t, fake, t.TempDir(), "127.0.0.1:0"))
	_, err := c.Round(t.Context(), apitest.ID("nothing"), 1)
	wantError(t, err, api.CodeNotFound, "knows no run")
	if e := api.AsError(err); e.Hint != `"moot run list" lists what it knows` {
		t.Errorf("hint is %q", e.Hint)
	}
	dir := t.TempDir()
	_, err = c.ImportModel(t.Context(), api.ImportModelRequest{Dir: dir}, nil)
	wantError(t, err, api.CodeModel, "no config.json")
	_, err = c.ImportModel(t.Context(), api.ImportModelRequest{Dir: "relative"}, nil)
	wantError(t, err, api.CodeUsage, "must be an absolute path")

	// After pings the status is sent already: the error is the last line.
	fake.Block = make(chan struct{})
	time.AfterFunc(100*time.Millisecond, func() { close(fake.Block) })
	_, err = c.ImportModel(t.Context(), api.ImportModelRequest{Dir: dir}, nil)
	wantError(t, err, api.CodeModel, "no config.json")
	if e := api.AsError(err); e.Hint == "" {
		t.Error("the hint is lost in a stream")
	}
}

func TestNoDaemon(t *testing.T) {
	_, err := Open(t.TempDir())
	wantError(t, err, api.CodeDaemon, "no daemon is running")
	if hint := api.AsError(err).Hint; !strings.HasPrefix(hint, "start one with: mootd") {
		t.Errorf("hint is %q", hint)
	}
	if _, err := Open(""); err == nil {
		t.Error("Open without data folder succeeds")
	}

	d := start(t, apitest.New("node"), t.TempDir(), "127.0.0.1:0")
	c := open(t, d)
	d.stop() // api.json stays, as after a kill
	_, err = c.Status(t.Context())
	wantError(t, err, api.CodeDaemon, "is left from one that ended")
	_, err = c.ImportModel(t.Context(), api.ImportModelRequest{Dir: d.dir}, nil)
	wantError(t, err, api.CodeDaemon, "is left from one that ended")
	err = c.Watch(t.Context(), WatchOptions{}, func(api.Event) error { return nil })
	wantError(t, err, api.CodeDaemon, "is left from one that ended")
}

// TestForeignServer: the port of a dead daemon was taken by something else.
func TestForeignServer(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func(http.ResponseWriter)
		code   api.Code
		want   string
	}{
		"html":     {func(w http.ResponseWriter) { http.Error(w, "<html>", http.StatusNotFound) }, api.CodeDaemon, "is no moot daemon"},
		"redirect": {func(w http.ResponseWriter) { w.Header().Set("Location", "/x"); w.WriteHeader(http.StatusFound) }, api.CodeDaemon, "is no moot daemon"},
		"text":     {func(w http.ResponseWriter) { fmt.Fprint(w, "hello") }, api.CodeDaemon, "not understood"},
		"newer":    {func(w http.ResponseWriter) { fmt.Fprint(w, `{"schema":2}`) }, api.CodeVersion, "version 2"},
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, func(w http.ResponseWriter, _ *http.Request) { tt.answer(w) })
			_, err := c.Status(t.Context())
			wantError(t, err, tt.code, tt.want)
		})
	}
}

// serve opens a client of a server that is not the real one.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	dir := t.TempDir()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	if _, err := api.NewToken(dir); err != nil {
		t.Fatal(err)
	}
	if err := api.WriteEndpoint(dir, api.Endpoint{URL: "http://" + l.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	return open(t, &daemon{dir: dir})
}

func TestCutStream(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"empty":      {"", "was cut"},
		"progress":   {`{"schema":1,"type":"progress","phase":"model","done":1,"total":2}` + "\n", "was cut"},
		"half line":  {`{"schema":1,"type":"result","resu`, "not understood"},
		"no error":   {`{"schema":1,"type":"error"}` + "\n", "without saying which"},
		"other json": {`{"schema":1,"type":"result","result":{"schema":1,"id":7}}` + "\n", "not understood"},
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, tt.text) })
			_, err := c.ImportModel(t.Context(), api.ImportModelRequest{Dir: "/x"}, nil)
			if e := api.AsError(err); e == nil || e.Code != api.CodeDaemon || !strings.Contains(e.Message, tt.want) {
				t.Errorf("error is %v, want E_DAEMON with %q", err, tt.want)
			}
		})
	}
}

func TestSilentStream(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, `{"schema":1,"type":"ping"}`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	c.silent = 50 * time.Millisecond
	_, err := c.ImportModel(t.Context(), api.ImportModelRequest{Dir: "/x"}, nil)
	wantError(t, err, api.CodeDaemon, "fell silent")
}

// TestPingsKeepAlive: an operation may take longer than a stream may be silent.
func TestPingsKeepAlive(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for silent := 500 * time.Millisecond; ; silent *= 4 { // a machine that does nothing for a while is silent, too
		fake := apitest.New("node")
		fake.Block = make(chan struct{})
		c := open(t, start(t, fake, t.TempDir(), "127.0.0.1:0"))
		c.silent = silent
		time.AfterFunc(2*silent, func() { close(fake.Block) })
		_, err := c.ImportModel(t.Context(), api.ImportModelRequest{Dir: dir}, nil)
		if err == nil {
			return
		}
		if silent > 30*time.Second || !strings.Contains(err.Error(), "fell silent") {
			t.Fatal(err)
		}
	}
}

func TestContextEnds(t *testing.T) {
	fake := apitest.New("node")
	fake.Block = make(chan struct{})
	c := open(t, start(t, fake, t.TempDir(), "127.0.0.1:0"))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err := c.ImportModel(ctx, api.ImportModelRequest{Dir: "/x"}, nil)
	wantError(t, err, api.CodeInterrupted, "interrupted")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v does not wrap context.Canceled", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = c.Join(ctx, api.JoinRequest{Run: apitest.ID("x")}, nil)
	wantError(t, err, api.CodeRetry, "in time")
}

func TestTokenStaysHere(t *testing.T) {
	for url, ok := range map[string]bool{
		"http://127.0.0.1:1": true, "http://[::1]:1": true, "http://localhost:1": true,
		"http://example.org": false, "https://127.0.0.1:1": false, "http://10.0.0.1:1": false, "": false, "http://127.0.0.1.example.org": false,
	} {
		dir := t.TempDir()
		if _, err := api.NewToken(dir); err != nil {
			t.Fatal(err)
		}
		if err := api.WriteEndpoint(dir, api.Endpoint{URL: url}); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); (err == nil) != ok {
			t.Errorf("Open with address %q: %v", url, err)
		}
	}
}

// TestNoProxy: a proxy from the environment must not see the token.
func TestNoProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	c := open(t, start(t, apitest.New("node"), t.TempDir(), "127.0.0.1:0"))
	if c.http.Transport.(*http.Transport).Proxy != nil {
		t.Error("the transport has a proxy")
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWrongToken(t *testing.T) {
	d := start(t, apitest.New("node"), t.TempDir(), "127.0.0.1:0")
	if _, err := api.NewToken(d.dir); err != nil {
		t.Fatal(err)
	}
	_, err := open(t, d).Status(t.Context())
	wantError(t, err, api.CodeAuth, "does not know this token")
}
