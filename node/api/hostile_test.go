package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// FuzzAPI: whatever is asked, there is an answer in the form that is promised;
// without token nothing but the page and healthz; the token is never in an
// answer or in the log, and nothing panics.
func FuzzAPI(f *testing.F) {
	node := apitest.New("node")
	node.Err = func(method string) error {
		switch method { // which would write or read files
		case "DemoAssets", "ExportShards", "ImportShards", "ImportModel", "ImportDataset", "CheckDataset", "PreviewDataset", "VerifyAdapter":
			return api.Errorf(api.CodeRefused, "not in this test")
		}
		return nil
	}
	run := apitest.Detail("demo", apitest.PeerID("node"))
	node.AddRun(run)
	node.Decide(run.ID, apitest.DecidedRound("demo", 1, false, apitest.PeerID("node")))
	var logged strings.Builder
	s := api.NewServer(node, api.Options{
		Token: token, ReadToken: "for reading", Log: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})), PingInterval: time.Hour,
	})
	for _, pattern := range s.Patterns() {
		method, path, _ := strings.Cut(pattern, " ")
		path = strings.NewReplacer("{id}", run.ID, "{n}", "1").Replace(path)
		f.Add(method, path, "", "Bearer "+token, "127.0.0.1:1", "", `{}`)
		f.Add(method, path, "from=1&limit=2&round=best&level=warn&after=9&since=x", "Bearer for reading", "localhost", "http://localhost", `{"dir":"/x","set":{"threads":["1"]},"prompts":[{"instruction":"a"}],"model":"last","action":"pause"}`)
	}
	f.Add("POST", "/api/v1/uploads", "name=..%2f..%2frows.jsonl", "Bearer "+token, "127.0.0.1", "", "file:{\"text\":\"x\"}")
	f.Add("POST", "/api/v1/uploads", "name=%00%ff&name=x", "Bearer for reading", "127.0.0.1", "", "file:")
	f.Add("POST", "/api/v1/datasets/preview", "", "Bearer "+token, "127.0.0.1", "", `{"files":["/x"],"rows":1000}`)
	f.Add("POST", "/api/v1/datasets/import", "", "Bearer "+token, "127.0.0.1", "", `{"files":["/x"],"fields":{"output":"","x":"x"}}`)
	f.Add("GET", "/web/../api/v1/status", "", "", "127.0.0.1", "null", "")
	f.Add("POST", "/api/v1/runs//export", "%zz", "Bearer "+token, "[::1]:7", "", `[{"a":`+strings.Repeat("[", 5000)+`]}]`)
	f.Add("PATCH", "/api/v1/config", "", "Bearer "+token, "127.0.0.1", "http://127.0.0.1", `{"set":{"work.duty_percent":["9999"],"nothing":[]}}`)
	f.Fuzz(func(t *testing.T, method, path, query, auth, host, origin, body string) {
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(path+query, " \r\n\x00") {
			t.Skip()
		}
		// Events last until their asker goes, and an export writes files.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if strings.HasSuffix(path, "/events") {
			cancel()
		}
		content := "application/json"
		if file, ok := strings.CutPrefix(body, "file:"); ok {
			content, body = "application/octet-stream", file
		}
		r, err := http.NewRequestWithContext(ctx, method, "http://x", strings.NewReader(body))
		if err != nil {
			t.Skip() // no such method
		}
		r.URL.Path, r.URL.RawQuery, r.Host = path, query, host
		r.Header.Set("Authorization", auth)
		r.Header.Set("Content-Type", content)
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		logged.Reset()
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		answer := w.Body.String()
		if strings.Contains(logged.String(), "panicked") {
			t.Fatalf("%s %s: %s", method, path, &logged)
		}
		for _, secret := range []string{token, "for reading"} {
			if strings.Contains(auth, secret) && !strings.Contains(method+path+query+host+origin+body, secret) && strings.Contains(answer+logged.String(), secret) {
				t.Fatalf("%s %s tells the token: %s %s", method, path, answer, &logged)
			}
		}
		full, read := auth == "Bearer "+token || auth == "bearer "+token, auth == "Bearer for reading" || auth == "bearer for reading"
		open := path == "/healthz" || path == "/" || strings.HasPrefix(path, "/web/")
		if w.Code == http.StatusOK && !open && !full && !strings.EqualFold(auth, "bearer "+token) {
			if !read && !strings.EqualFold(auth, "bearer for reading") || method != http.MethodGet && method != http.MethodHead {
				t.Fatalf("%s %s with %q: %s", method, path, auth, answer)
			}
		}
		if h := w.Header(); h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Fatalf("%s %s: headers %v", method, path, h)
		}
		if kind := w.Header().Get("Content-Type"); kind == "application/json" && method != http.MethodHead && (path != "/api/v1/openapi.json" || w.Code != http.StatusOK) {
			var v struct {
				Schema int        `json:"schema"`
				Error  *api.Error `json:"error"`
			}
			if err := json.Unmarshal([]byte(answer), &v); err != nil || v.Schema != api.Schema || (w.Code != http.StatusOK) != (v.Error != nil) {
				t.Fatalf("%s %s answers %d %s: %v", method, path, w.Code, answer, err)
			}
			if v.Error != nil && (v.Error.Code == "" || v.Error.Exit != v.Error.Code.Exit() || v.Error.Code == api.CodeInternal) {
				t.Fatalf("%s %s answers %s", method, path, answer)
			}
		} else if w.Code != http.StatusOK && w.Code != http.StatusNotModified && w.Code != http.StatusPartialContent && w.Code != http.StatusRequestedRangeNotSatisfiable && answer != "" {
			t.Fatalf("%s %s: %d in %q: %s", method, path, w.Code, kind, answer)
		}
	})
}

