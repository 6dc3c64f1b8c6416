package app

import (
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/config"
	"github.com/moot-net/moot/node/internal/logs"
	"github.com/moot-net/moot/node/internal/traffic"
	"github.com/moot-net/moot/node/internal/volunteer"
)

func TestFollowerTakesWhatIsLiveAndKeepsTheRest(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		meter, err := traffic.New(traffic.Options{})
		if err != nil {
			t.Fatal(err)
		}
		k := keep(t, dir, volunteer.Settings{})
		n := &node{traffic: meter, keeper: k.keeper, changed: make(chan struct{}, 1)}
		c, wrong := config.Default(), error(nil)
		levels := new(logs.Levels)
		debugs, err := logs.New(io.Discard, "text", levels)
		if err != nil {
			t.Fatal(err)
		}
		debug := func() bool { return debugs.Enabled(t.Context(), slog.LevelDebug) }
		n.follow = newFollower(Options{
			Config: c, Levels: levels, Log: slog.New(slog.DiscardHandler),
			Reload: func() (*config.Config, error) { d := c; return &d, wrong },
		}, n)

		c.Work.DutyPercent, c.Work.MaxTempC = 40, 70
		c.LogLevel, c.CacheMaxMB, c.MinFreeMB, c.Network.MonthlyGB = "debug", 7, 8, 9
		c.Threads, c.Device = c.Threads+1, "cuda:7"
		n.follow.reload(t.Context())
		if k.duty != 40 || k.settings.MaxTemp != 70 || !debug() || meter.Usage().Quota != 9e9 ||
			n.maxBytes.Load() != 7e6 || n.minFree.Load() != 8e6 {
			t.Errorf("duty %d, temperature %d, debug %v, quota %d, cache %d, free %d", k.duty, k.settings.MaxTemp, debug(), meter.Usage().Quota, n.maxBytes.Load(), n.minFree.Load())
		}
		later := []string{"device", "threads"}
		if wrong, l := n.follow.state(); wrong != "" || !cmp.Equal(l, later) {
			t.Errorf("state %q, %v; want %v at the next start", wrong, l, later)
		}

		// A broken file changes nothing, and says so.
		wrong = errors.New("mootd.toml:3: unknown key")
		n.follow.reload(t.Context())
		if w, l := n.follow.state(); w != wrong.Error() || !cmp.Equal(l, later) || k.duty != 40 {
			t.Errorf("state %q, %v, duty %d", w, l, k.duty)
		}
		wrong = nil
		c.Network.UploadMbit, c.Work.DutyPercent = 0.001, 60 // less than the meter takes
		n.follow.reload(t.Context())
		if w, _ := n.follow.state(); w == "" || k.duty != 40 {
			t.Errorf("state %q, duty %d: one wrong value lets none take effect", w, k.duty)
		}

		// Repaired, and back where it was.
		c = config.Default()
		n.follow.reload(t.Context())
		if w, l := n.follow.state(); w != "" || len(l) != 0 || k.duty != 100 || debug() {
			t.Errorf("state %q, %v, duty %d, debug %v", w, l, k.duty, debug())
		}
	})
}
