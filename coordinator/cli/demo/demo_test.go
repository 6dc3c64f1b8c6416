package demo

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/coordinator/cli/demo/demotest"
	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// recorder is a Screen that remembers.
type recorder struct {
	mu    sync.Mutex
	lines []string
	bars  map[string]bool
	onSay func(line string)
}

func (r *recorder) Say(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	r.mu.Lock()
	r.lines = append(r.lines, line)
	r.mu.Unlock()
	if r.onSay != nil {
		r.onSay(line)
	}
}

func (r *recorder) Progress(name string) api.ProgressFunc {
	return func(api.Progress) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.bars == nil {
			r.bars = map[string]bool{}
		}
		r.bars[name] = true
	}
}

func (r *recorder) Now(string) {}
func (r *recorder) Clear()     {}

func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

// quick are limits for tests that must not reach them; slowed down by a busy
// machine they still do not.
func quick() *limits {
	l := defaultLimits
	l.grace = 3 * time.Second
	return &l
}

func options(t *testing.T, screen Screen) Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Mootd: self, Dir: t.TempDir(), Screen: screen, Timeout: 5 * time.Minute, limits: quick()}
}

// wantDead checks that no daemon of the demo in dir is left.
func wantDead(t *testing.T, dir string) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "node*", "mootd.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no logs in %s", dir)
	}
	for _, l := range logs {
		e, err := api.ReadEndpoint(filepath.Dir(l))
		if err == nil && exists(e.PID) {
			t.Errorf("%s: process %d lives", filepath.Dir(l), e.PID)
		}
	}
}

func TestDemo(t *testing.T) {
	newWorld(t, 0)
	screen := new(recorder)
	o := options(t, screen)
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatalf("Run: %v\n%s", err, screen.text())
	}
	// Round 1 let peers in, 2 and 3 had four contributions, 4 and 5 the two of
	// the survivors, and the latecomer came after 4 or 5.
	if !r.OK || r.Error != nil || r.Peers != 5 || r.Rounds != 8 || r.LauncherKilledAfterRound != 2 || r.Ledger.LauncherKilledAfter != 3 || r.Ledger.Last != 9 {
		t.Errorf("report is %+v", r)
	}
	if r.JoinedAtRound < 4 || r.JoinedAtRound > 6 || r.Ledger.JoinedAt != r.JoinedAtRound+1 {
		t.Errorf("joined at %d, record %d", r.JoinedAtRound, r.Ledger.JoinedAt)
	}
	if want := int(8 - r.JoinedAtRound + 1); r.JoinerDeltas != want {
		t.Errorf("the latecomer contributed %d deltas, want %d", r.JoinerDeltas, want)
	}
	want := map[string]string{}
	for _, n := range []string{"node3", "node4", "node5"} {
		want[apitest.PeerID(n)] = apitest.ID("demo state 9")
	}
	if diff := cmp.Diff(want, r.StateCIDs); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	if deltas := 2*4 + 6*2 + r.JoinerDeltas; r.Bytes.Deltas != uint64(deltas)*6500 || r.Bytes.Pulled != 5<<20 {
		t.Errorf("bytes are %+v, want %d deltas of 6500, and 1 MiB pulled by each of 5", r.Bytes, deltas)
	}
	if *r.EvalLoss.Base != 3.5 || *r.EvalLoss.Adapter != 0.5 || *r.Accuracy.Base != 0.02 || *r.Accuracy.Adapter != 0.9 {
		t.Errorf("figures are %v %v %v %v", *r.EvalLoss.Base, *r.EvalLoss.Adapter, *r.Accuracy.Base, *r.Accuracy.Adapter)
	}
	if len(r.Answers) != 2 || r.Answers[1].Base != "What does Bo eat? What does Bo eat?" || r.Answers[1].Adapter != r.Answers[1].Expected {
		t.Errorf("answers are %+v", r.Answers)
	}
	if r.AdapterDir != filepath.Join(o.Dir, AdapterDir) {
		t.Errorf("adapter is in %s", r.AdapterDir)
	}
	if _, err := os.Stat(filepath.Join(r.AdapterDir, "adapter_config.json")); err != nil {
		t.Error(err)
	}
	for _, bar := range []string{"model", "data", "node 2", "node 3", "node 4", "node 5"} {
		if !screen.bars[bar] {
			t.Errorf("no progress of %s was shown", bar)
		}
	}
	for _, line := range strings.Split(screen.text(), "\n") {
		if len([]rune(line)) > 80 && !strings.Contains(line, o.Dir) {
			t.Errorf("%d columns: %s", len([]rune(line)), line)
		}
	}
	wantDead(t, o.Dir)

	// Who was told about whom.
	boot := regexp.MustCompile(`--bootstrap \S+/p2p/(\S+)`)
	for n, want := range map[string]string{"node1": "", "node2": "node1", "node3": "node1", "node4": "node1", "node5": "node3"} {
		b, err := os.ReadFile(filepath.Join(o.Dir, n, "mootd.log"))
		if err != nil {
			t.Fatal(err)
		}
		if m := boot.FindStringSubmatch(string(b)); (want != "") != (m != nil) || m != nil && m[1] != apitest.PeerID(want) {
			t.Errorf("%s was started with %s, want the address of %q alone", n, b, want)
		}
	}
}

