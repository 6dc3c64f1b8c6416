package app

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/moot-net/moot/node/api"
)

// maxLogText bounds what is kept of a line.
const maxLogText = 4 << 10

// recent keeps the last lines of the log in memory, for the API.
type recent struct {
	keep int // constant

	mu sync.Mutex
	// guarded by mu
	entries []api.LogEntry // ring; entry n is at (n-1) % keep
	last    uint64
}

func newRecent(keep int) *recent { return &recent{keep: keep} }

// handler returns one that does what next does, and keeps what next would log.
func (r *recent) handler(next slog.Handler) slog.Handler {
	return &recentHandler{recent: r, next: next}
}

func (r *recent) add(e api.LogEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	e.N = r.last
	if len(r.entries) < r.keep {
		r.entries = append(r.entries, e)
	} else {
		r.entries[(r.last-1)%uint64(r.keep)] = e
	}
}

// logs lists the newest entries that q asks for.
func (r *recent) logs(q api.LogsRequest) api.Logs {
	least := max(slices.Index(api.LogLevels, q.Level), 0)
	r.mu.Lock()
	defer r.mu.Unlock()
	oldest := r.last - uint64(len(r.entries)) // the last that is gone
	out := api.Logs{Last: r.last, Lost: q.After != 0 && q.After < oldest}
	for n := r.last; n > max(q.After, oldest) && len(out.Entries) < q.Limit; n-- {
		if e := r.entries[(n-1)%uint64(r.keep)]; slices.Index(api.LogLevels, e.Level) >= least {
			out.Entries = append(out.Entries, e)
		}
	}
	slices.Reverse(out.Entries)
	return out
}

// recentHandler is a slog.Handler before another.
type recentHandler struct {
	recent    *recent
	next      slog.Handler
	component string
	attrs     string // those of With, as text
	group     string // "a.b."
}

// Enabled implements slog.Handler.
func (h *recentHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.next.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (h *recentHandler) Handle(ctx context.Context, r slog.Record) error {
	e := api.LogEntry{Time: r.Time, Level: levelName(r.Level), Component: h.component, Message: clipText(r.Message)}
	text := h.attrs
	r.Attrs(func(a slog.Attr) bool {
		text = h.append(text, &e.Component, a)
		return len(text) < maxLogText
	})
	e.Attrs = clipText(text)
	h.recent.add(e)
	return h.next.Handle(ctx, r)
}

// append adds an attribute to text; the component has a field of its own.
func (h *recentHandler) append(text string, component *string, a slog.Attr) string {
	v := a.Value.Resolve()
	if a.Key == "component" && h.group == "" {
		*component = v.String()
		return text
	}
	if a.Equal(slog.Attr{}) {
		return text
	}
	s := strings.ToValidUTF8(v.String(), "?")
	if len(s) > maxLogText {
		s = s[:maxLogText]
	}
	if strings.ContainsAny(s, " =\"\n") || s == "" {
		s = `"` + strings.NewReplacer("\n", `\n`, `"`, `\"`).Replace(s) + `"`
	}
	return strings.TrimPrefix(text+" "+h.group+a.Key+"="+s, " ")
}

// WithAttrs implements slog.Handler.
func (h *recentHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.next = h.next.WithAttrs(attrs)
	for _, a := range attrs {
		c.attrs = c.append(c.attrs, &c.component, a)
	}
	return &c
}

// WithGroup implements slog.Handler.
func (h *recentHandler) WithGroup(name string) slog.Handler {
	c := *h
	c.next = h.next.WithGroup(name)
	if name != "" {
		c.group += name + "."
	}
	return &c
}

func clipText(s string) string {
	if len(s) <= maxLogText {
		return s
	}
	return strings.ToValidUTF8(s[:maxLogText], "") + "…"
}

func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warn"
	}
	return "error"
}

// Logs implements api.Backend.
func (n *node) Logs(_ context.Context, req api.LogsRequest) (api.Logs, error) {
	if n.recent == nil {
		return api.Logs{}, nil
	}
	return n.recent.logs(req), nil
}
