package app

import (
	"context"
	"path/filepath"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/usage"
)

// staleAfter is how old what the keeper saw may be to be told as of now.
const staleAfter = 5 * observeInterval

// newUsage makes what remembers what the machine was used for.
func (n *node) newUsage() *usage.History {
	process := usage.NewProcess()
	return usage.New(usage.Options{
		File: filepath.Join(n.dir, usageFile), Log: n.log.With("component", "usage"),
		Look: func() api.UsageSample {
			s := n.keeper.sample(time.Now())
			s.ProcessBytes, s.ProcessPercent = process.Look()
			return s
		},
	})
}

// sample is what the keeper saw last, unless that is long ago: a driver that
// hangs is no device that goes on as before.
func (k *keeper) sample(now time.Time) api.UsageSample {
	k.mu.Lock()
	s := api.UsageSample{Devices: []api.Device{}, MaxCelsius: k.settings.MaxTemp, DutyPercent: k.duty}
	fresh := now.Sub(k.seenAt) <= staleAfter
	k.mu.Unlock()
	if fresh {
		s.Devices = append(s.Devices, k.devices()...)
	}
	return s
}

// Usage implements api.Backend.
func (n *node) Usage(_ context.Context, req api.UsageRequest) (api.Usage, error) {
	return n.usage.Since(req), nil
}