func TestRounds(t *testing.T) {
	newWorld(t, 0)
	screen := new(recorder)
	o := options(t, screen)
	o.Rounds = 6
	r, err := Run(t.Context(), o)
	if err != nil || r.Rounds != 6 {
		t.Errorf("Run with 6 rounds: %d rounds, %v\n%s", r.Rounds, err, screen.text())
	}
	for _, tt := range []struct{ text, want string }{
		{"name = \"x\"\nrounds = 3\n[lora]\n", "name = \"x\"\nrounds = 9\n[lora]\n"},
		{"name = \"x\"\n[lora]\nrounds = 3\n", "rounds = 9\nname = \"x\"\n[lora]\nrounds = 3\n"},
		{"", "rounds = 9\n"},
	} {
		if got := setRounds(tt.text, 9); got != tt.want {
			t.Errorf("setRounds(%q) = %q, want %q", tt.text, got, tt.want)
		}
	}
}

// TestHold: who wants to look at the daemons finds those that live, and none is
// left afterwards.
func TestHold(t *testing.T) {
	newWorld(t, 0)
	o := options(t, new(recorder))
	held := 0
	o.Hold = func(ctx context.Context, r Report, open []Open) error {
		held++
		if !r.OK || r.Peers != 5 || r.WallS == 0 || len(open) != 3 {
			t.Errorf("held with %+v and %+v, want the whole report and three daemons", r, open)
		}
		for i, x := range open {
			if want := fmt.Sprintf("node %d", i+3); x.Name != want {
				t.Errorf("daemon is %s, want %s", x.Name, want)
			}
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, x.Dashboard, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Errorf("%s does not answer: %v", x.Name, err)
				continue
			}
			resp.Body.Close()
		}
		return nil
	}
	if _, err := Run(t.Context(), o); err != nil || held != 1 {
		t.Errorf("Run = %v, and Hold was called %d times", err, held)
	}
	wantDead(t, o.Dir)
}

