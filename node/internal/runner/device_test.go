package runner

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/tensor"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/run"
)

// card is a backend that counts as a GPU's.
type card struct {
	tensor.Backend
	open   *atomic.Int64
	broken *atomic.Bool
}

var errBroken = errors.New("the card fell off the bus")

func (c *card) Close() error { c.open.Add(-1); return nil }

func (c *card) Err() error {
	if c.broken.Load() {
		return errBroken
	}
	return nil
}

// TestDeviceIsGivenBack: while a node is paused its GPU is closed, and it goes
// on afterwards. So it does after the GPU failed, and when it cannot be opened
// at once.
func TestDeviceIsGivenBack(t *testing.T) {
	t.Parallel()
	a := newNode(t, 61)
	var open, opened atomic.Int64
	var broken atomic.Bool
	gate := &Gate{}
	a.hub.idleAfter = 500 * time.Millisecond
	a.hub.o.Gate = gate
	a.hub.o.OpenDevice = func(o *train.Options) error {
		open.Add(1)
		opened.Add(1)
		broken.Store(false)
		o.Backend = &card{cpu.New(cpu.Options{}), &open, &broken}
		return nil
	}
	man := launch(t, a, func(m *run.Manifest) { m.MaxRounds = 8 })
	r, stop := a.takePart(t, man)
	until(t, "a trained round", func() bool { return r.Summary().TrainedRounds >= 1 })
	gate.Set(false, 100)
	until(t, "a closed device", func() bool { return open.Load() == 0 })
	gate.Set(true, 100)
	until(t, "an open device", func() bool { return open.Load() == 1 })
	until(t, "three trained rounds", func() bool { return r.Summary().TrainedRounds >= 3 })
	broken.Store(true)
	until(t, "another device after it failed", func() bool { return opened.Load() >= 3 && open.Load() == 1 })
	if a.events.count(api.EventAlert) == 0 {
		t.Error("nobody was told that the device failed")
	}
	until(t, "the end", func() bool { return r.Summary().Final })
	until(t, "a device that is given back when there is nothing to do", func() bool { return open.Load() == 0 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if open.Load() != 0 {
		t.Errorf("%d devices are open after the end", open.Load())
	}
}
