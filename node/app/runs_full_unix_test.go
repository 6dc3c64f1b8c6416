//go:build linux || darwin

package app

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moot-net/moot/node/api"
)

// A run that failed for a full disk goes on by itself when there is room.
func TestRunGoesOnWhenThereIsRoom(t *testing.T) {
	made := new(fakeRuns)
	n, _, _ := launched(t, t.TempDir(), made)
	n.runs.retry = time.Millisecond
	made.began(t, 0).fail <- fmt.Errorf("adopt a record: %w", unix.ENOSPC)
	made.began(t, 1) // this disk has room
	l, err := n.Runs(t.Context())
	if err != nil || l[0].State == api.RunFailed || !l[0].Joined {
		t.Errorf("runs %+v, %v", l, err)
	}
}

// One that was left while the disk was full does not.
func TestRunThatWasLeftDoesNotGoOn(t *testing.T) {
	made := new(fakeRuns)
	n, stop, id := launched(t, t.TempDir(), made)
	var free atomic.Int64
	look := make(chan struct{}) // each is one look at the disk
	n.runs.retry = time.Millisecond
	n.runs.free = func(string) (int64, error) {
		<-look
		return free.Load(), nil
	}
	made.began(t, 0).fail <- fmt.Errorf("adopt a record: %w", unix.ENOSPC)
	look <- struct{}{}
	look <- struct{}{} // the first one is over
	l, err := n.Runs(t.Context())
	if err != nil || l[0].State != api.RunFailed || l[0].Why != "the disk of "+n.dir+" is full" {
		t.Errorf("runs %+v, %v", l, err)
	}
	if _, err := n.Leave(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	free.Store(1 << 40)
	close(look)
	n.runs.wg.Wait() // who looked has ended, and began nothing that goes on
	stop()
	if got := len(made.all()); got != 1 {
		t.Errorf("it was left, and begun %d times", got)
	}
}
