package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/moot-net/moot/node/api"
)

// WatchOptions say what is watched.
type WatchOptions struct {
	// Run is the ID of a run. Default: everything.
	Run string
	// After is where to go on. Default: all events that the daemon still has.
	After api.Cursor
	// OnDown is called when the connection is lost, before it is made again.
	OnDown func(error)
}

// How long Watch waits before it connects again, at first and at most, and how
// often in a row it takes a refused token for that of a daemon that is just
// being restarted.
const (
	minBackoff     = 100 * time.Millisecond
	maxBackoff     = 2 * time.Second
	maxAuthRetries = 5
)

// Watch calls emit with each event until ctx is done (then it returns nil) or
// emit fails (then it returns that error). When the connection is lost it
// connects again and goes on after the last event, also with a daemon that was
// restarted; EventGap tells of events that were lost. If the first connection
// fails, or the daemon refuses, Watch returns that error.
func (c *Client) Watch(ctx context.Context, o WatchOptions, emit func(api.Event) error) error {
	w := watch{c: c, run: o.Run, after: o.After, emit: emit}
	backoff, refused := minBackoff, 0
	for {
		before := w.lines
		err := w.once(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case w.stop != nil:
			return w.stop
		case w.lines == 0:
			return err
		}
		if w.lines > before {
			backoff, refused = minBackoff, 0
		}
		switch api.AsError(err).Code {
		case api.CodeDaemon, api.CodeRetry:
		case api.CodeAuth:
			if refused++; refused > maxAuthRetries {
				return err
			}
		default:
			return err
		}
		if o.OnDown != nil {
			o.OnDown(err)
		}
		t := time.NewTimer(backoff)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		backoff = min(2*backoff, maxBackoff)
		_ = c.reload() // without a daemon the next attempt fails, and says so
	}
}

// watch is the state of one Watch.
type watch struct {
	c     *Client
	run   string
	after api.Cursor
	emit  func(api.Event) error
	lines int   // received, over all connections
	stop  error // of emit
}

// once reads events until the connection ends.
func (w *watch) once(ctx context.Context) error {
	path := "/api/v1/events"
	if w.run != "" {
		path = "/api/v1/runs/" + url.PathEscape(w.run) + "/events"
	}
	if w.after != (api.Cursor{}) {
		path += "?since=" + url.QueryEscape(w.after.String())
	}
	r, err := w.c.open(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer r.close()
	for {
		b, err := r.next()
		if err != nil {
			return err
		}
		w.lines++
		var e api.Event
		if err := json.Unmarshal(b, &e); err != nil {
			return api.Errorf(api.CodeVersion, "an event is not understood: %w", err).
				WithHint(`install moot and mootd of the same version; "moot version" shows both`)
		}
		if e.Cursor != (api.Cursor{}) {
			w.after = e.Cursor
		}
		if e.Type == api.EventPing {
			continue
		}
		if w.stop = w.emit(e); w.stop != nil {
			return w.stop
		}
		if e.Type == api.EventStreamEnd {
			return api.Errorf(api.CodeDaemon, "the daemon stops: %w", errors.New(e.Text))
		}
	}
}
