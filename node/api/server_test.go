package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

const token = "0123456789abcdef"

// ask sends a request to a server without network, with the headers that a
// client sends; "Name: value" in headers replaces, "Name:" takes one away.
func ask(t *testing.T, s *api.Server, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	r.Host = "127.0.0.1:7717"
	r.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ":")
		switch v = strings.TrimSpace(v); {
		case k == "Host":
			r.Host = v
		case v == "":
			r.Header.Del(k)
		default:
			r.Header.Set(k, v)
		}
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// failed checks that an answer is an error object with this code.
func failed(t *testing.T, w *httptest.ResponseRecorder, status int, code api.Code, text string) {
	t.Helper()
	var f struct {
		Schema int        `json:"schema"`
		OK     *bool      `json:"ok"`
		Error  *api.Error `json:"error"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil {
		t.Errorf("answer is %q: %v", w.Body, err)
		return
	}
	if w.Code != status || f.Schema != 1 || f.OK == nil || *f.OK || f.Error == nil || f.Error.Code != code || f.Error.Exit != code.Exit() || !strings.Contains(f.Error.Message, text) {
		t.Errorf("answer is %d %s, want %d %s with %q", w.Code, w.Body, status, code, text)
	}
}

func newServer(f *apitest.Fake) *api.Server { return api.NewServer(f, api.Options{Token: token}) }

// TestWhoMayAsk: the token, no other name for this machine, no other web page.
func TestWhoMayAsk(t *testing.T) {
	s := newServer(apitest.New("node"))
	for name, tt := range map[string]struct {
		headers []string
		status  int
	}{
		"client":              {nil, 200},
		"localhost":           {[]string{"Host: localhost:1"}, 200},
		"IPv6":                {[]string{"Host: [::1]:1"}, 200},
		"no port":             {[]string{"Host: [::1]"}, 200},
		"lower case scheme":   {[]string{"Authorization: bearer " + token}, 200},
		"no token":            {[]string{"Authorization:"}, 401},
		"wrong token":         {[]string{"Authorization: Bearer x"}, 401},
		"longer token":        {[]string{"Authorization: Bearer " + token + "0"}, 401},
		"empty token":         {[]string{"Authorization: Bearer "}, 401},
		"other scheme":        {[]string{"Authorization: Basic " + token}, 401},
		"name that resolves":  {[]string{"Host: rebind.example.org:7717"}, 421},
		"loopback as a part":  {[]string{"Host: 127.0.0.1.example.org"}, 421},
		"address of the LAN":  {[]string{"Host: 192.168.1.2:7717"}, 421},
		"no brackets":         {[]string{"Host: ::1"}, 421},
		"own page":            {[]string{"Origin: http://127.0.0.1:7717", "Sec-Fetch-Site: same-origin"}, 200},
		"page of another one": {[]string{"Origin: http://example.org"}, 403},
		"page on other port":  {[]string{"Origin: http://127.0.0.1:1"}, 403},
		"sandboxed page":      {[]string{"Origin: null"}, 403},
		"https page":          {[]string{"Origin: https://127.0.0.1:7717"}, 403},
		"cross site":          {[]string{"Sec-Fetch-Site: cross-site"}, 403},
		"same site":           {[]string{"Sec-Fetch-Site: same-site"}, 403},
		"typed in":            {[]string{"Sec-Fetch-Site: none"}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			w := ask(t, s, "GET", "/api/v1/status", "", tt.headers...)
			if w.Code != tt.status {
				t.Errorf("status %d, want %d: %s", w.Code, tt.status, w.Body)
			}
			if tt.status != 200 {
				failed(t, w, tt.status, api.CodeAuth, "the API")
			}
		})
	}
	if w := ask(t, s, "GET", "/healthz", "", "Authorization:"); w.Code != 200 || w.Body.String() != "ok\n" {
		t.Errorf("healthz without token: %d %q", w.Code, w.Body)
	}
	failed(t, ask(t, s, "GET", "/healthz", "", "Host: example.org"), 421, api.CodeAuth, "not reached by the name")
}

// TestPage: the dashboard is the same for everybody and needs no token; who
// may not ask for it is told so, and nothing else comes without token.
func TestPage(t *testing.T) {
	s := newServer(apitest.New("node"))
	w := ask(t, s, "GET", "/", "", "Authorization:", "Sec-Fetch-Site: none")
	if w.Code != 200 || !strings.HasPrefix(w.Body.String(), "<!doctype html>") {
		t.Errorf("the page: %d %.100s", w.Code, w.Body)
	}
	if w := ask(t, s, "GET", "/web/main.js", "", "Authorization:", "Sec-Fetch-Site: same-origin"); w.Code != 200 {
		t.Errorf("a file of the page: %d %s", w.Code, w.Body)
	}
	failed(t, ask(t, s, "GET", "/", "", "Authorization:", "Host: rebind.example.org"), 421, api.CodeAuth, "not reached by the name")
	failed(t, ask(t, s, "GET", "/web/main.js", "", "Authorization:", "Sec-Fetch-Site: cross-site"), 403, api.CodeAuth, "other web pages")
	failed(t, ask(t, s, "POST", "/", "{}", "Authorization:"), 401, api.CodeAuth, "needs a token")
	failed(t, ask(t, s, "POST", "/", "{}"), 405, api.CodeUsage, "POST is not a method")
	for _, path := range []string{"/web/../api/v1/status", "/web/none.js"} {
		if w := ask(t, s, "GET", path, "", "Authorization:"); w.Code != 404 {
			t.Errorf("%s without token: %d %s", path, w.Code, w.Body)
		}
	}
}

// TestUnrouted: also what has no route is answered with an error object.
func TestUnrouted(t *testing.T) {
	s := newServer(apitest.New("node"))
	for _, path := range []string{"/web/", "/web/none.js", "/index.html", "/api/v1", "/api/v1/nothing", "/api/v1/runs//join", "/api/v1/runs/../status", "/api/v1/status/"} {
		failed(t, ask(t, s, "GET", path, ""), 404, api.CodeNotFound, "the API has no")
	}
	w := ask(t, s, "POST", "/api/v1/status", "{}")
	failed(t, w, 405, api.CodeUsage, "POST is not a method")
	if !strings.Contains(w.Body.String(), "use GET") {
		t.Errorf("answer %s does not say which method to use", w.Body)
	}
}

func TestBodies(t *testing.T) {
	fake := apitest.New("node")
	fake.AddRun(apitest.Detail("demo", apitest.PeerID("node")))
	s := newServer(fake)
	run := "/api/v1/runs/" + apitest.ID("demo")
	for _, tt := range []struct{ path, body, want string }{
		{"/api/v1/models/import", `{`, "not the JSON object"},
		{"/api/v1/models/import", `{"dri":"/x"}`, `unknown field`},
		{"/api/v1/models/import", `{"dir":"/x"} {}`, "after its JSON object"},
		{"/api/v1/models/import", `{"dir":""}`, "dir is missing"},
		{"/api/v1/models/import", `{"dir":"/x","quantize":"int8"}`, "must be nf4"},
		{"/api/v1/models/import", `{"dir":"x"}`, "must be an absolute path"},
		{"/api/v1/models/import", `{"dir":"/x/../y"}`, "without . and .."},
		{"/api/v1/models/import", `{"dir":"/x\u0000"}`, "must be an absolute path"},
		{"/api/v1/datasets/import", `{"files":[]}`, "at least one file"},
		{"/api/v1/datasets/import", `{"files":["/x"],"eval_fraction":1}`, "eval_fraction"},
		{"/api/v1/datasets/import", `{"files":["/x"],"eval_fraction":0.1,"eval_file":"/y"}`, "both given"},
		{"/api/v1/datasets/import", `{"files":["/x"],"eval_file":"y"}`, "absolute"},
		{"/api/v1/datasets/import", `{"files":["/x"],"shard_bytes":-1}`, "shard_bytes"},
		{"/api/v1/runs", `{"toml":" "}`, "toml is empty"},
		{run + "/join", `{"peers":[` + strings.Repeat(`"x",`, 100) + `"x"]}`, "at most 100"},
		{run + "/export", `{"dir":"x"}`, "absolute"},
		{run + "/export", `{"dir":"/x","format":"onnx"}`, "must be peft, merged or gguf"},
		{run + "/export", `{"dir":"/x","model":"/m"}`, "adapter or model is given for a run"},
		{"/api/v1/export", `{"dir":"/x","model":"/m"}`, "adapter and model must both be given"},
		{"/api/v1/export", `{"dir":"/x","model":"/m","adapter":"a"}`, "adapter"},
		{"/api/v1/export", `{"dir":"/x","model":"/m","adapter":"/a","round":1}`, "round, head or best is given without a run"},
		{run + "/export", `{"dir":"/x","nf4":true}`, "nf4 is given without the format merged"},
		{run + "/export", `{"dir":"/x","format":"gguf","dtype":"q4"}`, "must be f32 or f16"},
		{run + "/export", `{"dir":"/x","dtype":"f16"}`, "dtype is given without the format gguf"},
		{run + "/export", `{"dir":"/x","round":1,"head":"y"}`, "both given"},
		{run + "/export", `{"dir":"/x","round":1,"best":true}`, "best and round or head are both given"},
		{"/api/v1/runs/plan", `{"name":"run.toml"}`, "toml is empty"},
		{run + "/check", `{"link_mbit":-1}`, "link_mbit is -1"},
		{"/api/v1/generate", `{"model":"/m","prompts":[]}`, "nothing to answer"},
		{"/api/v1/generate", `{"model":"/m","prompts":[{"instruction":"x"}],"max_tokens":-1}`, "max_tokens"},
		{"/api/v1/generate", `{"model":"/m","prompts":[{"instruction":"x"}],"template":"jinja"}`, "must be alpaca, chat or none"},
		{"/api/v1/datasets/check", `{"files":[]}`, "at least one file"},
		{"/api/v1/datasets/check", `{"files":["x"]}`, "absolute"},
		{"/api/v1/datasets/check", `{"files":["/x"],"max_tokens":5}`, "model is missing"},
		{"/api/v1/datasets/check", `{"files":["/x"],"samples":-1}`, "samples is -1"},
		{"/api/v1/datasets/check", `{"files":["/x"],"model":"/m","template":"jinja"}`, "must be alpaca, chat or none"},
		{"/api/v1/datasets/import", `{"files":["/x"],"template":"jinja"}`, "must be alpaca, chat or none"},
		{"/api/v1/generate", `{"prompts":[{"instruction":"x"}]}`, "model is missing"},
		{"/api/v1/generate", `{"model":"/m","adapter":"a","prompts":[{"instruction":"x"}]}`, "absolute"},
		{"/api/v1/generate", `{"model":"/m","adapter":"/a","run":"last","prompts":[{"instruction":"x"}]}`, "both given"},
		{"/api/v1/evaluate", `{"model":"/m"}`, "dataset is missing"},
		{"/api/v1/evaluate", `{"model":"/m","round":1,"dataset":"` + apitest.DirID("x") + `"}`, "round is given without run"},
		{"/api/v1/demo/assets", `{"dir":"x"}`, "absolute"},
	} {
		failed(t, ask(t, s, "POST", tt.path, tt.body), 400, api.CodeUsage, tt.want)
	}
	failed(t, ask(t, s, "POST", "/api/v1/models/import", `{"dir":"/x"}`, "Content-Type: text/plain"), 415, api.CodeUsage, "must be JSON")
	failed(t, ask(t, s, "POST", "/api/v1/models/import", `{"dir":"/`+strings.Repeat("x", 1<<20)+`"}`), 413, api.CodeUsage, "more than")
	for _, q := range []string{"from=0", "from=x", "limit=0", "limit=1001", "limit=-1"} {
		failed(t, ask(t, s, "GET", run+"/rounds?"+q, ""), 400, api.CodeUsage, "must be a number")
	}
	failed(t, ask(t, s, "GET", run+"/events?since=x", ""), 400, api.CodeUsage, "not the id of an event")
}

func TestResolve(t *testing.T) {
	fake := apitest.New("node")
	s := newServer(fake)
	get := func(id string) *httptest.ResponseRecorder { return ask(t, s, "GET", "/api/v1/runs/"+id, "") }
	failed(t, get("last"), 404, api.CodeNotFound, "knows no run yet")
	add := func(name string, joined bool) string {
		d := apitest.Detail(name, apitest.PeerID("x"))
		d.Joined = joined
		fake.AddRun(d)
		return d.ID
	}
	a, b, c := add("a", true), add("b", true), add("c", false)
	for given, want := range map[string]string{a: a, a[:12]: a, "last": b, c: c, c[:20]: c} {
		if w := get(given); w.Code != 200 || !strings.Contains(w.Body.String(), `"id":"`+want+`"`) {
			t.Errorf("run %s: %d %.200s, want %s", given, w.Code, w.Body, want)
		}
	}
	failed(t, get("bafkrei"), 400, api.CodeUsage, "is the beginning of 3 runs")
	failed(t, get("nothing"), 404, api.CodeNotFound, "knows no run")
	failed(t, get(apitest.ID("unknown")), 404, api.CodeNotFound, "knows no run") // by the backend
	if w := ask(t, s, "POST", "/api/v1/runs/"+apitest.ID("unknown")+"/join", "{}"); w.Code != 200 {
		t.Errorf("a run that is not known cannot be joined by its complete ID: %s", w.Body)
	}
	failed(t, ask(t, s, "POST", "/api/v1/runs/unknown/join", "{}"), 404, api.CodeNotFound, "knows no run")
}

// lines are the lines of a stream.
func lines(t *testing.T, b []byte) []api.Line {
	t.Helper()
	var l []api.Line
	for _, row := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		var x api.Line
		if err := json.Unmarshal([]byte(row), &x); err != nil {
			t.Fatalf("line %q: %v", row, err)
		}
		l = append(l, x)
	}
	return l
}

// slow is a backend whose import takes its time.
type slow struct {
	*apitest.Fake
	op func(ctx context.Context, progress api.ProgressFunc) error
}

func (s slow) ImportModel(ctx context.Context, _ api.ImportModelRequest, progress api.ProgressFunc) (api.Model, error) {
	return api.Model{ID: "m"}, s.op(ctx, progress)
}

// stream asks a server for an import that does op, and returns the lines as
// type, phase and amount.
func stream(t *testing.T, op func(ctx context.Context, progress api.ProgressFunc) error) (*httptest.ResponseRecorder, []string) {
	t.Helper()
	s := api.NewServer(slow{apitest.New("node"), op}, api.Options{Token: token, PingInterval: 10 * time.Second})
	w := ask(t, s, "POST", "/api/v1/models/import", `{"dir":"/x"}`)
	var got []string
	for _, l := range lines(t, w.Body.Bytes()) {
		text := string(l.Type)
		if l.Progress != nil {
			text += fmt.Sprintf(" %s %d", l.Phase, l.Done)
		}
		got = append(got, text)
	}
	return w, got
}

func TestStream(t *testing.T) {
	// No phase is lost, however fast; within one, the last that was told is.
	synctest.Test(t, func(t *testing.T) {
		_, got := stream(t, func(_ context.Context, progress api.ProgressFunc) error {
			for _, phase := range []string{"a", "b", "c"} {
				for i := range int64(1000) {
					progress(api.Progress{Phase: phase, Done: i})
				}
			}
			return nil
		})
		var ends []string
		for i, l := range got {
			if i+1 == len(got) || !strings.HasPrefix(got[i+1], l[:min(len(l), 10)]) {
				ends = append(ends, l)
			}
		}
		if diff := cmp.Diff([]string{"progress a 999", "progress b 999", "progress c 999", "result"}, ends); diff != "" {
			t.Errorf("ends of phases (-want +got):\n%s", diff)
		}
	})
	// Ten times a second is often enough, but what came last is told although
	// nothing follows; and a silent operation shows that it lives.
	synctest.Test(t, func(t *testing.T) {
		_, got := stream(t, func(_ context.Context, progress api.ProgressFunc) error {
			for i := range int64(100) {
				progress(api.Progress{Phase: "a", Done: i})
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(time.Second)
			progress(api.Progress{Phase: "a", Done: 100})
			time.Sleep(time.Millisecond)
			progress(api.Progress{Phase: "a", Done: 101}) // too soon after that
			time.Sleep(25 * time.Second)
			return nil
		})
		tail := got[max(0, len(got)-4):]
		if diff := cmp.Diff([]string{"progress a 101", "ping", "ping", "result"}, tail); diff != "" {
			t.Errorf("end of the stream (-want +got):\n%s", diff)
		}
		if len(got) > 17 {
			t.Errorf("a second of progress gave %d lines", len(got))
		}
	})
}

func TestStreamErrors(t *testing.T) {
	// Before anything is sent, the status tells; afterwards, a line does.
	full := api.Errorf(api.CodeDisk, "the disk is full").WithHint("free some")
	w, _ := stream(t, func(context.Context, api.ProgressFunc) error { return full })
	failed(t, w, http.StatusInsufficientStorage, api.CodeDisk, "the disk is full")
	synctest.Test(t, func(t *testing.T) {
		w, got := stream(t, func(_ context.Context, progress api.ProgressFunc) error {
			progress(api.Progress{Phase: "a", Done: 1})
			time.Sleep(time.Second)
			return fmt.Errorf("import: %w", full)
		})
		if diff := cmp.Diff([]string{"progress a 1", "error"}, got); diff != "" {
			t.Errorf("stream (-want +got):\n%s", diff)
		}
		l := lines(t, w.Body.Bytes())
		if e := l[len(l)-1].Error; w.Code != 200 || e == nil || e.Code != api.CodeDisk || e.Exit != 11 || e.Hint != "free some" || e.Message != "import: the disk is full" {
			t.Errorf("last line is %+v", e)
		}
	})
	w, _ = stream(t, func(context.Context, api.ProgressFunc) error { panic("oops") })
	failed(t, w, 500, api.CodeInternal, "the daemon has a bug here")
}

// TestMaxStreams: what is open is bounded, and its slots come back.
func TestMaxStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := api.NewServer(slow{apitest.New("node"), func(ctx context.Context, _ api.ProgressFunc) error {
			<-release
			return ctx.Err()
		}}, api.Options{Token: token, MaxStreams: 2, MaxWatchers: 1})
		ended := make(chan int, 2)
		for range 2 {
			go func() { ended <- ask(t, s, "POST", "/api/v1/models/import", `{"dir":"/x"}`).Code }()
		}
		synctest.Wait()
		failed(t, ask(t, s, "POST", "/api/v1/models/import", `{"dir":"/x"}`), 503, api.CodeRetry, "2 operations")
		// Who watches does not keep others from working, nor the other way round.
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan struct{})
		go func() {
			defer close(left)
			r := httptest.NewRequestWithContext(ctx, "GET", "/api/v1/events", nil)
			r.Host = "localhost"
			r.Header.Set("Authorization", "Bearer "+token)
			s.ServeHTTP(httptest.NewRecorder(), r)
		}()
		synctest.Wait()
		failed(t, ask(t, s, "GET", "/api/v1/events", ""), 503, api.CodeRetry, "1 watchers")
		leave()
		<-left
		close(release)
		for range 2 {
			if code := <-ended; code != 200 {
				t.Errorf("an operation ended with %d", code)
			}
		}
		if w := ask(t, s, "POST", "/api/v1/models/import", `{"dir":"/x"}`); w.Code != 200 {
			t.Errorf("no slot came back: %s", w.Body)
		}
	})
}

// TestServe: over a real connection, an operation ends when its asker goes
// away, and streams are ended with a word when the daemon stops.
func TestServe(t *testing.T) {
	began, gone := make(chan struct{}, 2), make(chan struct{}, 2)
	fake := apitest.New("node")
	s := api.NewServer(slow{fake, func(ctx context.Context, progress api.ProgressFunc) error {
		progress(api.Progress{Phase: "a", Done: 1, Total: 1})
		began <- struct{}{}
		<-ctx.Done()
		gone <- struct{}{}
		return ctx.Err()
	}}, api.Options{Token: token})
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	request := func(ctx context.Context, method, path, body string) *http.Response {
		r, err := http.NewRequestWithContext(ctx, method, "http://"+l.Addr().String()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	askerCtx, goAway := context.WithCancel(t.Context())
	request(askerCtx, "POST", "/api/v1/models/import", `{"dir":"/x"}`)
	<-began
	goAway()
	<-gone

	op := request(t.Context(), "POST", "/api/v1/models/import", `{"dir":"/x"}`)
	<-began
	events := request(t.Context(), "GET", "/api/v1/events", "")
	sse := request(t.Context(), "GET", "/api/v1/events", "")
	sse.Body.Close() // a watcher that is gone holds nothing up
	fake.Log.Publish(api.Event{Type: api.EventAlert, Text: "hello"})
	stop()
	b, err := io.ReadAll(op.Body)
	if all := lines(t, b); err != nil || all[len(all)-1].Error == nil || all[len(all)-1].Error.Code != api.CodeRetry {
		t.Errorf("the operation ended with %s, %v, want E_RETRY", b, err)
	}
	b, err = io.ReadAll(events.Body)
	if err != nil || !strings.Contains(string(b), `"type":"bye"`) {
		t.Errorf("the events ended with %s, %v, want bye", b, err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve = %v", err)
	}
}

func TestSSE(t *testing.T) {
	fake := apitest.New("node")
	s := httptest.NewServer(newServer(fake))
	t.Cleanup(s.Close)
	for i := range 3 {
		fake.Log.Publish(api.Event{Type: api.EventAlert, Time: apitest.Epoch, Text: fmt.Sprint(i)})
	}
	var epoch string
	_ = fake.Log.Watch(t.Context(), "", api.Cursor{}, func(e api.Event) error { // ends with what emit returns
		epoch = e.Cursor.Epoch
		return io.EOF
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/api/v1/events?since=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Last-Event-ID", epoch+".2") // a browser sends it when it connects again
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	want := []string{": ping", "", "id: " + epoch + ".3", "event: alert", `data: {"schema":1,"id":"` + epoch + `.3","type":"alert","time":"2026-01-02T03:04:05Z","text":"2"}`, ""}
	var got []string
	for in := bufio.NewScanner(resp.Body); len(got) < len(want) && in.Scan(); {
		got = append(got, in.Text())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("event stream (-want +got):\n%s", diff)
	}
}

func TestEventLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := api.NewEventLog(3)
		publish := func(run string, texts ...string) {
			for _, x := range texts {
				l.Publish(api.Event{Type: api.EventAlert, Run: run, Text: x})
			}
		}
		// watch returns what comes after a cursor, and the last cursor.
		watch := func(run string, after api.Cursor) (got []string, last api.Cursor) {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() {
				ended <- l.Watch(ctx, run, after, func(e api.Event) error {
					got = append(got, strings.TrimPrefix(string(e.Type)+" "+e.Text, "alert "))
					last = e.Cursor
					return nil
				})
			}()
			synctest.Wait()
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Watch = %v", err)
			}
			return got, last
		}
		check := func(what string, got, want []string) {
			t.Helper()
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
		publish("r", "1", "2")
		got, last := watch("", api.Cursor{})
		check("all", got, []string{"1", "2"})
		publish("s", "3")
		got, _ = watch("", last)
		check("after 2", got, []string{"3"})
		got, _ = watch("r", api.Cursor{})
		check("of one run", got, []string{"1", "2"})
		publish("r", "4", "5", "6")
		got, _ = watch("", last)
		check("one was dropped", got, []string{"gap ", "4", "5", "6"})
		got, _ = watch("", api.Cursor{})
		check("from the beginning", got, []string{"4", "5", "6"})
		got, _ = watch("", api.Cursor{Epoch: "another", N: 5})
		check("another epoch", got, []string{"gap ", "4", "5", "6"})
		got, _ = watch("", api.Cursor{Epoch: last.Epoch, N: 1 << 60})
		check("a cursor from the future", got, []string{"gap ", "4", "5", "6"})
		got, _ = watch("", api.Cursor{Epoch: last.Epoch, N: 3})
		check("before the oldest", got, []string{"4", "5", "6"})
	})
}

func TestCursor(t *testing.T) {
	for _, s := range []string{"", "0", "abc.7", "a.18446744073709551615"} {
		c, err := api.ParseCursor(s)
		if want := strings.TrimPrefix(s, "0"); err != nil || strings.TrimPrefix(c.String(), "0") != want {
			t.Errorf("ParseCursor(%q) = %v, %v", s, c, err)
		}
	}
	for _, s := range []string{"x", ".1", "a.", "a.-1", "a.1.2", "a.18446744073709551616", strings.Repeat("a", 33) + ".1"} {
		if c, err := api.ParseCursor(s); err == nil {
			t.Errorf("ParseCursor(%q) = %v, want an error", s, c)
		}
	}
}

func TestErrors(t *testing.T) {
	cause := errors.New("cause")
	e := api.Errorf(api.CodeDisk, "write: %w", cause).WithHint("free %d GB", 3)
	wrapped := fmt.Errorf("import: %w", e)
	got := api.AsError(wrapped)
	if got.Code != api.CodeDisk || got.Exit != 11 || got.Message != "import: write: cause" || got.Hint != "free 3 GB" || !errors.Is(got, cause) {
		t.Errorf("AsError = %+v", got)
	}
	if e.Message != "write: cause" {
		t.Errorf("AsError changed the error it was given: %+v", e)
	}
	for err, want := range map[error]api.Code{
		cause: api.CodeInternal, context.Canceled: api.CodeInterrupted, context.DeadlineExceeded: api.CodeRetry,
	} {
		if got := api.AsError(fmt.Errorf("x: %w", err)); got.Code != want || got.Exit != want.Exit() {
			t.Errorf("AsError(%v) = %+v, want %s", err, got, want)
		}
	}
	if api.AsError(nil) != nil || api.Code("E_NEW").Exit() != 1 || api.CodeRetry.Exit() != 75 {
		t.Error("nil, or exit codes of codes")
	}
}

func TestEndpoint(t *testing.T) {
	dir := t.TempDir()
	if _, err := api.ReadEndpoint(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ReadEndpoint without daemon = %v", err)
	}
	first, err := api.NewToken(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := api.NewToken(dir)
	if got, rerr := api.ReadToken(dir); err != nil || rerr != nil || got != second || first == second || len(second) != 64 {
		t.Errorf("tokens %q, %q, read %q (%v, %v)", first, second, got, err, rerr)
	}
	e := api.Endpoint{URL: "http://127.0.0.1:1", Peer: "p", Addrs: []string{"a"}, PID: 7, Version: "v"}
	if err := api.WriteEndpoint(dir, e); err != nil {
		t.Fatal(err)
	}
	got, err := api.ReadEndpoint(dir)
	if diff := cmp.Diff(e, got); err != nil || diff != "" {
		t.Errorf("ReadEndpoint: %v (-want +got):\n%s", err, diff)
	}
	for _, name := range []string{api.TokenFile, api.EndpointFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, want it readable by the user alone", name, info.Mode(), err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, api.EndpointFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := api.ReadEndpoint(dir); err == nil {
		t.Error("half a file is read")
	}
	if err := errors.Join(api.RemoveEndpoint(dir), api.RemoveEndpoint(dir)); err != nil {
		t.Errorf("RemoveEndpoint twice = %v", err)
	}
	if l, _ := os.ReadDir(dir); len(l) != 0 {
		t.Errorf("%v is left", l)
	}
}

// launches is a backend that remembers the run file it got.
type launches struct {
	*apitest.Fake
	got api.LaunchRequest
}

func (l *launches) Launch(_ context.Context, req api.LaunchRequest, _ api.ProgressFunc) (api.Run, error) {
	l.got = req
	return api.Run{}, nil
}

// TestLaunchFills: model and data set given beside the run file take the place
// of its keys, in the same lines, but not of keys in a table.
func TestLaunchFills(t *testing.T) {
	model, data := apitest.DirID("m"), apitest.DirID("d")
	both := "model = \"" + model + "\"\ndata = \"" + data + "\"\n"
	for name, tt := range map[string]struct{ toml, want string }{
		"empty keys":   {"name = \"x\"\nmodel = \"\"\ndata = \"\" # none yet\n", "name = \"x\"\n" + both},
		"other values": {" model=\"a\"\ndata   = 'b'\nname = \"x\"", both + "name = \"x\""},
		"no keys":      {"name = \"x\"\n", "data = \"" + data + "\"\nmodel = \"" + model + "\"\nname = \"x\"\n"},
		"in a table":   {"[licence]\nmodel = \"MIT\"\n", "data = \"" + data + "\"\nmodel = \"" + model + "\"\n[licence]\nmodel = \"MIT\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &launches{Fake: apitest.New("node")}
			body, err := json.Marshal(api.LaunchRequest{TOML: tt.toml, Model: model, Dataset: data})
			if err != nil {
				t.Fatal(err)
			}
			if w := ask(t, api.NewServer(b, api.Options{Token: token}), "POST", "/api/v1/runs", string(body)); w.Code != 200 {
				t.Fatalf("launch: %s", w.Body)
			}
			if diff := cmp.Diff(api.LaunchRequest{Name: "run.toml", TOML: tt.want}, b.got); diff != "" {
				t.Errorf("request of the backend (-want +got):\n%s", diff)
			}
		})
	}
}
