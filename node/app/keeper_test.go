package app

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/volunteer"
)

// kept is a keeper that sees what is set, with runs that are set.
type kept struct {
	*keeper

	lock    sync.Mutex
	sees    volunteer.Observation // guarded by lock
	has     []api.Run             // guarded by lock
	stopped bool                  // guarded by lock
}

// set changes what the keeper sees.
func (k *kept) set(fn func()) {
	k.lock.Lock()
	defer k.lock.Unlock()
	fn()
}

func (k *kept) ended() bool {
	k.lock.Lock()
	defer k.lock.Unlock()
	return k.stopped
}

func keep(t *testing.T, dir string, s volunteer.Settings) *kept {
	return keepAnswered(t, dir, s, new(true), false)
}

// keepAnswered is keep where somebody was asked, or is in a run.
func keepAnswered(t *testing.T, dir string, s volunteer.Settings, answer *bool, joined bool) *kept {
	k := &kept{}
	k.keeper = newKeeper(keeperOptions{
		dir: dir, settings: s, duty: 100, log: slog.New(slog.DiscardHandler), changed: func() {},
		runs: func() []api.Run {
			k.lock.Lock()
			defer k.lock.Unlock()
			return slices.Clone(k.has)
		},
		stop: func() { k.set(func() { k.stopped = true }) },
	})
	if err := k.begin(t.Context(), answer, joined); err != nil {
		t.Fatal(err)
	}
	if k.open() {
		t.Error("the gate is open before the machine was looked at")
	}
	k.observe = func(volunteer.Settings) volunteer.Observation {
		k.lock.Lock()
		defer k.lock.Unlock()
		return k.sees
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	return k
}

func (k *kept) after(d time.Duration) volunteer.Verdict {
	time.Sleep(d)
	synctest.Wait()
	return k.now()
}

func (k *kept) open() bool { return k.gate.Open() }

func TestKeeperFollowsTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, t.TempDir(), volunteer.Settings{ResumeAfter: time.Minute})
		if !k.open() || !k.now().Works() {
			t.Fatalf("at the start: %+v", k.now())
		}
		k.set(func() { k.sees.Battery = new(true) })
		if v := k.after(observeInterval); v.Reason != volunteer.OnBattery || k.open() {
			t.Errorf("on battery: %+v, open %v", v, k.open())
		}
		k.set(func() { k.sees.Battery = new(false) })
		if v := k.after(observeInterval); v.Reason != volunteer.Settling || k.open() {
			t.Errorf("plugged in: %+v, open %v", v, k.open())
		}
		if v := k.after(time.Minute + observeInterval); !v.Works() || !k.open() {
			t.Errorf("a minute later: %+v, open %v", v, k.open())
		}
	})
}

func TestKeeperPausesAtOnceAndRemembers(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, dir, volunteer.Settings{})
		if err := k.ask(t.Context(), api.ControlRequest{Action: api.ControlPause, ForSeconds: 3600}); err != nil {
			t.Fatal(err)
		}
		if v := k.now(); v.Reason != volunteer.Paused || k.open() || !v.Until.Equal(time.Now().Add(time.Hour)) {
			t.Errorf("paused: %+v, open %v", v, k.open())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		// The bubble's clock begins anew, so the pause lasts an hour again.
		k := keep(t, dir, volunteer.Settings{})
		if v := k.now(); v.Reason != volunteer.Paused || k.open() {
			t.Errorf("after a restart: %+v, open %v", v, k.open())
		}
		if v := k.after(time.Hour + observeInterval); !v.Works() || !k.open() {
			t.Errorf("an hour later: %+v, open %v", v, k.open())
		}
		for _, action := range []string{api.ControlPause, api.ControlResume} {
			if err := k.ask(t.Context(), api.ControlRequest{Action: action}); err != nil {
				t.Fatal(err)
			}
		}
		if !k.open() {
			t.Error("resuming does not open the gate")
		}
	})
}

func TestKeeperFinishesTheRoundAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, t.TempDir(), volunteer.Settings{})
		k.set(func() {
			k.has = []api.Run{{ID: "a", Joined: true, State: api.RunTraining, Round: 7}, {ID: "b", Joined: true, State: api.RunFinal}}
		})
		if err := k.ask(t.Context(), api.ControlRequest{Action: api.ControlFinish, Exit: true}); err != nil {
			t.Fatal(err)
		}
		if v := k.after(time.Minute); v.Reason != volunteer.Finished || !k.open() || !k.gate.Draining() || k.ended() {
			t.Errorf("in the round: %+v, open %v, stopped %v", v, k.open(), k.ended())
		}
		k.set(func() { k.has[0].Round = 8 })
		if k.after(observeInterval); !k.ended() {
			t.Error("the round is decided and the daemon goes on")
		}
	})
}

func TestKeeperWaitsForConsent(t *testing.T) {
	dir := t.TempDir()
	step := func(what string, answer *bool, joined bool, want volunteer.Reason, fn func(*kept)) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			k := keepAnswered(t, dir, volunteer.Settings{}, answer, joined)
			if fn != nil {
				fn(k)
			}
			if v := k.now(); v.Reason != want || k.open() != (want == volunteer.Working) {
				t.Errorf("%s: %+v, open %v", what, v, k.open())
			}
		})
	}
	ask := func(action string) func(*kept) {
		return func(k *kept) {
			if err := k.ask(t.Context(), api.ControlRequest{Action: action}); err != nil {
				t.Error(err)
			}
		}
	}
	step("an older folder with a run", nil, true, volunteer.Working, nil)
	step("a new folder", nil, false, volunteer.Consent, nil)
	step("a finish does not agree", nil, false, volunteer.Consent, ask(api.ControlFinish))
	step("nor does going on", nil, false, volunteer.Consent, ask(api.ControlResume))
	step("a pause does not either", nil, false, volunteer.Paused, ask(api.ControlPause))
	step("who was asked before is not taken to agree", nil, true, volunteer.Paused, nil)
	step("going on again", nil, true, volunteer.Consent, ask(api.ControlResume))
	step("joining agrees", nil, true, volunteer.Working, func(k *kept) {
		if err := k.agree(t.Context()); err != nil {
			t.Error(err)
		}
	})
	step("which outlives the daemon", nil, false, volunteer.Working, nil)
	step("until somebody says no", new(false), true, volunteer.Consent, nil)
	step("which outlives it, too", nil, true, volunteer.Consent, nil)
	step("--yes", new(true), false, volunteer.Working, nil)
}
