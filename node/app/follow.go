package app

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/moot-net/moot/node/config"
	"github.com/moot-net/moot/node/internal/logs"
)

// follower makes the node follow its configuration while it runs.
type follower struct {
	// constant after newFollower
	node   *node
	file   string
	load   func() (*config.Config, error) // nil: it is not followed
	levels *logs.Levels                   // may be nil
	log    *slog.Logger
	atOnce func(*config.Config) error // puts what is live into effect

	mu sync.Mutex
	// guarded by mu
	inEffect config.Config
	err      error    // why the file is not used
	later    []string // keys that take effect at the next start
}

func newFollower(o Options, n *node) *follower {
	f := &follower{node: n, file: o.File, load: o.Reload, levels: o.Levels, log: o.Log.With("component", "config"), inEffect: o.Config}
	f.atOnce = f.apply
	return f
}

// run looks at the file until ctx is done.
func (f *follower) run(ctx context.Context) error {
	if f.load == nil || f.file == "" {
		<-ctx.Done()
		return nil
	}
	config.Watch(ctx, f.file, func() { f.reload(ctx) })
	return nil
}

// reload puts the configuration into effect, or keeps all that was in effect
// and remembers why.
func (f *follower) reload(ctx context.Context) {
	next, err := f.load()
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.node.poke()
	var now []string
	if err == nil {
		f.later = nil
		for _, name := range config.Differ(&f.inEffect, next) {
			if config.Live(name) {
				now = append(now, name)
			} else {
				f.later = append(f.later, name)
			}
		}
		c := f.inEffect
		c.Copy(next, now)
		if err = f.atOnce(&c); err == nil {
			f.inEffect = c
		}
	}
	f.err = err
	switch {
	case err != nil:
		f.log.ErrorContext(ctx, "configuration was wrong, what was in effect before still is", "err", err)
	case len(now) > 0 || len(f.later) > 0:
		f.log.InfoContext(ctx, "configuration changed", "keys", now, "at_next_start", f.later)
	}
}

// apply puts what is live into effect: all of it, or, with an error, nothing.
func (f *follower) apply(c *config.Config) error {
	settings, err := c.Work.Settings()
	if err != nil {
		return err
	}
	if err := logs.Check(c.LogLevel); err != nil {
		return fmt.Errorf("log_level: %w", err)
	}
	if err := f.node.traffic.SetLimits(c.Network.Limits()); err != nil {
		return err
	}
	f.node.setCaps(c)
	f.node.keeper.set(context.Background(), settings, c.Work.DutyPercent)
	if f.levels != nil {
		return f.levels.Parse(c.LogLevel)
	}
	return nil
}

// setCaps says how much of the disk may be used.
func (n *node) setCaps(c *config.Config) {
	n.maxBytes.Store(c.CacheMaxMB * 1e6)
	n.minFree.Store(c.MinFreeMB * 1e6)
}

// state returns why the file is not used, and what takes effect at the next
// start.
func (f *follower) state() (wrong string, later []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		wrong = f.err.Error()
	}
	return wrong, slices.Clone(f.later)
}
