package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/api"
)

// childEnv makes the test program the command itself.
const childEnv = "MOOT_TEST_CHAOS"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Unsetenv(childEnv)
		main()
		return
	}
	os.Exit(m.Run())
}

// TestLauncherGone is the short form: real daemons in namespaces, of which one
// dies for good and two come later.
func TestLauncherGone(t *testing.T) {
	if testing.Short() {
		t.Skip("trains with real daemons for half a minute")
	}
	alone := []string{"--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"}
	if os.Getuid() != 0 {
		alone = append(alone, "--map-root-user")
	}
	if err := exec.Command("unshare", append(alone, "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")...).Run(); err != nil {
		t.Skip("network namespaces are not permitted here, or unshare or ip is missing (packages util-linux, iproute2)")
	}
	mootd := filepath.Join(t.TempDir(), "mootd")
	build := exec.Command("go", "build", "-o", mootd, "github.com/moot-net/moot/node/cmd/mootd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", append(alone, self, "--mootd", mootd, "--scenario", "launcher-gone", "--period", "20s", "--keep-data", t.TempDir())...)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	runErr := cmd.Run()
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	var rep report
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &rep); err != nil || runErr != nil || !rep.Pass || len(rep.Scenarios) != 1 {
		t.Fatalf("%v, %v\n%s\n%s", runErr, err, stdout.String(), stderr.String())
	}
	t.Logf("figures: %v", rep.Scenarios[0].Figures)
}

// TestNotAlone: in the network of the machine nothing is changed.
func TestNotAlone(t *testing.T) {
	if l, err := os.ReadDir("/sys/class/net"); err != nil || len(l) < 2 {
		t.Skip("this machine has no network")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "--json", "--scenario", "kill9")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != exitSkipped {
		t.Errorf("exit code %d (%v), want %d", code, err, exitSkipped)
	}
	var rep report
	if err := json.Unmarshal(out, &rep); err != nil || rep.Skipped == "" || rep.Pass {
		t.Errorf("it says %s", out)
	}
}

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// steps are steps 1 to n of a round, a second after each other.
func steps(round, n uint64, from time.Time) (list []step) {
	for i := range n {
		list = append(list, step{from.Add(time.Duration(i) * time.Second), round, i + 1})
	}
	return list
}

func TestAccount(t *testing.T) {
	n := new(node)
	whole := map[uint64]uint64{1: 4, 2: 4}
	lasts := []fault{{n, t0, t0.Add(time.Second)}}
	later := t0.Add(time.Hour)
	for _, tt := range []struct {
		name                 string
		steps                []step
		credit               map[uint64]uint64
		faults               []fault
		taken, inFault, lost int
	}{
		{"all recorded", append(steps(1, 4, t0), steps(2, 4, later)...), whole, nil, 8, 0, 0},
		{"a round is not recorded", append(steps(1, 4, t0), steps(3, 4, later)...), whole, nil, 8, 0, 4},
		{"it was a fault's", steps(3, 4, t0), whole, lasts, 4, 4, 0},
		{"a fault that lasts", steps(3, 4, later), whole, []fault{{node: n, from: t0}}, 4, 4, 0},
		{"long after the fault", steps(3, 4, later), whole, lasts, 4, 0, 4},
		{"a part was recorded", steps(1, 6, later), whole, lasts, 6, 0, 2},
		{"taken twice", append(steps(1, 4, t0), steps(1, 4, later)...), whole, nil, 8, 0, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if a, b, c := account(tt.steps, tt.credit, tt.faults, 6*time.Second); a != tt.taken || b != tt.inFault || c != tt.lost {
				t.Errorf("account = %d, %d, %d, want %d, %d, %d", a, b, c, tt.taken, tt.inFault, tt.lost)
			}
		})
	}
	if got := redone(append(steps(1, 4, t0), steps(1, 2, later)...)); got != 2 {
		t.Errorf("%d steps were redone, want 2", got)
	}
}

