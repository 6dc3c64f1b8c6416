//go:build linux || darwin

package app

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/moot-net/moot/node/api"
)

// Somebody who joins a run whose disk gets full while the model is pulled is told
// that and nothing of paths, with the exit code of a full disk; the membership stays,
// for it goes on by itself.
func TestJoinWithFullDisk(t *testing.T) {
	seed, id := launchedRun(t, "")
	made := new(fakeRuns)
	n, _ := testNode(t, t.TempDir(), made.open)
	n.runs.free = func(string) (int64, error) { return 0, nil }
	made.ready = fmt.Errorf("pull model: write %s: %w", "/data/models/x.partial", unix.ENOSPC)
	_, err := n.Join(t.Context(), api.JoinRequest{Run: id, Peers: seed.host.Addrs()[:1]}, quiet)
	wantCode(t, err, api.CodeDisk, "the disk of "+n.dir+" is full")
	if e := api.AsError(err); e.Exit != 11 || strings.Contains(e.Message, "partial") || !strings.Contains(e.Hint, "goes on by itself") {
		t.Errorf("join: %+v", e)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Error("the cause is gone")
	}
	if l, err := n.Runs(t.Context()); err != nil || len(l) != 1 || !l[0].Joined {
		t.Errorf("runs %+v, %v", l, err)
	}
}

// A run that was begun here goes on after a restart with less room than it takes at
// most, and one that is over needs none; one that was not begun is refused.
func TestRestartWithLittleRoom(t *testing.T) {
	for _, tt := range []struct {
		name string
		now  api.Run
		want api.RunState
	}{
		{"begun", api.Run{State: api.RunTraining, Round: 2}, api.RunTraining},
		{"over", api.Run{State: api.RunFinal, Round: 0, Final: true}, api.RunFinal},
		{"not begun", api.Run{State: api.RunSyncing}, api.RunFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			_, stop, id := launched(t, dir, new(fakeRuns))
			stop()
			made := &fakeRuns{now: &tt.now}
			n, _ := testNode(t, dir, made.open, func(n *node) { n.minFree.Store(1 << 60) })
			eventually(t, func() bool {
				l, err := n.Runs(t.Context())
				if err != nil || len(l) != 1 || l[0].ID != id {
					t.Fatalf("runs %+v, %v", l, err)
				}
				began := false
				for _, r := range made.all() {
					began = began || strings.Contains(r.did(), "Run")
				}
				return l[0].State == tt.want && began == (tt.want != api.RunFailed)
			})
		})
	}
}

// What stays free is part of what is lacking.
func TestRoomBesidesWhatStaysFree(t *testing.T) {
	n, id := launchedRun(t, "")
	const keep = 1 << 60
	n.minFree.Store(keep)
	f, err := n.CheckRun(t.Context(), api.CheckRunRequest{Run: id}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	i := item(t, &f, "disk")
	var more float64
	if _, err := fmt.Sscanf(i.Way, "make %f MB more room", &more); err != nil || more < keep/1e6/2 {
		t.Errorf("the way out is %q, %v", i.Way, err)
	}
	if i.Code != api.CodeDisk || i.HaveBytes != 0 || !strings.Contains(i.Text, "stay free (min_free_mb)") {
		t.Errorf("the disk is %+v", i)
	}
}
