package top

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/api"
)

// following runs a feed on daemons that are opened one after the other.
type following struct {
	*feed

	lock  sync.Mutex
	now   *daemon // guarded by lock; nil: none
	shown snapshot
	sent  int
}

func follow(t *testing.T, d *daemon) *following {
	w := &following{now: d}
	w.feed = newFeed(func() (Source, error) {
		w.lock.Lock()
		defer w.lock.Unlock()
		if w.now == nil {
			return nil, errGone
		}
		return w.now, nil
	}, func(s snapshot) {
		w.lock.Lock()
		defer w.lock.Unlock()
		w.shown = s
		w.sent++
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	synctest.Wait()
	return w
}

func (w *following) after(d time.Duration) (snapshot, int) {
	time.Sleep(d)
	synctest.Wait()
	w.lock.Lock()
	defer w.lock.Unlock()
	n := w.sent
	w.sent = 0
	return w.shown, n
}

func TestFeedFollowsADaemonThatIsRestarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon()
		w := follow(t, d)
		if s, _ := w.after(0); !s.loaded || s.down != "" || s.run.ID != runID {
			t.Fatalf("at first %+v", s)
		}
		d.set(func() { d.gone = true })
		w.lock.Lock()
		w.now = nil
		w.lock.Unlock()
		d.events <- api.Event{Type: api.EventStreamEnd}
		// It is seen as soon as the stream ends, and what was known stays.
		if s, _ := w.after(settle); s.down != "no daemon is running" || s.run == nil || s.status.Peer != self {
			t.Fatalf("while it is gone %+v", s)
		}
		next := newDaemon()
		next.status.Version = "1.2.4"
		w.lock.Lock()
		w.now = next
		w.lock.Unlock()
		if s, _ := w.after(2 * retry); s.down != "" || s.status.Version != "1.2.4" {
			t.Fatalf("when it is back %+v", s)
		}
		if d.closed != 1 {
			t.Errorf("the old one was closed %d times", d.closed)
		}
	})
}

// Events are shown soon, but many of them are no many questions.
func TestFeedIsNotFlooded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon()
		w := follow(t, d)
		w.after(settle)
		if _, n := w.after(10 * time.Second); n != 5 {
			t.Errorf("without events it asked %d times in 10 s, want 5", n)
		}
		d.events <- api.Event{Type: api.EventCommit, Run: runID, N: 4, Peer: peerA}
		if s, n := w.after(settle); n != 1 || !s.committed[peerA] || s.committed[peerB] {
			t.Errorf("after a commit %d times: %v", n, s.committed)
		}
		for range 200 {
			d.events <- api.Event{Type: api.EventPhase, Run: runID}
			w.after(5 * time.Millisecond)
		}
		w.after(time.Second)
		for range 200 {
			d.events <- api.Event{Type: api.EventPhase, Run: runID}
			time.Sleep(5 * time.Millisecond)
		}
		if _, n := w.after(0); n > 5 {
			t.Errorf("in a second of events it asked %d times", n)
		}
	})
}

func TestFeedCountsCredits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon()
		w := follow(t, d)
		s, _ := w.after(0)
		if h := s.history; h.tokens != 200 || h.rounds != 2 || h.refused != 1 || h.last != "timeout" || h.lastAt != 2 {
			t.Errorf("history %+v", h)
		}
		if d := cmp.Diff([]float64{3, 2.75, 2.5}, s.history.losses()); d != "" {
			t.Error(d)
		}
		// Only what is new is asked for.
		grow := func(n uint64, record string) {
			d.set(func() {
				d.rounds[runID] = append(d.rounds[runID], round(n, record, 2))
				r := d.runs[runID]
				r.Round = n
				d.runs[runID] = r
				d.pages = nil
			})
		}
		grow(4, "r4")
		d.set(func() { d.rounds[runID][3].EvalLoss = nil }) // it is measured later
		if s, _ = w.after(interval); s.history.tokens != 300 || len(s.history.losses()) != 3 {
			t.Errorf("a round later %+v", s.history)
		}
		d.set(func() { d.rounds[runID][3].EvalLoss = new(2.25) })
		s, _ = w.after(interval)
		if d := cmp.Diff([]float64{3, 2.75, 2.5, 2.25}, s.history.losses()); d != "" {
			t.Error(d)
		}
		d.set(func() {
			if diff := cmp.Diff([]uint64{4}, d.pages); diff != "" {
				t.Error(diff)
			}
			d.rounds[runID] = d.rounds[runID][:3]
		})
		// Another branch wins: it is counted anew.
		grow(4, "other")
		d.set(func() { d.rounds[runID][3].Contributions = nil })
		if s, _ = w.after(interval); s.history.tokens != 200 || s.history.record != "other" {
			t.Errorf("on the other branch %+v", s.history)
		}
	})
}

func TestFeedShowsTheChosenRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon()
		w := follow(t, d)
		w.choose(other)
		if s, _ := w.after(settle); s.run.ID != other {
			t.Errorf("run %s", s.run.ID)
		}
		d.set(func() { delete(d.runs, other) })
		if s, _ := w.after(interval); s.run.ID != runID {
			t.Errorf("when the chosen one is gone, run %s", s.run.ID)
		}
	})
}
