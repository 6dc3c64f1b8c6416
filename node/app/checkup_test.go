package app

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/api"
)

// A daemon looks at itself as the command line does, and a report of it has
// nothing that is secret or tells who somebody is.
func TestCheckup(t *testing.T) {
	t.Setenv("HF_TOKEN", "hf_secretsecretsecretsecret")
	cfg := testConfig(t.TempDir())
	cfg.Bootstrap = []string{"/ip4/192.0.2.77/tcp/1/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X"}
	d := startDaemon(t, cfg)
	quick, err := d.Checkup(t.Context(), api.CheckupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Checkup(t.Context(), api.CheckupRequest{Speed: true})
	if err != nil {
		t.Fatal(err)
	}
	if !c.Daemon || !c.OK || len(c.Failed()) > 0 {
		t.Errorf("%+v", c)
	}
	has := func(c api.Checkup, name string) bool {
		return slices.ContainsFunc(c.Checks, func(x api.Check) bool { return x.Name == name })
	}
	for _, name := range []string{"version", "work", "config", "data", "space", "identity", "store", "clock", "ports", "nat", "bootstrap", "peers", "device", "idle", "battery", "heat", "disk", "hashing"} {
		if !has(c, name) {
			t.Errorf("nothing is said about %s", name)
		}
		if fast := name != "disk" && name != "hashing"; has(quick, name) != fast {
			t.Errorf("%s without measuring: %v", name, !fast)
		}
	}
	for _, x := range c.Checks {
		if (x.Level != api.CheckOK) != (x.Fix != "") {
			t.Errorf("%+v: a way out is said where there is something wrong", x)
		}
	}

	token, err := api.ReadToken(cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	readToken, err := api.ReadReadToken(cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { // its state is told beside all this
		l, err := d.Logs(t.Context(), api.LogsRequest{Limit: 100, Level: "info"})
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(l.Entries, func(e api.LogEntry) bool { return e.Message == "state changed" })
	})
	var b bytes.Buffer
	if err := d.Report(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{token, readToken, "hf_secret", d.endpoint.Peer, "12D3KooWPjceQrSw", "192.0.2.77"} {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s has %s", f.Name, secret)
			}
		}
		if f.Name == "mootd.log" && !strings.Contains(string(text), "state changed") {
			t.Errorf("the log is not there: %s", text)
		}
	}
	if got := strings.Join(names, " "); got != "cache.json mootd.log peers.json report.json report.txt runs.json settings.json status.json usage.json" {
		t.Errorf("the report has %s", got)
	}

	// What is wrong is found while it runs, and nobody measures twice at once.
	if err := os.Chmod(cfg.DataDir, 0o755); err != nil {
		t.Fatal(err)
	}
	c, err = d.Checkup(t.Context(), api.CheckupRequest{})
	if err != nil || !slices.ContainsFunc(c.Checks, func(x api.Check) bool { return x.Name == "data" && x.Level == api.CheckWarn }) {
		t.Errorf("a folder that others may look into: %+v, %v", c, err)
	}
}

// Two that measure at once would measure each other.
func TestCheckupMeasuresOnce(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	n.measuring.Lock()
	_, err := n.Checkup(t.Context(), api.CheckupRequest{Speed: true})
	n.measuring.Unlock()
	wantCode(t, err, api.CodeRetry, "measured already")
}
