package api

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
)

// overloaded is a source that says nothing.
type overloaded struct{ Source }

func (overloaded) Runs(context.Context) (Runs, error) { return Runs{}, errors.New("too much is asked") }

// TestPublicGaps: of events of which nobody can say whether they are for everybody
// one gap is told in a second, and one comes after the last.
func TestPublicGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := NewEventLog(keptPublic)
		n := &shownNode{source: overloaded{}, log: log, limit: rate.NewLimiter(askedPerSecond, 2*askedPerSecond), answers: make(map[string]answered)}
		begun := time.Now()
		var told []time.Duration
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = n.Watch(ctx, "", Cursor{}, func(e Event) error {
				if e.Type == EventGap {
					told = append(told, time.Since(begun))
				}
				return nil
			})
		}()
		synctest.Wait()
		told = nil // what one hears that begins to watch
		for range 25 {
			n.take(ctx, Event{Type: EventRound, Run: "x", Time: time.Now()})
			time.Sleep(gapEvery / 10)
		}
		time.Sleep(10 * gapEvery)
		n.take(ctx, Event{Type: EventRound, Run: "x", Time: time.Now()})
		synctest.Wait()
		stop()
		<-ended
		want := []time.Duration{0, gapEvery, 2 * gapEvery, 3 * gapEvery, 12*gapEvery + gapEvery/2}
		if len(told) != len(want) {
			t.Fatalf("told at %v, want %v", told, want)
		}
		for i := range want {
			if told[i] != want[i] {
				t.Errorf("told at %v, want %v", told, want)
				break
			}
		}
	})
}
