package cli

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// syncText takes what several write.
type syncText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncText) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncText) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestPublicDashboard: the page of a node is served to everybody, goes on while
// the daemon is away, and ends with an interrupt.
func TestPublicDashboard(t *testing.T) {
	f := &fakeDaemon{dir: filepath.Join(t.TempDir(), "data"), watched: make(chan struct{}, 100)}
	if err := f.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.stop)
	f.AddRun(apitest.Detail("demo", apitest.PeerID("node")))
	f.AddRun(apitest.Detail("other", apitest.PeerID("node")))
	ctx, interrupt := context.WithCancel(t.Context())
	r, w := io.Pipe()
	var stderr syncText
	ended := make(chan int, 1)
	go func() {
		code := Main(ctx, []string{"--data-dir", f.dir, "dashboard", "--listen", "127.0.0.1:0", "--run", apitest.ID("demo")[:14]}, w, &stderr)
		w.Close()
		ended <- code
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("%v, exit %d: %s", err, <-ended, &stderr)
	}
	url := strings.TrimSpace(line)
	get := func(path string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
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
	if code, body := get("api/v1/runs"); code != 200 || !strings.Contains(body, apitest.ID("demo")) || strings.Contains(body, apitest.ID("other")) {
		t.Errorf("runs: %d %s", code, body)
	}
	if code, body := get(""); code != 200 || !strings.Contains(body, "<title>moot</title>") {
		t.Errorf("page: %d %.100s", code, body)
	}
	if code, _ := get("api/v1/peers"); code != 404 {
		t.Errorf("peers are shown: %d", code)
	}
	// What happens comes through: the daemon's events are followed.
	<-f.watched
	f.Decide(apitest.ID("demo"), apitest.DecidedRound("demo", 1, false, apitest.PeerID("node")))
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, body := get("api/v1/runs/" + apitest.ID("demo")); strings.Contains(body, `"round":1,`) {
			break
		} else if time.Now().After(end) {
			t.Fatalf("round 1 is not shown: %s", body)
		}
	}
	f.stop()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if code, body := get("api/v1/status"); code == 502 && strings.Contains(body, string(api.CodeDaemon)) && !strings.Contains(body, f.dir) && !strings.Contains(body, "127.0.0.1") {
			break
		} else if time.Now().After(end) {
			t.Fatalf("without daemon: %d %s", code, body)
		}
	}
	interrupt()
	if code := <-ended; code != 0 {
		t.Errorf("exit %d: %s", code, &stderr)
	}
}
