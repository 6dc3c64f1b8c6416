package adversary

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/app"
	"github.com/moot-net/moot/node/client"
	"github.com/moot-net/moot/node/config"
	"github.com/moot-net/moot/node/internal/demo"
)

var victimLog = flag.String("victimlog", "error", "what the nodes that are attacked log, and of what level")

// victimChild is the environment variable that makes this test program a node
// that is attacked: its folder.
const victimChild = "MOOT_TEST_VICTIM"

func TestMain(m *testing.M) {
	flag.Parse()
	if dir := os.Getenv(victimChild); dir != "" {
		if err := beVictim(dir); err != nil {
			fmt.Fprintln(os.Stderr, "victim:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// beVictim is a daemon with its defaults, but for addresses; it ends with its
// standard input.
func beVictim(dir string) error {
	c := config.Default()
	c.DataDir, c.MDNS, c.Threads, c.OpenBrowser = dir, false, 1, false
	c.SetListen([]string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"})
	c.SetAPI("127.0.0.1:0")
	var level slog.Level
	if err := level.UnmarshalText([]byte(os.Getenv(victimChild + "_LOG"))); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
		cancel()
	}()
	return app.Run(ctx, app.Options{
		Config:  c,
		Log:     slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
		Started: func(api.Endpoint) { fmt.Println("UP") },
	})
}

// victim is a daemon in a process of its own.
type victim struct {
	*client.Client
	t     testing.TB
	dir   string
	home  string
	cmd   *exec.Cmd
	ended chan error
	addrs []string
	info  peer.AddrInfo
	model string // the bundled one, and its data; empty: not imported
	data  string
}

func startVictim(t testing.TB) *victim {
	t.Helper()
	home := t.TempDir()
	v := &victim{t: t, home: home, dir: filepath.Join(home, "data"), ended: make(chan error, 1)}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	v.cmd = exec.Command(self)
	v.cmd.Env = append(os.Environ(), victimChild+"="+v.dir, victimChild+"_LOG="+*victimLog, "HOME="+home, "XDG_RUNTIME_DIR="+home, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home, "TMPDIR="+home)
	v.cmd.Dir = home
	v.cmd.Stderr = os.Stderr
	in, err := v.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	up := make(chan bool, 1)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			if s.Text() == "UP" {
				up <- true
			}
		}
		v.ended <- v.cmd.Wait()
	}()
	t.Cleanup(func() {
		in.Close()
		select {
		case err := <-v.ended:
			if err != nil {
				t.Errorf("the node ended with %v", err)
			}
		case <-time.After(2 * time.Minute):
			t.Error("the node does not end")
			_ = v.cmd.Process.Kill()
			<-v.ended
		}
	})
	select {
	case <-up:
	case err := <-v.ended:
		v.ended <- err
		t.Fatal("the node did not start")
	}
	if v.Client, err = client.Open(v.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	v.addrs = v.Endpoint().Addrs
	infos, err := peer.AddrInfosFromP2pAddrs(multiaddrs(t, v.addrs)...)
	if err != nil || len(infos) != 1 {
		t.Fatal("addresses of the node:", infos, err)
	}
	v.info = infos[0]
	return v
}

// launch begins a run of the bundled model and data; more are lines of its file.
func (v *victim) launch(minPeers, seats int, period time.Duration, more ...string) cid.Cid {
	v.t.Helper()
	ctx := v.t.Context()
	if v.model == "" {
		a, err := demo.Write(v.t.TempDir())
		if err != nil {
			v.t.Fatal(err)
		}
		m, err := v.ImportModel(ctx, api.ImportModelRequest{Dir: a.ModelDir}, nil)
		if err != nil {
			v.t.Fatal(err)
		}
		d, err := v.ImportDataset(ctx, a.Data, nil)
		if err != nil {
			v.t.Fatal(err)
		}
		v.model, v.data = m.ID, d.ID
	}
	r, err := v.Launch(ctx, api.LaunchRequest{Name: "run.toml", TOML: fmt.Sprintf(`name = "attacked"
model = %q
data = %q
rounds = 100000
min_peers = %d
seats = %d
period = %q
eval_samples = 4
lora.rank = 2
inner.max_steps = 2
inner.batch_samples = 2
inner.sequence_tokens = 64
%s
`, v.model, v.data, minPeers, seats, period, strings.Join(more, "\n"))}, nil)
	if err != nil {
		v.t.Fatal(err)
	}
	id, err := cid.Decode(r.ID)
	if err != nil {
		v.t.Fatal(err)
	}
	return id
}

// genesis is the CID of a run's first record.
func (v *victim) genesis(run cid.Cid) cid.Cid {
	v.t.Helper()
	r, err := v.Round(v.t.Context(), run.String(), 1)
	if err != nil {
		v.t.Fatal(err)
	}
	id, err := cid.Decode(r.Parent)
	if err != nil {
		v.t.Fatal(err)
	}
	return id
}

// await waits until the run is as it should be, for minutes: the machine may be
// busy, with the attack above all.
func (v *victim) await(run cid.Cid, what string, ok func(api.Run) bool) api.Run {
	v.t.Helper()
	var last api.RunDetail
	var err error
	for deadline := time.Now().Add(8 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if last, err = v.Run(v.t.Context(), run.String()); err == nil && ok(last.Run) {
			return last.Run
		}
		select {
		case err := <-v.ended:
			v.ended <- err
			v.t.Fatalf("waiting until %s: the node ended: %v", what, err)
		default:
		}
	}
	v.t.Fatalf("waiting until %s: %+v, %v", what, last.Run, err)
	return api.Run{}
}

// resetPeak begins to measure the most memory anew.
func (v *victim) resetPeak() {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", v.cmd.Process.Pid), []byte("5"), 0) // else it is the most so far
}

// memory reads a line of the process's status, in MB.
func (v *victim) memory(line string) (mb int) {
	v.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.cmd.Process.Pid))
	if err != nil {
		v.t.Fatal(err)
	}
	_, s, _ := strings.Cut(string(b), line+":")
	if _, err := fmt.Sscan(s, &mb); err != nil {
		v.t.Fatal(err)
	}
	return mb * 1024 / 1e6
}

// cpu is how long the node has computed.
func (v *victim) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", v.cmd.Process.Pid))
	if err != nil {
		v.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	var user, system int64
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		v.t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// disk is how much lies in the node's folders, in bytes, and the names that are
// not in its data folder.
func (v *victim) disk() (size int64, outside []string) {
	err := filepath.WalkDir(v.home, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was there a moment ago
		}
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			size += info.Size()
		}
		if !strings.HasPrefix(path, v.dir) {
			outside = append(outside, path)
		}
		return nil
	})
	if err != nil {
		v.t.Fatal(err)
	}
	return size, outside
}
