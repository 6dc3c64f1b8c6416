package app

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
)

// launched is a node in a run of its own that it has begun.
func launched(t *testing.T, dir string, made *fakeRuns) (n *node, stop func(), id string) {
	t.Helper()
	n, stop = testNode(t, dir, made.open)
	m, d := imported(t, n)
	r, err := n.Launch(t.Context(), api.LaunchRequest{Name: "run.toml", TOML: runText(m, d, "inner.sequence_tokens = 64")}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if r.Name != "test" || !r.Joined || r.State != api.RunTraining {
		t.Errorf("launched %+v", r)
	}
	return n, stop, r.ID
}

func TestRunsGoOnAfterRestart(t *testing.T) {
	dir, made := t.TempDir(), new(fakeRuns)
	n, stop, id := launched(t, dir, made)
	first := made.began(t, 0)
	if l, _ := n.Runs(t.Context()); len(l) != 1 || l[0].ID != id || !l[0].Joined {
		t.Errorf("runs: %v", l)
	}
	stop()
	if got := first.did(); got != "Run ended Close" {
		t.Errorf("the runner did: %s", got)
	}
	n, stop = testNode(t, dir, made.open)
	second := made.began(t, 1)
	if second.dir != first.dir || second.manifest.Name != "test" {
		t.Errorf("it goes on in %s as %s", second.dir, second.manifest.Name)
	}
	if s, _ := n.Status(t.Context()); s.Runs != 1 || s.State != api.NodeTraining || s.Why != "" {
		t.Errorf("status %+v", s)
	}
	stop()
	if got := second.did(); got != "Run ended Close" {
		t.Errorf("the second runner did: %s", got)
	}
}

func TestLeaveAndJoinAgain(t *testing.T) {
	dir, made := t.TempDir(), new(fakeRuns)
	n, stop, id := launched(t, dir, made)
	first := made.began(t, 0)
	r, err := n.Leave(t.Context(), id)
	if err != nil || r.Joined || r.State != api.RunLeft || r.Name != "test" {
		t.Fatalf("Leave = %+v, %v", r, err)
	}
	if got := first.did(); got != "Run Leave ended" {
		t.Errorf("the runner did: %s", got)
	}
	_, err = n.Leave(t.Context(), id)
	wantCode(t, err, api.CodeConflict, "not in run")
	if s, _ := n.Status(t.Context()); s.State != api.NodeIdle || s.Runs != 0 {
		t.Errorf("status %+v", s)
	}
	stop()

	// A restart does not join again, and knows the run still.
	n, _ = testNode(t, dir, made.open)
	second := made.all()[1]
	if l, _ := n.Runs(t.Context()); len(l) != 1 || l[0].State != api.RunLeft {
		t.Errorf("runs: %v", l)
	}
	if _, err := n.Round(t.Context(), id, 2); err != nil {
		t.Error(err)
	}
	if got := second.did(); got != "" {
		t.Errorf("a run that was left did: %s", got)
	}

	if r, err := n.Join(t.Context(), api.JoinRequest{Run: id}, quiet); err != nil || !r.Joined {
		t.Fatalf("Join = %+v, %v", r, err)
	}
	if made.began(t, 1); len(made.all()) != 2 {
		t.Error("the run was opened twice")
	}
	if _, err := n.Leave(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Join(t.Context(), api.JoinRequest{Run: id}, quiet); err != nil {
		t.Fatal(err)
	}
	made.began(t, 2)
	if got := second.did(); got != "Run Leave ended Close" {
		t.Errorf("the runner that was left did: %s", got)
	}
}

func TestRunFails(t *testing.T) {
	made := new(fakeRuns)
	n, _, id := launched(t, t.TempDir(), made)
	made.began(t, 0).fail <- errors.New("the moon is full")
	state := func() api.Run {
		l, err := n.Runs(t.Context())
		if err != nil || len(l) != 1 {
			t.Fatal(l, err)
		}
		return l[0]
	}
	eventually(t, func() bool { return state().State == api.RunFailed })
	if r := state(); !r.Joined || r.Why != "the moon is full" {
		t.Errorf("run %+v", r)
	}
	if s, _ := n.Status(t.Context()); s.State != api.NodeIdle || s.Why != "the moon is full" {
		t.Errorf("status %+v", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	alert := ""
	err := n.Watch(ctx, id, api.Cursor{}, func(e api.Event) error {
		if e.Type == api.EventAlert {
			alert = e.Text
			cancel()
		}
		return nil
	})
	if err != nil || alert != "the moon is full" {
		t.Errorf("alert %q, %v", alert, err)
	}
	// To join again is to try again.
	if _, err := n.Join(t.Context(), api.JoinRequest{Run: id}, quiet); err != nil {
		t.Fatal(err)
	}
	made.began(t, 1)
	if state().State != api.RunTraining {
		t.Errorf("run %+v", state())
	}
}

func TestJoinFromPeer(t *testing.T) {
	launcher, made := new(fakeRuns), new(fakeRuns)
	a, _, id := launched(t, t.TempDir(), launcher)
	b, _ := testNode(t, t.TempDir(), made.open)
	r, err := b.Join(t.Context(), api.JoinRequest{Run: id, Peers: a.host.Addrs()}, quiet)
	if err != nil || !r.Joined || r.Name != "test" || r.ID != id {
		t.Fatalf("Join = %+v, %v", r, err)
	}
	if made.began(t, 0).manifest.Launcher != a.host.ID() {
		t.Error("the manifest is not the launcher's")
	}
	d, err := b.Run(t.Context(), id)
	if err != nil || d.ID != id || !d.Joined {
		t.Errorf("Run = %+v, %v", d, err)
	}
	if rounds, err := b.Rounds(t.Context(), id, 1, 10); err != nil || len(rounds) != 2 {
		t.Errorf("Rounds = %v, %v", rounds, err)
	}
	_, err = b.Round(t.Context(), id, 3)
	wantCode(t, err, api.CodeNotFound, "no round 3")
}

// Who stops waiting, and even a restart, does not end the wish to join.
func TestJoinSurvivesRestart(t *testing.T) {
	launcher, made := new(fakeRuns), new(fakeRuns)
	a, _, id := launched(t, t.TempDir(), launcher)
	dir := t.TempDir()
	b, stop := testNode(t, dir, made.open)
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error, 1)
	go func() {
		_, err := b.Join(ctx, api.JoinRequest{Run: id}, quiet)
		waited <- err
	}()
	eventually(t, func() bool { l, _ := b.Runs(t.Context()); return len(l) == 1 })
	cancel()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Errorf("Join = %v", err)
	}
	if l, _ := b.Runs(t.Context()); l[0].State != api.RunSyncing || !l[0].Joined || l[0].ID != id {
		t.Errorf("runs: %v", l)
	}
	_, err := b.Rounds(t.Context(), id, 1, 1)
	wantCode(t, err, api.CodeRetry, "not here yet")
	stop()

	b, _ = testNode(t, dir, made.open)
	eventually(t, func() bool { return b.host.Connect(t.Context(), a.host.Addrs()[0]) == nil })
	made.began(t, 0)
}

func TestJoinErrors(t *testing.T) {
	made := new(fakeRuns)
	n, stop := testNode(t, t.TempDir(), made.open)
	m, _ := imported(t, n)
	other, err := n.store.PutBytes(t.Context(), []byte("not a manifest"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		req  api.JoinRequest
		code api.Code
		want string
	}{
		{"no CID", api.JoinRequest{Run: "x"}, api.CodeUsage, "not the ID of a run"},
		{"model", api.JoinRequest{Run: m.ID}, api.CodeUsage, "names a file or folder"},
		{"address", api.JoinRequest{Run: other.String(), Peers: []string{"/ip4/1.2.3.4/tcp/1"}}, api.CodeUsage, "not the address of a peer"},
		{"other bytes", api.JoinRequest{Run: other.String()}, api.CodeRefused, "not a run"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := n.Join(t.Context(), tt.req, quiet)
			wantCode(t, err, tt.code, tt.want)
		})
	}
	_, err = n.Leave(t.Context(), "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy")
	wantCode(t, err, api.CodeNotFound, "knows no run")
	stop()
	_, err = n.Join(t.Context(), api.JoinRequest{Run: "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"}, quiet)
	wantCode(t, err, api.CodeRetry, "stopping")
}

// One membership that cannot be read must not keep the node from its others.
func TestDamagedMembership(t *testing.T) {
	dir, made := t.TempDir(), new(fakeRuns)
	_, stop, id := launched(t, dir, made)
	stop()
	for name, text := range map[string]string{"x.json": "{", "y.json": `{"run":"` + id + `","joined":true}`, id + ".json.tmp1": "{"} {
		if err := os.WriteFile(filepath.Join(dir, runsDir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n, _ := testNode(t, dir, made.open)
	made.began(t, 1)
	if l, _ := n.Runs(t.Context()); len(l) != 1 || l[0].ID != id {
		t.Errorf("runs: %v", l)
	}
	if l := leftovers(t, filepath.Join(dir, runsDir)); len(l) > 0 {
		t.Errorf("left behind: %v", l)
	}
}

func TestRunsAreListedByAge(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, n)
	var want []string
	for i := range 3 {
		r, err := n.Launch(t.Context(), api.LaunchRequest{TOML: runText(m, d, "inner.sequence_tokens = 64\nseed = "+string(rune('1'+i)))}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, r.ID)
	}
	l, err := n.Runs(t.Context())
	if err != nil || len(l) != len(want) {
		t.Fatal(l, err)
	}
	for i, r := range l {
		if r.ID != want[i] {
			t.Errorf("run %d is %s, want %s", i, r.ID, want[i])
		}
	}
}

func TestNodeState(t *testing.T) {
	r := func(s api.RunState, why string) api.Run {
		return api.Run{ID: "bafkreix", Joined: true, State: s, Why: why}
	}
	left := r(api.RunTraining, "")
	left.Joined = false
	for _, tt := range []struct {
		name     string
		runs     []api.Run
		stopping bool
		want     api.NodeState
		why      string
	}{
		{"none", nil, false, api.NodeIdle, "in no run"},
		{"left", []api.Run{left}, false, api.NodeIdle, "in no run"},
		{"one trains", []api.Run{r(api.RunSyncing, "s"), r(api.RunTraining, ""), r(api.RunFinal, "f")}, false, api.NodeTraining, ""},
		{"syncing", []api.Run{r(api.RunFailed, "x"), r(api.RunSyncing, "s")}, false, api.NodeSyncing, "s"},
		{"assembly", []api.Run{r(api.RunAssembly, "a"), r(api.RunFinal, "f")}, false, api.NodeWaiting, "a"},
		{"waiting, not told why", []api.Run{r(api.RunWaiting, "")}, false, api.NodeWaiting, "run bafkreix is waiting"},
		{"failed", []api.Run{r(api.RunFailed, "x"), r(api.RunFinal, "f")}, false, api.NodeIdle, "x"},
		{"final", []api.Run{r(api.RunFinal, "f")}, false, api.NodeIdle, "its run is complete"},
		{"finals", []api.Run{r(api.RunFinal, "f"), r(api.RunFinal, "f")}, false, api.NodeIdle, "its runs are complete"},
		{"stopping", []api.Run{r(api.RunTraining, "")}, true, api.NodeStopping, "it was told to stop"},
	} {
		if got, why := nodeState(tt.runs, tt.stopping); got != tt.want || why != tt.why {
			t.Errorf("%s: %s, %q; want %s, %q", tt.name, got, why, tt.want, tt.why)
		}
	}
}

// Changes of the node's state are told once.
func TestStateEvents(t *testing.T) {
	made := new(fakeRuns)
	n, _, id := launched(t, t.TempDir(), made)
	n.poke()
	if _, err := n.Leave(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var states []string
	err := n.Watch(ctx, "", api.Cursor{}, func(e api.Event) error {
		if e.Type == api.EventNode {
			states = append(states, e.State)
			if len(states) > 1 && e.State == string(api.NodeIdle) {
				cancel()
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range states {
		if i > 0 && s == states[i-1] {
			t.Errorf("states %v", states)
		}
	}
	if last := states[len(states)-1]; last != string(api.NodeIdle) {
		t.Errorf("states %v", states)
	}
}
