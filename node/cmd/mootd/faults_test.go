package main

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
)

// The second of two machines with one identity ends, with exit code 7, and says
// where the other one is. The first goes on.
func TestIdentityOnTwoMachines(t *testing.T) {
	dir := t.TempDir()
	start2 := func(name string, bootstrap ...string) *process {
		return start(t, "mootd", append([]string{
			"--data-dir", filepath.Join(dir, name), "--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0", "--no-mdns", "--threads", "1",
		}, bootstrap...)...)
	}
	witness := start2("witness")
	addr := witness.line("address ")
	witness.line("api ")
	first := start2("first", "--bootstrap", addr)
	id := first.line("peer ")
	first.line("api ")
	at := func(name string) *client.Client {
		t.Helper()
		c, err := client.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	// The witness knows who was first, and that one can be asked.
	w, f := at("witness"), at("first")
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		l, err := w.Peers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		a, err := f.About(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(l.Peers) == 1 && l.Peers[0].ID == id && l.Peers[0].Agent != "" && slices.Contains(a.Protocols, "/moot/presence/1") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the first one does not reach the witness: %+v, %v", l.Peers, a.Protocols)
		}
	}
	key, err := os.ReadFile(filepath.Join(dir, "first", "identity.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "copy"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "copy", "identity.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	second := start2("copy", "--bootstrap", addr)
	if again := second.line("peer "); again != id {
		t.Fatalf("peer %s, want that of the copied key, %s", again, id)
	}
	if code := second.ends(); code != api.CodeConflict.Exit() {
		t.Errorf("exit code %d, want %d", code, api.CodeConflict.Exit())
	}
	said := second.err.String()
	for _, want := range []string{"another machine uses the identity of this node", "/ip4/127.0.0.1/tcp/", "hint: stop one of the two", "identity.key"} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q, but\n%s", want, said)
		}
	}
	if err := first.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatalf("the first one has ended: %v", err)
	}
	if code := first.ends(); code != 0 {
		t.Errorf("the first one ended with %d", code)
	}
}

// Who has no token, or comes from another page, gets no answer and changes
// nothing.
func TestStrangersAtTheAPI(t *testing.T) {
	dir := t.TempDir()
	_, c, _ := daemon(t, dir)
	token, err := api.ReadToken(dir)
	if err != nil {
		t.Fatal(err)
	}
	url := c.Endpoint().URL
	for _, tt := range []struct {
		name string
		head map[string]string
		host string
		want int
	}{
		{"no token", nil, "", http.StatusUnauthorized},
		{"a wrong token", map[string]string{"Authorization": "Bearer " + strings.Repeat("0", len(token))}, "", http.StatusUnauthorized},
		{"a page from another origin", map[string]string{"Authorization": "Bearer " + token, "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, "", http.StatusForbidden},
		{"a page on another port", map[string]string{"Authorization": "Bearer " + token, "Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"}, "", http.StatusForbidden},
		{"a name that was rebound", map[string]string{"Authorization": "Bearer " + token}, "evil.example", http.StatusMisdirectedRequest},
		{"the owner", map[string]string{"Authorization": "Bearer " + token}, "", http.StatusOK},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/api/v1/control", strings.NewReader(`{"action":"pause"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		for k, v := range tt.head {
			req.Header.Set(k, v)
		}
		if tt.host != "" {
			req.Host = tt.host
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		s, err := c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if paused := s.Reason == "paused"; resp.StatusCode != tt.want || paused != (tt.want == http.StatusOK) {
			t.Errorf("%s: status %d, want %d; paused %v", tt.name, resp.StatusCode, tt.want, paused)
		}
	}
}
