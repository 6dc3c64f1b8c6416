package client

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// watching runs Watch and hands out what it emits.
func watching(t *testing.T, c *Client, o WatchOptions) (events <-chan api.Event, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out := make(chan api.Event, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Watch(ctx, o, func(e api.Event) error {
			out <- e
			return nil
		})
	}()
	return out, func() error {
		cancel()
		return <-ended
	}
}

// take reads n events, without byes, which come or not when a server ends.
func take(t *testing.T, events <-chan api.Event, n int) []string {
	t.Helper()
	var got []string
	for len(got) < n {
		select {
		case e := <-events:
			if e.Type != api.EventStreamEnd {
				got = append(got, string(e.Type)+" "+e.Text)
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("after %q nothing came for two minutes", got)
		}
	}
	return got
}

func TestWatchReconnects(t *testing.T) {
	fake, dir := apitest.New("node"), t.TempDir()
	publish := func(run, text string) { fake.Log.Publish(api.Event{Type: api.EventAlert, Run: run, Text: text}) }
	publish("r", "kept")
	publish("other", "of another run")
	fake.AddRun(api.RunDetail{Run: api.Run{ID: "r"}})
	d := start(t, fake, dir, "127.0.0.1:0")
	down := make(chan error, 100)
	events, stop := watching(t, open(t, d), WatchOptions{Run: "r", OnDown: func(err error) { down <- err }})
	got := take(t, events, 1)
	publish("r", "live")
	got = append(got, take(t, events, 1)...)

	// Down, and up again at the same log: nothing is lost, nothing twice.
	d.stop()
	<-down
	publish("r", "while it was down")
	d = start(t, fake, dir, "127.0.0.1:0") // other port, other token
	got = append(got, take(t, events, 1)...)

	// A daemon that began anew has other events, and says so.
	d.stop()
	fake.Log = api.NewEventLog(10)
	publish("r", "new epoch")
	start(t, fake, dir, d.addr) // same port, other token
	got = append(got, take(t, events, 2)...)
	want := []string{"alert kept", "alert live", "alert while it was down", "gap ", "alert new epoch"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if err := stop(); err != nil {
		t.Errorf("Watch = %v after its context ended, want nil", err)
	}
}

func TestWatchEnds(t *testing.T) {
	fake := apitest.New("node")
	c := open(t, start(t, fake, t.TempDir(), "127.0.0.1:0"))
	for range 3 {
		fake.Log.Publish(api.Event{Type: api.EventAlert})
	}
	enough, n := errors.New("enough"), 0
	err := c.Watch(t.Context(), WatchOptions{}, func(api.Event) error {
		if n++; n == 2 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || n != 2 {
		t.Errorf("Watch = %v after %d events, want what emit returned for the second", err, n)
	}
	err = c.Watch(t.Context(), WatchOptions{Run: "nothing"}, func(api.Event) error { return nil })
	wantError(t, err, api.CodeNotFound, "knows no run")
}
