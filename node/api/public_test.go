package api_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// source is a fake node as a client tells of it. It counts what it is asked.
type source struct {
	*apitest.Fake
	asked atomic.Int64
}

func (s *source) Status(ctx context.Context) (api.Status, error) {
	s.asked.Add(1)
	return s.Fake.Status(ctx)
}

func (s *source) Runs(ctx context.Context) (api.Runs, error) {
	s.asked.Add(1)
	l, err := s.Fake.Runs(ctx)
	return api.Runs{Runs: l}, err
}

func (s *source) Run(ctx context.Context, id string) (api.RunDetail, error) {
	s.asked.Add(1)
	return s.Fake.Run(ctx, id)
}

func (s *source) Rounds(ctx context.Context, id string, from uint64, limit int) (api.Rounds, error) {
	s.asked.Add(1)
	l, err := s.Fake.Rounds(ctx, id, from, limit)
	return api.Rounds{Rounds: l}, err
}

// secrets are what a Public must not tell; a part of each text of the fake.
var secrets = []string{
	"10.1.2.3", "4717", "fe80::1", "2001:db8", "/home/ada", `C:\Users`, "ada's machine", "example.org", "of another run", apitest.ID("other"),
}

// hostile makes a node whose every text has something that is not for everybody.
func hostile() (*apitest.Fake, string) {
	f := apitest.New("node")
	why := "pulling /ip4/10.1.2.3/tcp/4717/p2p/12D3 from 10.1.2.3:4717, [fe80::1]:4717, 2001:db8:0:0:1:0:0:1, fe80::1 and /dns4/example.org/udp/4717 into /home/ada/x y and C:\\Users\\ada: 3/4 deltas at 12:30:59"
	f.Node.DataDir, f.Node.Addrs, f.Node.Why, f.Node.Device = "/home/ada/moot", []string{"/ip4/10.1.2.3/tcp/4717"}, why, "ada's machine"
	f.Node.API, f.Node.Do, f.Node.ConfigError = "http://10.1.2.3:4717", "look into /home/ada", "/home/ada/mootd.toml:1"
	d := apitest.Detail("shown", apitest.PeerID("node"))
	d.Why = why
	d.Members = []api.Member{{Peer: apitest.PeerID("a"), Agent: "moot at 10.1.2.3:4717", Device: "/home/ada/device x"}}
	d.Pending = []api.PendingOrder{{Order: api.Order{Peer: apitest.PeerID("a"), Action: "pause", Note: why}, Peers: []string{apitest.PeerID("a")}}}
	f.AddRun(d)
	o := apitest.Detail("other", apitest.PeerID("node"))
	o.Name, o.Joined = "of another run", false
	f.AddRun(o)
	f.AddPeer(api.Peer{ID: apitest.PeerID("a"), Addr: "/ip4/10.1.2.3/tcp/4717"})
	for n := uint64(1); n <= 3; n++ {
		r := apitest.DecidedRound("shown", n, false, apitest.PeerID("node"), apitest.PeerID("a"))
		r.Orders = []api.Order{{Peer: apitest.PeerID("node"), Action: "pause", Note: why}}
		f.Decide(d.ID, r)
	}
	f.Log.Publish(api.Event{Type: api.EventAlert, Run: d.ID, Text: why})
	f.Log.Publish(api.Event{Type: api.EventPull, Run: d.ID, Text: why, Progress: &api.Progress{Text: why}})
	f.Log.Publish(api.Event{Type: api.EventRunState, Run: d.ID, State: "syncing", Why: why})
	f.Log.Publish(api.Event{Type: api.EventNode, State: "syncing", Why: why})
	f.Log.Publish(api.Event{Type: api.EventRunState, Run: o.ID, State: "syncing", Why: why})
	return f, d.ID
}

// watchable is a source with events.
type watchable interface {
	api.Source
	Watch(ctx context.Context, run string, after api.Cursor, emit func(api.Event) error) error
}

