package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// events streams what happens in a run, or everywhere.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	run := ""
	if given := r.PathValue("id"); given != "" {
		var err error
		if run, err = s.run(r.Context(), given); err != nil {
			s.fail(w, r, err)
			return
		}
	}
	since := r.Header.Get("Last-Event-ID")
	if since == "" {
		since = r.URL.Query().Get("since")
	}
	after, err := ParseCursor(since)
	if err != nil {
		s.fail(w, r, Errorf(CodeUsage, "since: %w", err))
		return
	}
	if s.visitors != nil {
		end, err := s.visitors.watch(r)
		if err != nil {
			w.Header().Set("Retry-After", "5")
			s.fail(w, r, err)
			return
		}
		defer end()
	}
	release, err := slot(s.watchers, "watchers")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer release()
	out := &eventWriter{lines: lines{w: w}, sse: strings.Contains(r.Header.Get("Accept"), "text/event-stream")}
	if err := out.ping(); err != nil { // so that the asker knows it is connected
		return
	}
	s.pump(r.Context(), out, run, after)
}

// pump sends events until the asker goes away or the daemon stops.
func (s *Server) pump(ctx context.Context, out *eventWriter, run string, after Cursor) {
	ctx, cancel := context.WithCancel(ctx)
	events := make(chan Event)
	ended := make(chan error, 1)
	go func() {
		ended <- s.backend.Watch(ctx, run, after, func(e Event) error {
			select {
			case events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	over := false
	defer func() {
		cancel()
		if !over {
			<-ended //nolint:errcheck // nobody is left to be told
		}
	}()
	ping := time.NewTicker(s.ping)
	defer ping.Stop()
	for {
		var err error
		select {
		case e := <-events:
			err = out.event(e)
		case <-ping.C:
			err = out.ping()
		case <-s.closing:
			_ = out.event(Event{Type: EventStreamEnd, Time: time.Now(), Text: errStopping.Error()}) // the last word
			return
		case err = <-ended:
			over = true
			if err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "event stream failed", "err", err)
				_ = out.event(Event{Type: EventAlert, Time: time.Now(), Text: err.Error()}) // likewise
			}
			return
		}
		if err != nil {
			return // the asker is gone
		}
	}
}

// eventWriter writes events as NDJSON or as server-sent events.
type eventWriter struct {
	lines
	sse bool
}

func (w *eventWriter) event(e Event) error {
	if !w.sse {
		return w.send(e)
	}
	b, err := Marshal(e) // has no line break
	if err != nil {
		return err
	}
	head := ""
	if e.Cursor != (Cursor{}) {
		head = fmt.Sprintf("id: %s\n", e.Cursor)
	}
	return w.write("text/event-stream", fmt.Appendf(nil, "%sevent: %s\ndata: %s\n\n", head, e.Type, b))
}

func (w *eventWriter) ping() error {
	if w.sse {
		return w.write("text/event-stream", []byte(": ping\n\n"))
	}
	return w.send(Event{Type: EventPing, Time: time.Now()})
}
