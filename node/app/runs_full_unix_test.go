//go:build linux || darwin

package app

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moot-net/moot/node/api"
)

// A run that failed for a full disk goes on by itself when there is room; one
// that was left meanwhile does not.
func TestRunGoesOnWhenThereIsRoom(t *testing.T) {
	made := new(fakeRuns)
	n, _, id := launched(t, t.TempDir(), made)
	n.runs.retry = time.Millisecond
	full := fmt.Errorf("adopt a record: %w", unix.ENOSPC)
	made.began(t, 0).fail <- full
	second := made.began(t, 1) // this disk has room
	l, err := n.Runs(t.Context())
	if err != nil || l[0].State == api.RunFailed || !l[0].Joined {
		t.Errorf("runs %+v, %v", l, err)
	}

	n.runs.retry = time.Minute
	second.fail <- full
	eventually(t, func() bool {
		l, err := n.Runs(t.Context())
		return err == nil && l[0].State == api.RunFailed && strings.HasPrefix(l[0].Why, "the disk is full: adopt a record")
	})
	if _, err := n.Leave(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if got := len(made.all()); got != 2 {
		t.Errorf("the run was begun %d times", got)
	}
}