// servePublic runs a Public of src at a real address, which it returns.
func servePublic(t *testing.T, src watchable, o api.PublicOptions) string {
	t.Helper()
	o.Source = src
	o.Follow = func(ctx context.Context, emit func(api.Event) error) error {
		return src.Watch(ctx, "", api.Cursor{}, emit)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	p := api.NewPublic(o)
	go func() { done <- p.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return "http://" + l.Addr().String()
}

// fetch asks for a page as anybody on the network would.
func fetch(t *testing.T, method, url string, headers ...string) (status int, body string) {
	t.Helper()
	var in io.Reader
	if method == "POST" {
		in = strings.NewReader(`{"action":"pause"}`)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url, in)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		r.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// TestPublicShowsRunsAlone: without token, under any name, the page and the
// runs; no route that changes something, and no text that is of a machine.
func TestPublicShowsRunsAlone(t *testing.T) {
	f, id := hostile()
	url := servePublic(t, &source{Fake: f}, api.PublicOptions{})
	var told strings.Builder
	shown := map[string]bool{}
	for _, path := range []string{
		"/", "/web/main.js", "/healthz", "/api/v1/access", "/api/v1/status", "/api/v1/runs", "/api/v1/runs/" + id, "/api/v1/runs/" + id[:12],
		"/api/v1/runs/" + id + "/rounds", "/api/v1/runs/" + id + "/rounds/2", "/api/v1/runs/" + id + "/coverage", "/api/v1/runs/" + id + "/online",
		"/api/v1/runs/" + id + "/series", "/api/v1/runs/" + id + "/peers",
	} {
		status, body := fetch(t, "GET", url+path, "Host: moot.example.org", "Sec-Fetch-Site: cross-site")
		if status != 200 {
			t.Errorf("%s: %d %s", path, status, body)
		}
		if path != "/" && !strings.HasPrefix(path, "/web/") {
			told.WriteString(body)
		}
		shown[strings.Replace(path, id, "{id}", 1)] = true
	}
	// Events, until the last of those that are for everybody.
	resp, err := http.Get(url + "/api/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := ""
	for b := make([]byte, 4096); !strings.Contains(events, `"node.state"`); {
		n, err := resp.Body.Read(b)
		if events += string(b[:n]); err != nil {
			t.Fatalf("events ended: %v after %s", err, events)
		}
	}
	told.WriteString(events)
	if strings.Contains(events, "alert") || strings.Contains(events, "pull.progress") || strings.Count(events, "round.done") != 3 {
		t.Errorf("events: %s", events)
	}
	for _, s := range secrets {
		if i := strings.Index(told.String(), s); i >= 0 {
			t.Errorf("%q is told: …%.120s", s, told.String()[max(0, i-60):])
		}
	}
	for _, want := range []string{"pirate", "12:30:59", "3/4 deltas", "moot at "} {
		if want != "pirate" && !strings.Contains(told.String(), want) {
			t.Errorf("%q is lost", want)
		}
	}
	// What else the daemon has is not there, with its token or without.
	local := newServer(apitest.New("x"))
	for _, pattern := range local.Patterns() {
		method, path, _ := strings.Cut(pattern, " ")
		if method == "GET" && (shown[path] || path == "/healthz" || strings.Contains(path, "{n}") || strings.HasSuffix(path, "/events")) {
			continue
		}
		path = strings.NewReplacer("{id}", id, "{n}", "1").Replace(path)
		for _, auth := range []string{"X: y", "Authorization: Bearer " + token} {
			if status, body := fetch(t, method, url+path, auth); status != 404 && status != 405 || !strings.Contains(body, `"ok":false`) {
				t.Errorf("%s: %d %.200s", pattern, status, body)
			}
		}
	}
	for _, path := range []string{"/api/v1/runs/" + apitest.ID("other"), "/api/v1/runs/" + apitest.ID("other") + "/rounds", "/api/v1/runs/" + apitest.ID("other") + "/coverage", "/api/v1/runs/" + apitest.ID("other") + "/online", "/api/v1/runs/" + apitest.ID("other") + "/series", "/api/v1/runs/" + apitest.ID("other") + "/peers"} {
		if status, body := fetch(t, "GET", url+path); status != 404 {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

// TestPublicOnly: --run shows one run, also one that the node is not in.
func TestPublicOnly(t *testing.T) {
	f, id := hostile()
	url := servePublic(t, &source{Fake: f}, api.PublicOptions{Runs: []string{apitest.ID("other")}})
	if _, body := fetch(t, "GET", url+"/api/v1/runs"); !strings.Contains(body, apitest.ID("other")) || strings.Contains(body, id) {
		t.Errorf("runs: %s", body)
	}
}

// TestPublicAsksSeldom: a thousand watchers cost the node as much as a few;
// what happened is seen by the next who asks.
func TestPublicAsksSeldom(t *testing.T) {
	f, id := hostile()
	src := &source{Fake: f}
	url := servePublic(t, src, api.PublicOptions{})
	fetch(t, "GET", url+"/api/v1/runs/"+id)
	before, begun := src.asked.Load(), time.Now()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 25 {
				fetch(t, "GET", url+"/api/v1/runs/"+id)
			}
		})
	}
	wg.Wait()
	// So long is an answer kept. Then all 20 may ask at once, for the list of runs and for the run.
	kept := 2 * time.Second
	if n, most := src.asked.Load()-before, 40*(2+int64(time.Since(begun)/kept)); n > most {
		t.Fatalf("500 questions became %d, want at most %d", n, most)
	}
	// Who hears of a round and asks gets it, whatever was kept.
	lines := events(t, url)
	fetch(t, "GET", url+"/api/v1/runs/"+id)
	f.Decide(id, apitest.DecidedRound("shown", 4, false, apitest.PeerID("node")))
	for !strings.Contains(lines.Text(), `"n":4,`) {
		if !lines.Scan() {
			t.Fatalf("events ended: %v", lines.Err())
		}
	}
	if _, body := fetch(t, "GET", url+"/api/v1/runs/"+id); !strings.Contains(body, `"round":4,`) {
		t.Errorf("round 4 was heard of and is not seen: %s", body)
	}
	// Who asks for something else each time does not reach the node for ever.
	asked, began := src.asked.Load(), time.Now()
	for n := range 400 {
		fetch(t, "GET", fmt.Sprintf("%s/api/v1/runs/%s/rounds?from=%d", url, id, n+1))
	}
	if n, most := src.asked.Load()-asked, 110+50*time.Since(began).Seconds(); float64(n) > most {
		t.Errorf("400 different questions became %d, want at most %.0f", n, most)
	}
}

// events are the lines of a public page's stream of events.
func events(t *testing.T, url string) *bufio.Scanner {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", url+"/api/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return bufio.NewScanner(resp.Body)
}

// failing is a source that does not tell its runs while it is not up.
type failing struct {
	*source
	down atomic.Bool
}

func (f *failing) Runs(ctx context.Context) (api.Runs, error) {
	if f.down.Load() {
		return api.Runs{}, api.Errorf(api.CodeRetry, "too much is asked")
	}
	return f.source.Runs(ctx)
}

// TestPublicGap: of an event of which nobody can say whether it is for everybody, who
// watches hears that something happened, and nothing else.
func TestPublicGap(t *testing.T) {
	f, id := hostile()
	src := &failing{source: &source{Fake: f}}
	url := servePublic(t, src, api.PublicOptions{})
	lines := events(t, url)
	wait := func(what string) {
		t.Helper()
		for !strings.Contains(lines.Text(), what) {
			if !lines.Scan() {
				t.Fatalf("events ended before %s: %v", what, lines.Err())
			}
			if strings.Contains(lines.Text(), `"n":5,`) {
				t.Fatalf("told was %s", lines.Text())
			}
		}
	}
	f.Decide(id, apitest.DecidedRound("shown", 4, false, apitest.PeerID("node")))
	wait(`"n":4,`)
	src.down.Store(true)
	f.Decide(id, apitest.DecidedRound("shown", 5, false, apitest.PeerID("node")))
	wait(`"gap"`)
	src.down.Store(false)
	f.Decide(id, apitest.DecidedRound("shown", 6, false, apitest.PeerID("node")))
	wait(`"n":6,`)
}
