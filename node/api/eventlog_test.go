package api_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/api"
)

// memory is a journal that a test can break.
type memory struct {
	events []api.Event
	broken bool
	hangs  chan struct{} // if not nil, Append waits until it is closed
}

func (m *memory) Append(events []api.Event) error {
	if m.hangs != nil {
		<-m.hangs
	}
	if m.broken {
		return errors.New("no space left")
	}
	m.events = append(m.events, events...)
	return nil
}

// kept is an event log with its journal, in a bubble of synctest.
type kept struct {
	t *testing.T
	*memory
	*api.EventLog
	stop func()
}

func startLog(t *testing.T, m *memory, keep int) *kept {
	l := api.OpenEventLog(api.EventLogOptions{Keep: keep, Journal: m, Past: m.events, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	return &kept{t, m, l, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}}
}

func (k *kept) publish(texts ...string) {
	for _, x := range texts {
		k.Publish(api.Event{Type: api.EventAlert, Text: x})
	}
	synctest.Wait()
}

// after returns what a watcher with a cursor is told, and its last cursor.
func (k *kept) after(c api.Cursor) (got string, last api.Cursor) {
	ctx, cancel := context.WithCancel(k.t.Context())
	ended := make(chan error)
	var texts []string
	last = c
	go func() {
		ended <- k.Watch(ctx, "", c, func(e api.Event) error {
			if e.Type == api.EventGap {
				e.Text = "gap"
			} else {
				last = e.Cursor
			}
			texts = append(texts, e.Text)
			return nil
		})
	}()
	synctest.Wait()
	cancel()
	if err := <-ended; err != nil {
		k.t.Error(err)
	}
	return strings.Join(texts, " "), last
}

func check(t *testing.T, what, got, want string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// Epoch and numbers go on over a start; a watcher misses nothing and is told
// nothing twice.
func TestEventsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		l := startLog(t, m, 10)
		l.publish("1", "2")
		got, at := l.after(api.Cursor{})
		check(t, "first start", got, "1 2")
		l.publish("3")
		l.stop()

		l = startLog(t, m, 10)
		l.publish("4")
		got, end := l.after(at)
		check(t, "over a start", got, "3 4")
		if want := (api.Cursor{Epoch: at.Epoch, N: 4}); end != want {
			t.Errorf("the last event is %v, want %v", end, want)
		}
		l.stop()
	})
}

// Nobody sees an event before the journal has it: else its number could come
// again.
func TestEventsWaitForTheJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{hangs: make(chan struct{})}
		l := startLog(t, m, 3)
		l.publish("1")
		got, _ := l.after(api.Cursor{})
		check(t, "while the disk hangs", got, "")
		l.publish("2", "3", "4", "5") // 1 is being written, and one of these is too much
		close(m.hangs)
		synctest.Wait()
		got, _ = l.after(api.Cursor{})
		check(t, "when it goes on", got, "3 4 gap")
		if len(m.events) != 4 {
			t.Errorf("the journal has %d events, want 4", len(m.events))
		}
		l.publish("6")
		if last := m.events[len(m.events)-1].Cursor.N; last != 6 {
			t.Errorf("the next has number %d, want 6: one is missing", last)
		}
		l.stop()
	})
}

// When the journal fails a new epoch begins; its numbers meet none of those that
// the journal has.
func TestEventsWithoutJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		l := startLog(t, m, 10)
		l.publish("1", "2")
		_, old := l.after(api.Cursor{})
		m.broken = true
		l.publish("3", "4")
		got, failing := l.after(old)
		check(t, "from memory", got, "3 4")
		if failing.Epoch == old.Epoch {
			t.Errorf("events that are not kept are of the epoch %v of those that are", old)
		}
		l.stop()

		m.broken = false
		l = startLog(t, m, 10) // as after a crash: 3 and 4 are lost
		l.publish("5")
		got, end := l.after(failing)
		check(t, "with a cursor that was never kept", got, "gap 1 2 5")
		if want := (api.Cursor{Epoch: old.Epoch, N: 3}); end != want {
			t.Errorf("the last event is %v, want %v", end, want)
		}
		m.broken = true
		l.publish("6")
		m.broken = false
		l.publish("7")
		got, end = l.after(end)
		check(t, "after the journal came back", got, "6 7")
		if last := m.events[len(m.events)-1]; last.Text != "7" || last.Cursor != end || last.Cursor.N != 2 {
			t.Errorf("the journal ends with %v %s, want 7 as the second event of its epoch", last.Cursor, last.Text)
		}
		l.stop()
	})
}
