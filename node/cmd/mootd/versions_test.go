package main

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
)

var versions = flag.Bool("versions", false, "build two versions of mootd, and have them meet (half a minute of compiling)")

// nextVersion builds mootd as a later version may be: with other names for all
// protocols and topics, and with manifests of version 2.
func nextVersion(t *testing.T, to string) {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`"/moot/([a-z]+)/1"`)
	overlay := map[string]map[string]string{"Replace": {}}
	for _, pattern := range []string{"node/internal/*/*.go", "proto/*/*.go"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			before, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			after := names.ReplaceAllString(string(before), `"/moot/$1/2"`)
			after = strings.ReplaceAll(after, `"/moot/1/"`, `"/moot/2/"`)
			after = strings.ReplaceAll(after, "const ManifestVersion = 1", "const ManifestVersion = 2")
			if strings.HasSuffix(name, "_test.go") || after == string(before) {
				continue
			}
			changed := filepath.Join(t.TempDir(), filepath.Base(name))
			if err := os.WriteFile(changed, []byte(after), 0o600); err != nil {
				t.Fatal(err)
			}
			overlay["Replace"][name] = changed
		}
	}
	if n := len(overlay["Replace"]); n < 10 {
		t.Fatalf("only %d files name a version", n)
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(list, b, 0o600); err != nil {
		t.Fatal(err)
	}
	buildDaemon(t, root, to, "-overlay", list)
}

func buildDaemon(t *testing.T, root, to string, args ...string) {
	t.Helper()
	cmd := exec.Command("go", append(append([]string{"build", "-trimpath", "-o", to}, args...), "./node/cmd/mootd")...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// versioned is a daemon of some version with a run of its own.
type versioned struct {
	p    *process
	c    *client.Client
	addr string
	run  api.Run
	m    api.Model
}

func newVersioned(t *testing.T, program string) *versioned {
	t.Helper()
	dir := t.TempDir()
	r := &versioned{p: start(t, program, "--data-dir", dir, "--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0", "--no-mdns", "--threads", "1")}
	r.addr = r.p.line("address ")
	r.p.line("api ")
	var err error
	if r.c, err = client.Open(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.c.Close)
	assets, err := r.c.DemoAssets(t.Context(), filepath.Join(t.TempDir(), "demo"))
	if err != nil {
		t.Fatal(err)
	}
	if r.m, err = r.c.ImportModel(t.Context(), api.ImportModelRequest{Dir: assets.ModelDir}, nil); err != nil {
		t.Fatal(err)
	}
	d, err := r.c.ImportDataset(t.Context(), assets.Data, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.run, err = r.c.Launch(t.Context(), api.LaunchRequest{Name: "run.toml", Model: r.m.ID, Dataset: d.ID, TOML: `
name = "versions"
rounds = 1000
period = "10s"
[lora]
rank = 2
[inner]
max_steps = 2
`}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Two versions that have no protocol in common, as two programs: who wants to join
// the other's run is refused in a sentence, before anything of the model comes,
// whichever is the older one; and models still travel, by bitswap.
func TestTwoVersions(t *testing.T) {
	if !*versions {
		t.Skip("builds two programs: go test -run TestTwoVersions ./node/cmd/mootd -args -versions")
	}
	dir := t.TempDir()
	programs := map[string]string{"this version": filepath.Join(dir, "mootd1"), "the next": filepath.Join(dir, "mootd2")}
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	buildDaemon(t, root, programs["this version"])
	nextVersion(t, programs["the next"])
	for mine, theirs := range map[string]string{"this version": "the next", "the next": "this version"} {
		t.Run(mine, func(t *testing.T) {
			other := newVersioned(t, programs[theirs])
			home := t.TempDir()
			p := start(t, programs[mine], "--data-dir", home, "--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0", "--no-mdns", "--threads", "1")
			p.line("api ")
			c, err := client.Open(home)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			_, err = c.Join(ctx, api.JoinRequest{Run: other.run.ID, Peers: []string{other.addr}}, nil)
			t.Logf("join: %v", err)
			if err == nil || !strings.Contains(err.Error(), "version") || !strings.Contains(err.Error(), "has to be updated") {
				t.Errorf("join of a run of another version: %v", err)
			}
			s, err := c.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if s.Traffic.PulledBytes > 64<<10 {
				t.Errorf("%d bytes came before it was refused, the model has %d", s.Traffic.PulledBytes, other.m.Bytes)
			}
			// Content is no matter of versions.
			e, err := c.PullShards(ctx, api.PullShardsRequest{ID: other.m.ID, Peers: []string{other.addr}}, nil)
			if err != nil || e.Have != e.Total {
				t.Errorf("the model itself: %+v, %v", e, err)
			}
			if text := p.err.String(); !strings.Contains(text, "of /moot/shard, this node version") {
				t.Errorf("that versions differ is not in the log:\n%s", text)
			}
		})
	}
}
