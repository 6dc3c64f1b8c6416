package app

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"sync"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/node/internal/volunteer"
)

// controlFile is what the node was asked for last.
const controlFile = "control.json"

// observeInterval is how often the keeper looks at the machine.
const observeInterval = 2 * time.Second

// keeper decides whether the node may work, and opens and closes the gate of
// its runs.
type keeper struct {
	// constant after newKeeper
	path    string
	gate    *runner.Gate
	log     *slog.Logger
	changed func() // is told of another verdict
	observe func(volunteer.Settings) volunteer.Observation
	close   func() // ends what observe needs
	device  string // that the node computes on: cpu, cuda:0
	runs    func() []api.Run
	stop    func() // ends the daemon
	unasked bool   // there was nothing that somebody asked for

	mu sync.Mutex
	// guarded by mu
	settings volunteer.Settings
	duty     int
	policy   *volunteer.Policy
	looked   bool      // at the machine
	seenAt   time.Time // when it was looked last
	seen     volunteer.Observation
	control  volunteer.Control
	verdict  volunteer.Verdict
	rounds   map[string]uint64 // of the runs, when it was asked to finish
	finished bool              // and what was under way then is in a record
	draining bool              // or is still done
}

// keeperOptions are what newKeeper needs.
type keeperOptions struct {
	dir      string
	settings volunteer.Settings
	duty     int    // percent
	device   string // that the node computes on: cpu, cuda:0
	gpus     func() ([]volunteer.GPU, error)
	log      *slog.Logger
	changed  func()
	runs     func() []api.Run
	stop     func()
}

// newKeeper reads what was asked for before. What cannot be read is a pause:
// somebody may have wanted one. Nobody agreed to anything, unless they did
// before.
func newKeeper(o keeperOptions) *keeper {
	observer := volunteer.NewObserver(o.gpus)
	k := &keeper{
		path: filepath.Join(o.dir, controlFile), settings: o.settings, duty: o.duty, gate: new(runner.Gate), log: o.log, changed: o.changed,
		observe: observer.Observe, close: observer.Close, device: o.device, runs: o.runs, stop: o.stop, policy: volunteer.NewPolicy(o.settings),
	}
	k.policy.SetDevice(o.device)
	var err error
	switch k.control, err = volunteer.LoadControl(k.path); {
	case errors.Is(err, fs.ErrNotExist):
		k.unasked = true
	case err != nil:
		o.log.Warn("what was asked for was not readable, the node is paused", "component", "keeper", "err", err)
		k.control.Pause = &volunteer.Pause{Since: time.Now(), Note: "it is not known whether it was, because " + controlFile + " is damaged"}
		k.unasked = true
	}
	// Nothing is computed before the machine was looked at.
	k.gate.Set(false, o.duty)
	return k
}

// begin settles whether somebody agreed that this machine works for others:
// answer, if not nil, is what was said just now. Who was never asked, by an
// older version, and is in a run agreed by joining it.
func (k *keeper) begin(ctx context.Context, answer *bool, joined bool) error {
	switch {
	case answer != nil:
		return k.change(ctx, func(c *volunteer.Control) { c.Consent = *answer })
	case k.unasked && joined:
		k.mu.Lock()
		defer k.mu.Unlock()
		k.control.Consent = true
	}
	return nil
}

// agree notes that somebody agreed.
func (k *keeper) agree(ctx context.Context) error {
	k.mu.Lock()
	agreed := k.control.Consent
	k.mu.Unlock()
	if agreed {
		return nil
	}
	return k.change(ctx, func(c *volunteer.Control) { c.Consent = true })
}

// run looks at the machine until ctx is done.
func (k *keeper) run(ctx context.Context) error {
	defer k.close()
	t := time.NewTicker(observeInterval)
	defer t.Stop()
	for {
		k.mu.Lock()
		settings := k.settings
		k.mu.Unlock()
		o := k.observe(settings)
		k.mu.Lock()
		k.seen, k.looked, k.seenAt = o, true, time.Now()
		over := k.over()
		k.finished = k.control.Finish && (k.finished || over) // what begins after a restart is not looked at
		k.decide(ctx)
		end := k.finished && k.control.Exit
		k.mu.Unlock()
		if end {
			k.log.InfoContext(ctx, "node has finished", "component", "keeper")
			k.stop()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// decide is called with mu held.
func (k *keeper) decide(ctx context.Context) {
	k.policy.SetControl(k.control)
	v := k.policy.Decide(time.Now(), k.seen)
	draining := v.Reason == volunteer.Finished && !k.finished
	k.gate.Drain(draining)
	k.gate.Set(k.looked && (v.Works() || draining), k.duty)
	if v == k.verdict && draining == k.draining {
		return
	}
	k.draining = draining
	if v.Reason != k.verdict.Reason {
		k.log.InfoContext(ctx, "verdict changed", "component", "keeper", "works", v.Works(), "reason", string(v.Reason), "why", v.Text)
	}
	k.verdict = v
	k.changed()
}

// over reports whether the last work of a node that was asked to finish is in a
// record, or was never begun. It is called with mu held.
func (k *keeper) over() bool {
	if !k.control.Finish {
		k.rounds = nil
		return false
	}
	first := k.rounds == nil
	if first {
		k.rounds = map[string]uint64{}
	}
	over := true
	for _, r := range k.runs() {
		if first {
			k.rounds[r.ID] = r.Round
		}
		if r.Joined && r.State == api.RunTraining && r.Round <= k.rounds[r.ID] {
			over = false
		}
	}
	return over
}

// ask changes what the node was asked for, durably. It is in effect when ask
// returns.
func (k *keeper) ask(ctx context.Context, req api.ControlRequest) error {
	now := time.Now()
	return k.change(ctx, func(c *volunteer.Control) {
		devices := maps.Clone(c.Devices)
		switch req.Action {
		case api.ControlPause:
			p := volunteer.Pause{Since: now, Note: req.Note}
			if req.ForSeconds > 0 {
				p.Until = now.Add(time.Duration(req.ForSeconds) * time.Second)
			}
			if req.Until != nil {
				p.Until = *req.Until
			}
			if req.Device == "" {
				c.Pause = &p
				return
			}
			if devices == nil {
				devices = map[string]volunteer.Pause{}
			}
			devices[req.Device] = p
			c.Devices = devices
		case api.ControlFinish:
			c.Pause, c.Devices, c.Finish, c.Exit = nil, nil, true, req.Exit
		default:
			if req.Device != "" {
				delete(devices, req.Device)
				c.Devices = devices
				return
			}
			c.Pause, c.Devices, c.Finish, c.Exit = nil, nil, false, false
		}
	})
}

// change changes what the node was asked for, durably, and puts it into effect.
func (k *keeper) change(ctx context.Context, fn func(*volunteer.Control)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.control
	fn(&c)
	if err := c.Save(k.path); err != nil {
		return api.Errorf(api.CodeDisk, "keep what was asked for: %w", err)
	}
	if !c.Finish || !k.control.Finish {
		k.rounds, k.finished = nil, false
	}
	k.control = c
	k.decide(ctx)
	return nil
}

// set replaces the settings. They are in effect when it returns.
func (k *keeper) set(ctx context.Context, s volunteer.Settings, duty int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.settings, k.duty = s, duty
	k.policy.SetSettings(s)
	k.decide(ctx)
}

// now is the last verdict.
func (k *keeper) now() volunteer.Verdict {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.verdict
}

// drains reports whether the node does its last work.
func (k *keeper) drains() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.draining
}
