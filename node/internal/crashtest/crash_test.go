// Package crashtest kills real daemons, again and again, and checks that the
// run they are in is neither lost nor forked. It has no code but tests.
package crashtest

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
)

var (
	kills = flag.Int("kills", 5, "how many times a daemon is killed")
	seed  = flag.Uint64("seed", 1, "draws who is killed, and when")
)

const (
	peers = 5
	// runFile makes rounds short, so that kills fall into every part of them.
	runFile = `name = "crash"
period = "3s"
rounds = %d
seats = 8
min_peers = 3
eval_samples = 8
[lora]
rank = 4
[inner]
learning_rate = 1e-3
max_steps = 4
overlap_steps = 3
batch_samples = 4
sequence_tokens = 96
`
)

// daemon is a mootd that is killed and started again, at the same port.
type daemon struct {
	t      *testing.T
	mootd  string
	dir    string
	listen string
	boot   string
	cmd    *exec.Cmd
	ended  <-chan struct{} // closed when cmd has; nil: it was not started
	logged int64           // bytes of its log that are from before cmd
	peer   string
}

// start starts it, again and again while its port is taken, as by a connection
// of somebody else for a moment. It must not end for another reason.
func (d *daemon) start() {
	d.t.Helper()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if d.ended == nil {
			d.begin()
		}
		e, err := api.ReadEndpoint(d.dir)
		if err == nil && e.PID == d.cmd.Process.Pid && len(e.Addrs) > 0 {
			d.peer = e.Peer
			d.listen, _, _ = strings.Cut(e.Addrs[0], "/p2p/")
			return
		}
		if time.Now().After(end) {
			d.t.Fatalf("%s does not start: %v\n%s", d.dir, err, d.tail())
		}
		select {
		case <-d.ended:
			if log := d.tail(); !strings.Contains(log, "address already in use") {
				d.t.Fatalf("%s ended by itself:\n%s", d.dir, log)
			}
			d.ended = nil
		default:
		}
	}
}

func (d *daemon) begin() {
	d.t.Helper()
	os.Remove(filepath.Join(d.dir, api.EndpointFile))
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	if d.logged, err = log.Seek(0, io.SeekEnd); err != nil {
		d.t.Fatal(err)
	}
	args := []string{"--data-dir", d.dir, "--listen", d.listen, "--api", "127.0.0.1:0", "--no-mdns", "--threads", "1"}
	if d.boot != "" {
		args = append(args, "--bootstrap", d.boot)
	}
	cmd, ended := exec.Command(d.mootd, args...), make(chan struct{})
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() {
		defer close(ended)
		_ = cmd.Wait() // how it ended is in its log
	}()
	d.cmd, d.ended = cmd, ended
}

func (d *daemon) addr() string { return d.listen + "/p2p/" + d.peer }

// kill ends the process as a power cut does.
func (d *daemon) kill() {
	if d.ended == nil {
		return
	}
	_ = d.cmd.Process.Kill()
	<-d.ended
	d.ended = nil
}

// tail is the end of what it wrote since it was started the last time.
func (d *daemon) tail() string {
	b, _ := os.ReadFile(filepath.Join(d.dir, "log"))
	b = b[min(int(d.logged), len(b)):]
	return string(b[max(0, len(b)-4000):])
}

func (d *daemon) client() *client.Client {
	d.t.Helper()
	c, err := client.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(c.Close)
	return c
}

// ledger is what was ever certified, and by whom it was seen.
type ledger map[uint64]map[string][]string // round, record, peers

