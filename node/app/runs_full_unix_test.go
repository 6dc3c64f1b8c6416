//go:build linux || darwin

package app

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
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

// One that was not begun goes on when what is still missing has room, besides what
// stays free and with what can be removed.
func TestRoomOfARunThatWasNotBegun(t *testing.T) {
	made := &fakeRuns{now: &api.Run{Name: "test", State: api.RunTraining}}
	n, _, id := launched(t, t.TempDir(), made)
	n.minFree.Store(1 << 30)
	m, err := n.runs.find(id)
	if err != nil {
		t.Fatal(err)
	}
	all := made.all()[0].manifest
	part := *all
	part.DatasetBytes = 5 << 30
	if part.Dataset, err = shard.BytesCID([]byte("not here")); err != nil {
		t.Fatal(err)
	}
	rooms := func(what string, x *run.Manifest, more int64) {
		t.Helper()
		l, err := x.Layout()
		if err != nil {
			t.Fatal(err)
		}
		need := max(runner.KeptBytes(l, x)+checkpointBytes(x, l)+more, enoughRoom)
		have, _, err := n.availableOf(t.Context(), 0, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, lack := range []int64{0, 1} {
			n.runs.free = func(string) (int64, error) { return need - have - lack, nil }
			if _, ok := n.runs.hasRoom(t.Context(), m, &stay{manifest: x}); ok != (lack == 0) {
				t.Errorf("%s, with %d bytes too few: %v", what, lack, ok)
			}
		}
	}
	rooms("5 GB are missing", &part, 5<<30)
	rooms("all is here", all, 0)
	before, _, err := n.availableOf(t.Context(), 0, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Leave(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if after, _, err := n.availableOf(t.Context(), 0, true); err != nil || after <= before {
		t.Errorf("nothing can be removed: %d bytes, then %d, %v", before, after, err)
	}
	rooms("some can be removed", &part, 5<<30)
}