// pipes is a listener without network: its connections are pipes, whose
// deadlines are those of the bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7717} }

func (p *pipes) dial() net.Conn {
	a, b := net.Pipe()
	p.conns <- b
	return a
}

// bubble runs a server in virtual time.
func bubble(t *testing.T, o api.Options, test func(t *testing.T, p *pipes, f *apitest.Fake)) {
	synctest.Test(t, func(t *testing.T) {
		f, p := apitest.New("node"), newPipes()
		o.Token = token
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- api.NewServer(f, o).Serve(ctx, p) }()
		test(t, p, f)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

const head = "Host: 127.0.0.1\r\nAuthorization: Bearer " + token + "\r\n"

// within reads all that a connection has, and checks how long that took.
func within(t *testing.T, c net.Conn, least, most time.Duration) string {
	t.Helper()
	began := time.Now()
	b, err := io.ReadAll(c)
	if took := time.Since(began); took < least || took > most {
		t.Errorf("it took %v until the connection was closed (%v), want %v to %v; it said %q", took, err, least, most, b)
	}
	return string(b)
}

// TestSlow: who sends a byte now and then, or does not read, is left.
func TestSlow(t *testing.T) {
	drip := func(c net.Conn, text string) {
		for _, b := range []byte(text) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	}
	t.Run("headers", func(t *testing.T) {
		bubble(t, api.Options{}, func(t *testing.T, p *pipes, _ *apitest.Fake) {
			c := p.dial()
			go drip(c, "GET /api/v1/status HTTP/1.1\r\n"+head+strings.Repeat("X: y\r\n", 100))
			within(t, c, 10*time.Second, 20*time.Second)
			c.Close()
			time.Sleep(time.Minute) // the one who drips ends
		})
	})
	t.Run("body", func(t *testing.T) {
		bubble(t, api.Options{}, func(t *testing.T, p *pipes, _ *apitest.Fake) {
			c := p.dial()
			go func() {
				_, _ = io.WriteString(c, "POST /api/v1/control HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"+head+"\r\n")
				drip(c, strings.Repeat("x", 1000))
			}()
			if s := within(t, c, 25*time.Second, 40*time.Second); !strings.Contains(s, "408") && s != "" {
				t.Errorf("it said %q", s)
			}
			c.Close()
			time.Sleep(time.Minute)
		})
	})
	t.Run("silent", func(t *testing.T) {
		bubble(t, api.Options{}, func(t *testing.T, p *pipes, _ *apitest.Fake) {
			c := p.dial()
			within(t, c, 10*time.Second, 20*time.Second)
			c.Close()
		})
	})
	t.Run("reads nothing", func(t *testing.T) {
		bubble(t, api.Options{MaxWatchers: 1}, func(t *testing.T, p *pipes, _ *apitest.Fake) {
			c := p.dial()
			if _, err := io.WriteString(c, "GET /api/v1/events HTTP/1.1\r\n"+head+"\r\n"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Minute)
			// Its place is free again.
			d := p.dial()
			if _, err := io.WriteString(d, "GET /api/v1/events HTTP/1.1\r\n"+head+"\r\n"); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(d), nil)
			if err != nil || resp.StatusCode != 200 {
				t.Errorf("the next one got %v, %v", resp, err)
			}
			c.Close()
			d.Close()
		})
	})
}

// TestTooMuch: headers and bodies have an end.
func TestTooMuch(t *testing.T) {
	bubble(t, api.Options{}, func(t *testing.T, p *pipes, _ *apitest.Fake) {
		for name, x := range map[string]struct{ text, want string }{
			"headers":   {"GET /api/v1/status HTTP/1.1\r\n" + head + strings.Repeat("X-"+strings.Repeat("y", 100)+": z\r\n", 1000) + "\r\n", "431"},
			"address":   {"GET /" + strings.Repeat("a", 40_000) + " HTTP/1.1\r\n" + head + "\r\n", "431"},
			"body":      {"POST /api/v1/control HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2000000\r\n" + head + "\r\n" + strings.Repeat(" ", 2_000_000), "413"},
			"two hosts": {"GET /api/v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\n" + head + "\r\n", "400"},
		} {
			c := p.dial()
			go io.WriteString(c, x.text) // until it is not read any more
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || !strings.HasPrefix(resp.Status, x.want) {
				t.Errorf("%s: %v, %v, want %s", name, resp, err, x.want)
			}
			c.Close()
		}
	})
}
