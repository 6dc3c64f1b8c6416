package logs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
)

// New returns a logger that writes to w in a format, "text" or "json".
func New(w io.Writer, format string, l *Levels) (*slog.Logger, error) {
	all := &slog.HandlerOptions{Level: slog.LevelDebug} // Levels decide
	switch format {
	case "text":
		return slog.New(&handler{slog.NewTextHandler(w, all), l, ""}), nil
	case "json":
		return slog.New(&handler{slog.NewJSONHandler(w, all), l, ""}), nil
	}
	return nil, fmt.Errorf("format of the log is %q, must be text or json", format)
}

// componentKey is the attribute that names the component.
const componentKey = "component"

// handler leaves out what Levels do not let through.
type handler struct {
	slog.Handler
	levels    *Levels
	component string // "": the record may say
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	v := h.levels.get()
	if h.component != "" {
		return level >= v.of(h.component)
	}
	return level >= v.least
}

// Handle implements slog.Handler.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	component := h.component
	if component == "" {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == componentKey {
				component = a.Value.String()
			}
			return component == ""
		})
	}
	if r.Level < h.levels.get().of(component) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	n.Handler = h.Handler.WithAttrs(attrs)
	for _, a := range attrs {
		if a.Key == componentKey {
			n.component = a.Value.String()
		}
	}
	return &n
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	n := *h
	n.Handler = h.Handler.WithGroup(name)
	return &n
}
