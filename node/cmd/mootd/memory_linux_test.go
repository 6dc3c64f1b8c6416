package main

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// addresses is how many bytes of addresses a process takes.
func addresses(t *testing.T, pid int) uint64 {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmSize:")
	n, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// A daemon that may take little more memory (ulimit -v) refuses a run with
// numbers, and goes on; with more of it, it trains.
func TestMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for some seconds")
	}
	p, c, _ := daemon(t, t.TempDir())
	m, d := demoAssets(t, c)
	launch := func() (api.Run, error) {
		return c.Launch(t.Context(), api.LaunchRequest{Name: "run.toml", Model: m, Dataset: d, TOML: `
name = "bounded"
mode = "full"
rounds = 2
period = "20s"
eval_samples = 4
[inner]
max_steps = 2
batch_samples = 2
sequence_tokens = 128
`}, nil)
	}
	bound := func(bytes uint64) {
		t.Helper()
		if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_AS, &unix.Rlimit{Cur: bytes, Max: unix.RLIM_INFINITY}, nil); err != nil {
			t.Skip(err)
		}
	}
	taken := addresses(t, p.cmd.Process.Pid)
	if taken > 64<<30 {
		t.Skip("the race detector takes more addresses than there is memory")
	}
	// The runtime of Go asks for 64 MiB at a time, and so much is left free
	// beside a trainer.
	bound(taken + 72<<20)
	_, err := launch()
	if e := api.AsError(err); err == nil || e.Code != api.CodeRAM || e.Exit != 10 || !strings.Contains(e.Message, "are free") || e.Hint == "" {
		t.Errorf("within a bound: %v", err)
	}
	if s, err := c.Status(t.Context()); err != nil || s.State != api.NodeIdle {
		t.Errorf("afterwards the node is %+v, %v", s, err)
	}
	bound(unix.RLIM_INFINITY)
	r, err := launch()
	if err != nil {
		t.Fatalf("without a bound: %v", err)
	}
	apitest.Await(t, c, r.ID, "it is final", func(r api.Run) bool { return r.Final })
}
