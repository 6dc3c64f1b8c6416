package app

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/logs"
)

func TestRecent(t *testing.T) {
	out, err := logs.New(io.Discard, "text", new(logs.Levels)) // from info on
	if err != nil {
		t.Fatal(err)
	}
	r := newRecent(4)
	log := slog.New(r.handler(out.Handler()))
	log.Debug("not logged")
	log.With("component", "p2p").WithGroup("g").With("a", 1).Warn("two\nlines", "b", "x y", "empty", "")
	for n := range 4 {
		log.Info("line", "n", n)
	}
	log.LogAttrs(t.Context(), slog.LevelError, "long", slog.String("text", strings.Repeat("x", 2*maxLogText)))
	got := r.logs(api.LogsRequest{Limit: 10, Level: "debug"})
	if got.Last != 6 || len(got.Entries) != 4 || got.Lost {
		t.Errorf("kept %d of %d, lost %v", len(got.Entries), got.Last, got.Lost)
	}
	if n := len(got.Entries[3].Attrs); n > maxLogText+16 {
		t.Errorf("attributes of %d bytes are kept", n)
	}
	if got := r.logs(api.LogsRequest{Limit: 2, Level: "info", After: 1}); !got.Lost || len(got.Entries) != 2 || got.Entries[1].N != 6 || got.Entries[0].N != 5 {
		t.Errorf("the newest two after the first: %+v", got)
	}
	if got := r.logs(api.LogsRequest{Limit: 10, Level: "error"}); len(got.Entries) != 1 || got.Entries[0].Level != "error" {
		t.Errorf("errors: %+v", got)
	}
	if got := r.logs(api.LogsRequest{Limit: 10, After: 99}); len(got.Entries) != 0 || got.Lost {
		t.Errorf("of the future: %+v", got)
	}

	r = newRecent(4)
	slog.New(r.handler(out.Handler())).With("component", "p2p").WithGroup("g").With("a", 1).Warn("two\nlines", "b", "x y", "c", fmt.Errorf(`say "no"`))
	want := api.LogEntry{N: 1, Level: "warn", Component: "p2p", Message: "two\nlines", Attrs: `g.a=1 g.b="x y" g.c="say \"no\""`}
	if diff := cmp.Diff(want, r.logs(api.LogsRequest{Limit: 1}).Entries[0], cmpopts.IgnoreFields(api.LogEntry{}, "Time")); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
}
