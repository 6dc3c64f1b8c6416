package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"
)

// EventLog keeps the last events of a daemon in memory and hands them to any
// number of watchers. Publishing never waits for a watcher: one that falls
// behind by more than the log keeps is told with EventGap and goes on.
//
// Events are numbered from 1 within an epoch, which is drawn at random when
// the log is made. A watcher that comes with the cursor of another epoch gets
// EventGap and everything that is kept.
type EventLog struct {
	// constant after New
	epoch string
	keep  int

	mu sync.Mutex
	// guarded by mu
	events  []Event // ring; event n is at (n-1) % keep
	last    uint64
	changed chan struct{} // closed at the next Publish
}

// NewEventLog makes a log that keeps so many events (at least 1).
func NewEventLog(keep int) *EventLog {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return &EventLog{epoch: hex.EncodeToString(b[:]), keep: max(keep, 1), changed: make(chan struct{})}
}

// Publish numbers e, stamps it when it has no time, and hands it out. The
// caller must not change what e points to afterwards.
func (l *EventLog) Publish(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	e.Cursor = Cursor{l.epoch, l.last}
	if len(l.events) < l.keep {
		l.events = append(l.events, e)
	} else {
		l.events[(l.last-1)%uint64(l.keep)] = e
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// Watch has the contract of Backend.Watch.
func (l *EventLog) Watch(ctx context.Context, run string, after Cursor, emit func(Event) error) error {
	n := after.N
	if after != (Cursor{}) && after.Epoch != l.epoch {
		n = 0
		if err := emit(Event{Type: EventGap, Time: time.Now()}); err != nil {
			return err
		}
	}
	for {
		events, gap, changed := l.since(n)
		if gap {
			if err := emit(Event{Type: EventGap, Time: time.Now()}); err != nil {
				return err
			}
		}
		for _, e := range events {
			n = e.Cursor.N
			if run != "" && e.Run != run {
				continue
			}
			if err := emit(e); err != nil {
				return err
			}
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// watchBatch bounds how many events are copied under the lock at once.
const watchBatch = 256

// since returns events after n, whether some between were dropped, and a
// channel that is closed when there are more.
func (l *EventLog) since(n uint64) (events []Event, gap bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n = min(n, l.last)                       // a cursor from the future was made up
	oldest := l.last - uint64(len(l.events)) // the last that is gone
	if n < oldest {
		gap = n > 0 // who starts at the beginning expects what is kept
		n = oldest
	}
	for ; n < l.last && len(events) < watchBatch; n++ {
		events = append(events, l.events[n%uint64(l.keep)])
	}
	return events, gap, l.changed
}