// TestFaults: whatever goes wrong, the demo fails with words, and no daemon is
// left.
func TestFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		faults string
		stall  uint64
		limit  func(*limits, time.Duration)
		code   api.Code
		want   []string
	}{
		"a daemon dies at start": {
			faults: "node3=die", code: api.CodeInternal,
			want: []string{"start node 3: the daemon ended (exit status 1)", "mootd.log:", "address already in use"},
		},
		"the first daemon dies at start": {
			faults: "node1=die", code: api.CodeInternal,
			want: []string{"start node 1: the daemon ended", "address already in use"},
		},
		"a daemon does not answer": {
			faults: "node2=mute", limit: func(l *limits, d time.Duration) { l.start = d }, code: api.CodeRetry,
			want: []string{"start node 2: no answer after PATIENCE", "args --data-dir"},
		},
		"a volunteer cannot join": {
			faults: "node4=unjoined", code: api.CodeNet,
			want: []string{"join the run on node 4: join run", "no peer has it", "args --data-dir"},
		},
		"the latecomer cannot join": {
			faults: "node5=unjoined", code: api.CodeNet,
			want: []string{"join the run on node 5", "no peer has it"},
		},
		"the latecomer contributes nothing": {
			faults: "node5=idle", code: api.CodeVerify, want: []string{"no delta of the latecomer"},
		},
		"a survivor has another state": {
			faults: "node4=disagree", limit: func(l *limits, d time.Duration) { l.agree = d / 2 }, code: api.CodeVerify,
			want: []string{"do not agree", "node 4: final"},
		},
		"rounds stop": {
			stall: 4, limit: func(l *limits, d time.Duration) { l.round = d }, code: api.CodeRetry,
			want: []string{"no round was decided in PATIENCE", "node 3: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(demotest.FaultEnv, tt.faults)
			// On a machine that does nothing for a while another step may be late before
			// the one that has to: then again, with more patience.
			for patience := 2 * time.Second; ; patience *= 5 {
				newWorld(t, tt.stall)
				o := options(t, new(recorder))
				if tt.limit != nil {
					tt.limit(o.limits, patience)
				}
				o.Hold = func(context.Context, Report, []Open) error {
					t.Error("held after a failure")
					return nil
				}
				r, err := Run(t.Context(), o)
				wantDead(t, o.Dir)
				e := api.AsError(err)
				if e == nil || e.Code != tt.code || r.OK || r.Error == nil || r.Error.Code != tt.code {
					t.Fatalf("Run = %+v, %v, want %s", r, err, tt.code)
				}
				missing := slices.DeleteFunc(slices.Clone(tt.want), func(want string) bool {
					return strings.Contains(e.Message, strings.ReplaceAll(want, "PATIENCE", patience.String()))
				})
				if len(missing) == 0 {
					break
				}
				if tt.limit == nil || patience > time.Minute {
					t.Fatalf("error is %q, want it to have %q", e.Message, missing)
				}
			}
		})
	}
}

// TestStray: the daemon that is looked at sees another last round at first, which the
// others do not agree on; the run ends all the same.
func TestStray(t *testing.T) {
	newWorld(t, 0)
	t.Setenv(demotest.FaultEnv, "node3=stray")
	screen := new(recorder)
	o := options(t, screen)
	if r, err := Run(t.Context(), o); err != nil || r.Rounds != 8 || r.Ledger.Last != 9 {
		t.Errorf("Run: %v, %+v\n%s", err, r, screen.text())
	}
	if text := screen.text(); strings.Count(text, "\n    8  ") != 1 {
		t.Errorf("the last round is not shown once:\n%s", text)
	}
}

// TestStubborn: a daemon that does not stop when asked is killed, and the demo
// passes.
func TestStubborn(t *testing.T) {
	newWorld(t, 0)
	t.Setenv(demotest.FaultEnv, "node4=stubborn")
	o := options(t, new(recorder))
	o.limits.grace = 500 * time.Millisecond
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	wantDead(t, o.Dir)
}

func TestInterrupted(t *testing.T) {
	newWorld(t, 4)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	screen := &recorder{onSay: func(line string) {
		if strings.Contains(line, "killed") {
			cancel()
		}
	}}
	o := options(t, screen)
	_, err := Run(ctx, o)
	if e := api.AsError(err); e == nil || e.Code != api.CodeInterrupted || e.Exit != 130 {
		t.Errorf("Run = %v, want E_INTERRUPTED", err)
	}
	wantDead(t, o.Dir)
}

func TestTimeout(t *testing.T) {
	for timeout := 3 * time.Second; ; timeout *= 5 { // on a slow machine no daemon has a log so soon
		newWorld(t, 4)
		o := options(t, new(recorder))
		o.Timeout = timeout
		_, err := Run(t.Context(), o)
		if logs, _ := filepath.Glob(filepath.Join(o.Dir, "node*", "mootd.log")); len(logs) > 0 {
			wantDead(t, o.Dir)
		}
		e := api.AsError(err)
		if e == nil || e.Code != api.CodeRetry || !strings.Contains(e.Message, "too long") {
			t.Fatalf("Run = %v, want E_RETRY", err)
		}
		if strings.Contains(e.Message, "args --data-dir") {
			break
		}
		if timeout > time.Minute {
			t.Fatalf("Run = %v, want the ends of the logs", err)
		}
	}
}
