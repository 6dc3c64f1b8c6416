// Package usage remembers what the devices of a machine were used for: the last
// hour every five seconds, and the last day minute by minute. The minutes are
// kept in a file, so that whoever comes in the morning sees how hot it was at
// night, though the daemon was started again; the hour is not, because a restart
// is a gap in it anyhow.
package usage

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/moot-net/moot/node/api"
)

// How often is looked, and how much is kept: at most 720 and 1,440 samples.
const (
	step   = 5 * time.Second
	hour   = time.Hour
	minute = time.Minute
	day    = 24 * time.Hour
)

// maxDevices bounds the devices of a sample.
const maxDevices = 8

// Options are what New needs.
type Options struct {
	// File keeps the minutes for the next start. Default: they are not kept.
	File string
	// Look returns what there is to see now; it fills in all but Time.
	Look func() api.UsageSample
	Log  *slog.Logger
}

// History is what the devices were used for.
type History struct {
	// constant after New
	look func() api.UsageSample
	file *file // nil: nothing is kept
	log  *slog.Logger

	// owned by Run
	told bool // that the file cannot be written

	mu sync.Mutex
	// guarded by mu; times go up
	fine, minutes []api.UsageSample
	open          bucket // the minute under way
}

// New returns a history with the minutes of earlier processes. It starts
// nothing.
func New(o Options) *History {
	h := &History{look: o.Look, log: o.Log}
	if o.File == "" {
		return h
	}
	h.file = &file{path: o.File}
	var err error
	if h.minutes, err = h.file.read(time.Now()); err != nil {
		h.log.Warn("what devices were used for is not known from before", "err", err)
	}
	return h
}

// Run looks until ctx is done.
func (h *History) Run(ctx context.Context) error {
	t := time.NewTicker(step)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			// A minute that is not over would be a second one of its time.
			return nil
		case <-t.C:
			s := h.look()
			s.Time = time.Now().UTC().Truncate(time.Millisecond)
			s.Devices = s.Devices[:min(len(s.Devices), maxDevices)]
			if m := h.add(s); m != nil {
				h.keep(ctx, *m)
			}
		}
	}
}

// add takes a sample, and returns the minute that is over with it.
func (h *History) add(s api.UsageSample) (over *api.UsageSample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fine = append(until(since(h.fine, s.Time.Add(-hour)), s.Time), s)
	at := s.Time.Truncate(minute)
	if h.open.n > 0 && !at.Equal(h.open.at) {
		m := h.open.sample()
		h.minutes = append(until(since(h.minutes, m.Time.Add(-day)), m.Time), m)
		over = &m
	}
	if !at.Equal(h.open.at) {
		h.open = bucket{at: at}
	}
	h.open.add(s)
	return over
}

// since are the samples after a time; what is before lets go of what it had.
func since(l []api.UsageSample, t time.Time) []api.UsageSample {
	i, _ := slices.BinarySearchFunc(l, t, func(s api.UsageSample, t time.Time) int { return s.Time.Compare(t) })
	for i < len(l) && !l[i].Time.After(t) {
		i++
	}
	clear(l[:i])
	return l[i:]
}

// until are the samples before a time: of a clock that was set back, what was
// after the new time is as if it had not been.
func until(l []api.UsageSample, t time.Time) []api.UsageSample {
	for len(l) > 0 && !l[len(l)-1].Time.Before(t) {
		l = l[:len(l)-1]
	}
	return l
}

func (h *History) keep(ctx context.Context, m api.UsageSample) {
	if h.file == nil {
		return
	}
	err := h.file.append(m, h.newest)
	if err != nil && !h.told {
		h.log.WarnContext(ctx, "what devices were used for was not kept", "err", err)
	}
	h.told = err != nil
}

func (h *History) newest() []api.UsageSample {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.minutes)
}

// Since returns the samples of a span after a time.
func (h *History) Since(req api.UsageRequest) api.Usage {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := api.Usage{Span: req.Span, StepSeconds: step.Seconds()}
	l := h.fine
	if req.Span == api.UsageDay {
		l, u.StepSeconds = h.minutes, minute.Seconds()
	}
	i := len(l)
	for i > 0 && l[i-1].Time.After(req.After) {
		i--
	}
	u.Samples = slices.Clone(l[i:])
	return u
}