// decided is round n, decided so many seconds after the fault with
// contributions of peers.
func decided(n uint64, seconds int, peers ...string) api.Round {
	r := api.Round{Round: n, Decided: t0.Add(time.Duration(seconds) * time.Second)}
	for _, p := range peers {
		r.Contributions = append(r.Contributions, api.Contribution{Peer: p, Steps: 3})
	}
	return r
}

func TestRoundsUntilBack(t *testing.T) {
	f := fault{from: t0.Add(-time.Minute), to: t0}
	for _, tt := range []struct {
		name   string
		rounds []api.Round
		want   int
	}{
		{"in the next round", []api.Round{decided(1, -5, "b"), decided(2, 5, "a", "b")}, 1},
		{"in the one after an empty one", []api.Round{decided(1, 5), decided(2, 9, "a")}, 1},
		{"in the third", []api.Round{decided(1, 1, "b"), decided(2, 5, "b"), decided(3, 9, "a")}, 3},
		{"never", []api.Round{decided(1, 1, "b"), decided(2, 5, "b")}, 2},
		{"the run was over", []api.Round{decided(1, -5, "b")}, 0},
	} {
		if got := roundsUntilBack(tt.rounds, "a", f, time.Time{}); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	if got := roundsUntilBack([]api.Round{decided(1, 5, "b")}, "a", fault{from: t0}, time.Time{}); got != 0 {
		t.Errorf("a fault that lasts: %d", got)
	}
	again := []api.Round{decided(1, 1, "b"), decided(2, 5, "b"), decided(3, 9, "a")}
	if got := roundsUntilBack(again, "a", f, t0.Add(7*time.Second)); got != 0 {
		t.Errorf("another fault before it was back: %d", got)
	}
	if got := roundsUntilBack(again, "a", f, t0.Add(10*time.Second)); got != 3 {
		t.Errorf("another fault after it was back: %d", got)
	}
}

func TestEarliest(t *testing.T) {
	// The first slept.
	a := earliest(earliest(nil, []api.Round{decided(1, 1), decided(2, 50)}), []api.Round{decided(1, 2), decided(2, 3)})
	if diff := cmp.Diff([]api.Round{decided(1, 1), decided(2, 3)}, a); diff != "" {
		t.Errorf("earliest (-want +got):\n%s", diff)
	}
}

// TestForks: two certificates on one record are a fork; one in each of two
// branches is none.
func TestForks(t *testing.T) {
	record := func(n uint64, parent, id string) api.Round {
		return api.Round{Round: n, Parent: parent, Record: id, Certified: true}
	}
	for _, tt := range []struct {
		name         string
		seen         []api.Round
		forks, twice float64
	}{
		{"one chain", []api.Round{record(1, "0", "a"), record(2, "a", "b"), record(1, "0", "a")}, 0, 0},
		{"two branches", []api.Round{record(1, "0", "a"), record(2, "x", "c"), record(2, "y", "d")}, 0, 1},
		{"a fork", []api.Round{record(1, "0", "a"), record(2, "a", "c"), record(2, "a", "d")}, 1, 0},
	} {
		s := &swarm{programs: programs{period: time.Second}, seen: make(map[parent]map[string]bool)}
		s.note(tt.seen)
		s.note([]api.Round{{Round: 1, Parent: "0", Record: "provisional"}})
		r := &result{Figures: map[string]float64{}, Limits: map[string]limit{}}
		s.countRounds(r, []api.Round{{Round: 1, Certified: true}}, usual)
		if r.Figures["certified_forks"] != tt.forks || r.Figures["certified_twice"] != tt.twice {
			t.Errorf("%s: %v", tt.name, r.Figures)
		}
		if passed := len(r.Missed) == 0; passed != (tt.forks+tt.twice == 0) {
			t.Errorf("%s: missed %v", tt.name, r.Missed)
		}
	}
}

func TestLimits(t *testing.T) {
	r := &result{Figures: map[string]float64{}, Limits: map[string]limit{}}
	nan := 0.0
	nan /= nan
	r.atMost("most", 1, 1)
	r.atLeast("least", 1, 1)
	r.atMost("above", 2, 1)
	r.atLeast("below", 0, 1)
	r.atMost("no_number", nan, 1)
	if diff := cmp.Diff([]string{"above", "below", "no_number"}, r.Missed); diff != "" {
		t.Errorf("missed (-want +got):\n%s", diff)
	}
}

// TestSoakReport: what a soak is about is at the top of its object.
func TestSoakReport(t *testing.T) {
	r := result{Scenario: soakName, Seed: 3, Pass: true, Figures: map[string]float64{"lost_steps": 2, "leaked_bytes": 5, "wrong_states": 1}}
	b, err := json.Marshal(report{Schema: 1, Scenarios: []result{r}}.soak())
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"schema":1,"lost_steps":2,"leaked_bytes":5,"wrong_states":1,"scenario":"soak","seed":3,"pass":true,`; !strings.HasPrefix(string(b), want) {
		t.Errorf("report is %s, want %s", b, want)
	}
}

func TestGrowth(t *testing.T) {
	k := &soak{samples: map[*node][]usage{}}
	var l []usage
	for i := range 50 { // it warms up, and then leaks 1 kB each time
		l = append(l, usage{rss: int64(min(i, 10))*1e6 + int64(max(i-10, 0))*1e3, fds: 7})
	}
	k.samples[new(node)] = l
	memory, files := k.growth()
	if memory != 30e3 || files != 0 {
		t.Errorf("grown by %d bytes and %d files, want 30 kB and 0", memory, files)
	}
}

func TestLeftBehind(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"node1/store/blocks/aa/block", "node1/store/tmp/block-1", "node1/models/x.12345678.partial", "node2/runs/residual.bin.tmp"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, 10), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := leftBehind(dir); n != 30 || err != nil {
		t.Errorf("%d bytes (%v), want 30 of three files", n, err)
	}
}

func TestStepsOf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	text := `{"time":"2026-01-02T03:04:05Z","level":"DEBUG","msg":"inner step was taken","round":3,"step":2,"loss":1}
{"time":"2026-01-02T03:04:06Z","level":"INFO","msg":"round was decided","round":3}
mootd: saves and stops
chaos: started with a clock that is wrong by -1h0m0s
{"time":"2026-01-02T02:04:07Z","level":"DEBUG","msg":"inner step was taken","round":4,"step":1,"loss":1}
{"time":"2026-01-02T02:04:08Z","level":"DEBUG","msg":"inner step was taken","round":4,"st
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := stepsOf(path)
	if want := []step{{t0, 3, 2}, {t0.Add(2 * time.Second), 4, 1}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("steps %v (%v), want %v", got, err, want)
	}
}

// TestCountCells: only rounds of more than one cell count, and each peer once.
func TestCountCells(t *testing.T) {
	at := time.Unix(1000, 0)
	peers := func(n int) (list []api.Contribution) {
		for i := range n {
			list = append(list, api.Contribution{Peer: string(rune('a' + i))})
		}
		return append(list, list...)
	}
	rounds := []api.Round{
		{Seats: 52, Decided: at, Contributions: peers(52)}, // when it began is not known
		{Seats: 52, Decided: at.Add(10 * time.Second)},
		{Seats: 48, Decided: at.Add(20 * time.Second), Contributions: peers(48)},
		{Seats: 52, Decided: at.Add(50 * time.Second), Contributions: peers(26)},
		{Seats: 50, Decided: at.Add(60 * time.Second), Contributions: peers(50)},
	}
	r := result{Figures: map[string]float64{}, Limits: map[string]limit{}}
	countCells(&r, rounds)
	want := map[string]float64{"rounds_in_cells": 2, "least_part_that_gave": 0.5, "seconds_a_round": 20}
	if d := cmp.Diff(want, r.Figures); d != "" || !slices.Equal(r.Missed, []string{"rounds_in_cells"}) {
		t.Errorf("figures (-want +got):\n%s, missed %v", d, r.Missed)
	}
}