// look adds the certified rounds of a daemon, and fails when there is another
// record of the same height.
func (l ledger) look(t *testing.T, d *daemon, run string) {
	t.Helper()
	c, err := client.Open(d.dir)
	if err != nil {
		return // it is being killed
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	rounds, err := c.AllRounds(ctx, run)
	if err != nil {
		return
	}
	for _, r := range rounds {
		if !r.Certified {
			continue
		}
		if l[r.Round] == nil {
			l[r.Round] = make(map[string][]string)
		}
		l[r.Round][r.Record] = append(l[r.Round][r.Record], d.peer)
		if len(l[r.Round]) > 1 {
			t.Fatalf("round %d was certified twice: %v", r.Round, l[r.Round])
		}
	}
}

func TestKilledDaemons(t *testing.T) {
	if testing.Short() {
		t.Skip("starts and kills real daemons for a minute or more")
	}
	if runtime.GOOS == "windows" {
		t.Skip("a port is not free at once after a kill")
	}
	mootd := filepath.Join(t.TempDir(), "mootd")
	build := exec.Command("go", "build", "-o", mootd, "github.com/moot-net/moot/node/cmd/mootd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	root := t.TempDir()
	ds := make([]*daemon, peers)
	for i := range ds {
		ds[i] = &daemon{t: t, mootd: mootd, dir: filepath.Join(root, fmt.Sprint("node", i+1)), listen: "/ip4/127.0.0.1/tcp/0"}
		if err := os.Mkdir(ds[i].dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			ds[i].boot = ds[0].addr()
		}
		ds[i].start()
		t.Cleanup(ds[i].kill)
	}
	// A kill costs the rounds that follow it some seconds, not the run.
	rounds := 8 + 2**kills
	run := launch(ctx, t, ds, rounds)

	rng := rand.New(rand.NewPCG(*seed, 0))
	seen := make(ledger)
	for n := range *kills {
		time.Sleep(time.Duration(500+rng.IntN(4500)) * time.Millisecond)
		d := ds[rng.IntN(peers)]
		t.Logf("kill %d: %s", n+1, d.peer)
		d.kill()
		time.Sleep(time.Duration(rng.IntN(6000)) * time.Millisecond)
		d.start()
		for _, d := range ds {
			seen.look(t, d, run)
		}
	}
	final := waitFinal(ctx, t, ds, run)
	for _, d := range ds {
		seen.look(t, d, run)
	}
	t.Logf("%d kills, %d rounds, %d of them certified", *kills, final.Round, final.CertifiedRounds)
	replayAll(ctx, t, ds, root, run, final.StateCID)
	if final.TrainedRounds < uint64(rounds) {
		t.Errorf("the run ended after %d trained rounds, want %d", final.TrainedRounds, rounds)
	}
}

// launch begins a run on the first daemon and lets the others join it.
func launch(ctx context.Context, t *testing.T, ds []*daemon, rounds int) string {
	t.Helper()
	quiet := func(api.Progress) {}
	c := ds[0].client()
	assets, err := c.DemoAssets(ctx, filepath.Join(t.TempDir(), "assets"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.ImportModel(ctx, api.ImportModelRequest{Dir: assets.ModelDir}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	data, err := c.ImportDataset(ctx, assets.Data, quiet)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Launch(ctx, api.LaunchRequest{Name: "run.toml", TOML: fmt.Sprintf(runFile, rounds), Model: m.ID, Dataset: data.ID}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range ds[1:] {
		if _, err := d.client().Join(ctx, api.JoinRequest{Run: r.ID}, quiet); err != nil {
			t.Fatalf("join: %v\n%s", err, d.tail())
		}
	}
	return r.ID
}

// replayAll stops the daemons and computes the run again, from all folders and in
// each. One that was dead in a round may lack its deltas, but some folder has them.
func replayAll(ctx context.Context, t *testing.T, ds []*daemon, root, run, state string) {
	t.Helper()
	replay := func(dir string) api.Replay {
		out, err := exec.CommandContext(ctx, ds[0].mootd, "replay", run, "--data-dir", dir, "--json").Output()
		var r api.Replay
		if jerr := json.Unmarshal(out, &r); jerr != nil {
			t.Fatalf("replay in %s: %v, %v: %s", dir, err, jerr, out)
		}
		return r
	}
	for _, d := range ds {
		d.kill()
	}
	if r := replay(root); !r.OK || r.StateCID != state {
		t.Errorf("replay of all folders: %+v, want state %s", r, state)
	}
	whole := 0
	for _, d := range ds {
		switch r := replay(d.dir); {
		case r.OK && r.StateCID == state:
			whole++
		case r.OK || r.Error == nil || r.Error.Code != api.CodeNotFound:
			t.Errorf("replay on %s: %+v, want state %s", d.peer, r, state)
		}
	}
	t.Logf("%d of %d folders have the whole run", whole, len(ds))
}

// waitFinal waits until all daemons have the same last record.
func waitFinal(ctx context.Context, t *testing.T, ds []*daemon, run string) api.Run {
	t.Helper()
	for {
		var runs []api.Run
		final := true
		for _, d := range ds {
			c, err := client.Open(d.dir)
			if err != nil {
				t.Fatal(err)
			}
			r, err := c.Run(ctx, run)
			c.Close()
			if err != nil {
				t.Fatalf("%v\n%s", err, d.tail())
			}
			runs = append(runs, r.Run)
			final = final && r.Final && r.Head == runs[0].Head && r.StateCID == runs[0].StateCID
		}
		if final {
			return runs[0]
		}
		select {
		case <-ctx.Done():
			for i, r := range runs {
				t.Logf("%s: round %d, head %s, state %s, %s, %s\n%s", r.State, r.Round, r.Head, r.StateCID, r.Phase, r.Why, ds[i].tail())
			}
			t.Fatal("the daemons do not reach the same end")
		case <-time.After(time.Second):
		}
	}
}
