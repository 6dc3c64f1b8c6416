package main

import (
	"bufio"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
)

// sse reads server-sent events after a cursor until done has an event, and
// returns the ids and the types of all.
func sse(t *testing.T, dir, url, after string, done func(data string) bool) (ids, types []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/api/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(filepath.Join(dir, api.TokenFile))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	r.Header.Set("Accept", "text/event-stream")
	if after != "" {
		r.Header.Set("Last-Event-ID", after)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	for in.Scan() {
		if id, ok := strings.CutPrefix(in.Text(), "id: "); ok {
			ids = append(ids, id)
		}
		if e, ok := strings.CutPrefix(in.Text(), "event: "); ok {
			types = append(types, e)
		}
		if data, ok := strings.CutPrefix(in.Text(), "data: "); ok && done(data) {
			return ids, types
		}
	}
	t.Fatalf("the stream ended after %v %v: %v", ids, types, in.Err())
	return nil, nil
}

// A browser that comes back with the last event it saw misses nothing and gets
// nothing twice, also when the daemon was killed meanwhile.
func TestEventsOverKill(t *testing.T) {
	dir := t.TempDir()
	p, c, _ := daemon(t, dir)
	paused := func(note string) func(string) bool {
		return func(data string) bool {
			return strings.Contains(data, `"state":"paused"`) && strings.Contains(data, note)
		}
	}
	pause := func(c *client.Client, note string) {
		t.Helper()
		if _, err := c.Control(t.Context(), api.ControlRequest{Action: api.ControlPause, Note: note}); err != nil {
			t.Fatal(err)
		}
	}
	url := func(c *client.Client) string {
		s, err := c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.API
	}
	pause(c, "first")
	seen, _ := sse(t, dir, url(c), "", paused("first"))
	pause(c, "second")
	unseen, _ := sse(t, dir, url(c), "", paused("second")) // it was handed out, to another one
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.ends()
	p, c, _ = daemon(t, dir)
	pause(c, "third")
	rest, types := sse(t, dir, url(c), seen[len(seen)-1], paused("third"))
	for _, e := range types {
		if e == string(api.EventGap) {
			t.Errorf("after the start there is a gap: %v", types)
		}
	}
	all := append(seen, rest...)
	for i, id := range all {
		n, err := api.ParseCursor(id)
		if first, ferr := api.ParseCursor(all[0]); err != nil || ferr != nil || n.N != first.N+uint64(i) || n.Epoch != first.Epoch {
			t.Fatalf("the events are not numbered one after the other: %v", all)
		}
	}
	if len(unseen) <= len(seen) || len(rest) < 2 || rest[0] != unseen[len(seen)] {
		t.Errorf("seen %v, with the second pause %v, after the start %v", seen, unseen, rest)
	}

	// Without the file nobody knows what was missed, and that is said.
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.ends()
	if err := os.Remove(filepath.Join(dir, "events.ndjson")); err != nil {
		t.Fatal(err)
	}
	_, c, _ = daemon(t, dir)
	pause(c, "fourth")
	if ids, types := sse(t, dir, url(c), rest[len(rest)-1], paused("fourth")); types[0] != string(api.EventGap) || strings.HasPrefix(ids[0], strings.Split(rest[0], ".")[0]) {
		t.Errorf("without its file the daemon says %v %v", ids, types)
	}
}
