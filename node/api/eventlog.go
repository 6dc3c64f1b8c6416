package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"sync"
	"time"
)

// EventLog keeps the last events of a daemon and hands them to any number of
// watchers. Publishing never waits for a watcher: one that falls behind by more
// than the log keeps is told with EventGap and goes on.
//
// Events are numbered from 1 within an epoch, which is drawn at random when
// the log is made. With a Journal epoch and numbers go on when the daemon is
// started again: no watcher sees an event before the journal has it, so that no
// number that somebody saw can come again. When the journal fails a new epoch
// begins, in memory. A watcher with a cursor that the log does not know gets
// EventGap and everything that is kept.
type EventLog struct {
	// constant after New
	keep    int
	journal Journal // nil: Publish hands out at once
	log     *slog.Logger
	wake    chan struct{} // holds a token when something waits for Run

	// owned by Run, or guarded by mu where there is no journal
	at      Cursor // of the last event
	kept    bool   // the journal has events of this epoch
	failing bool   // the journal did not take the last

	mu sync.Mutex
	// guarded by mu
	waiting []Event // published, not yet handed out; at most keep
	dropped bool    // one more was published
	events  []Event // ring; event n is at (n-1) % keep
	last    uint64  // how many were ever in the ring
	changed chan struct{}
}

// Journal keeps events for the next start of a daemon.
type Journal interface {
	// Append returns when the events are safe, also from a power cut. After an
	// error it may be called again, with events of another epoch.
	Append(events []Event) error
}

// EventLogOptions are those of OpenEventLog.
type EventLogOptions struct {
	// Keep is how many events a watcher that comes late can still see.
	Keep int
	// Journal gets all events; Past are those that it had, of one epoch.
	Journal Journal
	Past    []Event
	// Log is told of each event, at level debug, and of a journal that fails.
	Log *slog.Logger
}

// NewEventLog makes a log that keeps so many events (at least 1), in memory.
func NewEventLog(keep int) *EventLog {
	return &EventLog{
		keep: max(keep, 1), log: slog.New(slog.DiscardHandler), at: Cursor{newEpoch(), 0},
		wake: make(chan struct{}, 1), changed: make(chan struct{}),
	}
}

// OpenEventLog makes a log with a journal. What is published is handed out by
// Run.
func OpenEventLog(o EventLogOptions) *EventLog {
	l := NewEventLog(o.Keep)
	l.journal, l.log = o.Journal, o.Log
	for _, e := range o.Past {
		l.at, l.kept = e.Cursor, true
		l.put(e)
	}
	return l
}

func newEpoch() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Publish numbers e, stamps it when it has no time, and hands it out. The
// caller must not change what e points to afterwards.
func (l *EventLog) Publish(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.journal == nil {
		l.at.N++
		e.Cursor = l.at
		l.put(e)
		l.tell()
		return
	}
	if len(l.waiting) >= l.keep { // the disk hangs
		l.dropped = true
		return
	}
	l.waiting = append(l.waiting, e)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// put adds an event to the ring. It needs mu.
func (l *EventLog) put(e Event) {
	l.last++
	if len(l.events) < l.keep {
		l.events = append(l.events, e)
	} else {
		l.events[(l.last-1)%uint64(l.keep)] = e
	}
}

// tell wakes the watchers. It needs mu.
func (l *EventLog) tell() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Run hands out what was published, when the journal has it, until ctx is
// done; what was published by then still goes there. It returns nil.
func (l *EventLog) Run(ctx context.Context) error {
	for {
		l.flush(ctx)
		select {
		case <-ctx.Done():
			l.flush(ctx)
			return nil
		case <-l.wake:
		}
	}
}

// flush hands out what waits.
func (l *EventLog) flush(ctx context.Context) {
	l.mu.Lock()
	batch, dropped := l.waiting, l.dropped
	l.waiting, l.dropped = nil, false
	l.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	number := func() {
		for i := range batch {
			l.at.N++
			batch[i].Cursor = l.at
		}
	}
	number()
	err := l.journal.Append(batch)
	switch {
	case err == nil:
		l.kept = true
	case l.kept: // else the journal has nothing that these numbers could meet
		l.at, l.kept = Cursor{newEpoch(), 0}, false
		number()
	}
	if err != nil && !l.failing {
		l.log.WarnContext(ctx, "events could not be kept for the next start", "component", "events", "err", err)
	}
	l.failing = err != nil
	for _, e := range batch {
		l.log.DebugContext(ctx, "event", "component", "events", "id", e.Cursor, "type", e.Type, "run", e.Run, "round", e.N, "peer", e.Peer)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range batch {
		l.put(e)
	}
	if dropped {
		l.at.N++ // the journal has a hole, so that a gap is told after the next start too
		l.put(Event{Type: EventGap, Time: time.Now()})
	}
	l.tell()
}

// Watch has the contract of Backend.Watch.
func (l *EventLog) Watch(ctx context.Context, run string, after Cursor, emit func(Event) error) error {
	n, known := l.find(after)
	if !known {
		if err := emit(Event{Type: EventGap, Time: time.Now()}); err != nil {
			return err
		}
	}
	for {
		events, next, gap, changed := l.since(n)
		if gap {
			if err := emit(Event{Type: EventGap, Time: time.Now()}); err != nil {
				return err
			}
		}
		for _, e := range events {
			if run != "" && e.Run != run && e.Type != EventGap {
				continue
			}
			if err := emit(e); err != nil {
				return err
			}
		}
		if n = next; len(events) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// find returns how many of the events that were ever in the ring a watcher
// with this cursor has had, and whether nothing before is missing.
func (l *EventLog) find(after Cursor) (n uint64, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	oldest := l.last - uint64(len(l.events)) // the last that is gone
	if after == (Cursor{}) {
		return oldest, true // who starts at the beginning expects what is kept
	}
	for n := l.last; n > oldest; n-- {
		switch at := l.events[(n-1)%uint64(l.keep)].Cursor; {
		case at == after:
			return n, true
		case n-1 == oldest && at == Cursor{after.Epoch, after.N + 1}:
			return oldest, true
		}
	}
	return oldest, false
}

// watchBatch bounds how many events are copied under the lock at once.
const watchBatch = 256

// since returns events after the first n, how many they are with those,
// whether some between were dropped, and a channel that is closed when there
// are more.
func (l *EventLog) since(n uint64) (events []Event, next uint64, gap bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if oldest := l.last - uint64(len(l.events)); n < oldest {
		gap, n = true, oldest
	}
	for ; n < l.last && len(events) < watchBatch; n++ {
		events = append(events, l.events[n%uint64(l.keep)])
	}
	return events, n, gap, l.changed
}
