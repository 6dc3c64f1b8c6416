package app

import (
	"context"
	"log/slog"
	"path/filepath"
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
	asleep  chan struct{}         // guarded by lock; while it is open the process stands still
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
	return keepOn(t, dir, s, answer, joined, "")
}

func keepOn(t *testing.T, dir string, s volunteer.Settings, answer *bool, joined bool, device string, has ...api.Run) *kept {
	k := &kept{has: has}
	k.keeper = newKeeper(keeperOptions{
		dir: dir, device: device, settings: s, duty: 100, log: slog.New(slog.DiscardHandler), changed: func() {},
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
		asleep := k.asleep
		k.lock.Unlock()
		if asleep != nil {
			<-asleep
		}
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

// TestKeeperFinishesAndStays: without an end of the daemon the gate is closed when
// the last work is in a record, which gives the memory back, and somebody is told.
// A restart does not undo it.
func TestKeeperFinishesAndStays(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, dir, volunteer.Settings{})
		k.set(func() { k.has = []api.Run{{ID: "a", Joined: true, State: api.RunTraining, Round: 7}} })
		if err := k.ask(t.Context(), api.ControlRequest{Action: api.ControlFinish}); err != nil {
			t.Fatal(err)
		}
		told := 0
		k.changed = func() { told++ }
		if v := k.after(time.Minute); v.Reason != volunteer.Finished || !k.open() || !k.gate.Draining() || !k.drains() || told != 0 {
			t.Errorf("in the round: %+v, open %v, drains %v, told %d times", v, k.open(), k.drains(), told)
		}
		k.set(func() { k.has[0].Round = 8 })
		if v := k.after(observeInterval); v.Reason != volunteer.Finished || k.open() || k.drains() || k.ended() || told != 1 {
			t.Errorf("the round is decided: %+v, open %v, drains %v, stopped %v, told %d times", v, k.open(), k.drains(), k.ended(), told)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, dir, volunteer.Settings{})
		if v := k.now(); v.Reason != volunteer.Finished || k.open() || k.ended() {
			t.Errorf("after a restart: %+v, open %v, stopped %v", v, k.open(), k.ended())
		}
		if err := k.ask(t.Context(), api.ControlRequest{Action: api.ControlResume}); err != nil {
			t.Fatal(err)
		}
		if v := k.now(); !v.Works() || !k.open() || k.gate.Draining() {
			t.Errorf("resumed: %+v, open %v", v, k.open())
		}
	})
}

// TestKeeperStaysFinished: after a restart, a run that trains again in the same
// round begins nothing for who finished, nor does another wish.
func TestKeeperStaysFinished(t *testing.T) {
	dir := t.TempDir()
	if err := (volunteer.Control{Consent: true, Finish: true}).Save(filepath.Join(dir, controlFile)); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		k := keepOn(t, dir, volunteer.Settings{}, nil, true, "", api.Run{ID: "a", Joined: true, State: api.RunSyncing, Round: 7})
		if v := k.now(); v.Reason != volunteer.Finished || k.open() {
			t.Errorf("after a restart: %+v, open %v", v, k.open())
		}
		k.set(func() { k.has[0].State = api.RunTraining })
		if v := k.after(observeInterval); v.Reason != volunteer.Finished || k.open() || k.drains() {
			t.Errorf("in the round: %+v, open %v", v, k.open())
		}
		if err := k.ask(t.Context(), api.ControlRequest{Action: api.ControlFinish, Exit: true}); err != nil {
			t.Fatal(err)
		}
		if k.open() {
			t.Error("the gate is open after the wish to end")
		}
		if k.after(observeInterval); !k.ended() {
			t.Error("it did not end")
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

// A pause of a device outlives the daemon, and counts while it is computed on.
func TestKeeperPausesADevice(t *testing.T) {
	dir := t.TempDir()
	step := func(what, device string, want volunteer.Reason, req *api.ControlRequest) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			k := keepOn(t, dir, volunteer.Settings{}, new(true), false, device)
			if req != nil {
				if err := k.ask(t.Context(), *req); err != nil {
					t.Fatal(err)
				}
			}
			if v := k.after(observeInterval); v.Reason != want {
				t.Errorf("%s: %+v", what, v)
			}
		})
	}
	pause := func(device string) *api.ControlRequest {
		return &api.ControlRequest{Action: api.ControlPause, Device: device}
	}
	step("paused", "cuda:0", volunteer.Paused, pause("cuda:0"))
	step("after a restart", "cuda:0", volunteer.Paused, nil)
	step("on the processor", "cpu", volunteer.Working, nil)
	step("on the GPU again", "cuda:0", volunteer.Paused, nil)
	step("a resume of another device", "cuda:0", volunteer.Paused, &api.ControlRequest{Action: api.ControlResume, Device: "cpu"})
	step("a resume of this one", "cuda:0", volunteer.Working, &api.ControlRequest{Action: api.ControlResume, Device: "cuda:0"})
	step("paused again", "cpu", volunteer.Paused, pause("cpu"))
	step("a resume of everything", "cpu", volunteer.Working, &api.ControlRequest{Action: api.ControlResume})
}

// What is seen is told, and which settings have no effect.
func TestKeeperTellsWhatItSees(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, t.TempDir(), volunteer.Settings{Fullscreen: true, OnBattery: true})
		gb := int64(1e9)
		k.set(func() {
			k.sees = volunteer.Observation{
				CPU: &volunteer.Load{Util: 40, UsedMemory: gb, TotalMemory: 4 * gb}, Temps: []volunteer.Temp{{Device: "the processor", Celsius: 55}},
				GPUs:   []volunteer.GPU{{Name: "RTX", Celsius: new(70), Util: new(90), UsedMemory: &gb, OtherMemory: &gb}},
				Unseen: map[volunteer.Sight]string{volunteer.SightFullscreen: "Wayland", volunteer.SightIdle: "Wayland"},
			}
		})
		k.after(observeInterval)
		d := k.devices()
		if len(d) != 2 || *d[0].Celsius != 55 || *d[0].UtilPercent != 40 || *d[0].TotalBytes != 4*gb || d[1].Name != "RTX" || *d[1].UtilPercent != 90 || *d[1].OtherBytes != gb {
			t.Errorf("devices %+v", d)
		}
		if b := k.blind(); len(b) != 1 || b["work.fullscreen"] != "Wayland" {
			t.Errorf("blind %v", b)
		}
	})
}

// A game that comes and goes makes it neither work nor stop each time.
func TestKeeperMakesWayForAGame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changes := 0
		k := keep(t, t.TempDir(), volunteer.Settings{ExclusiveApps: []string{"cs2"}, ResumeAfter: 2 * time.Minute, OnBattery: true})
		last := k.now().Reason
		// The game is there every other ten seconds for five minutes.
		for i := range 30 {
			k.set(func() {
				k.sees.Apps = nil
				if i%2 == 0 {
					k.sees.Apps = []string{"cs2"}
				}
			})
			v := k.after(10 * time.Second)
			if open := k.open(); open != v.Works() {
				t.Errorf("%+v, open %v", v, open)
			}
			if (v.Reason == volunteer.Working) != (last == volunteer.Working) {
				changes++
			}
			last = v.Reason
		}
		if changes > 1 {
			t.Errorf("it began or stopped %d times", changes)
		}
		if v := k.after(3 * time.Minute); !v.Works() {
			t.Errorf("three minutes later %+v", v)
		}
	})
}

// A process that is stopped for an hour (SIGSTOP, a lid that is closed) finds
// its way back: a pause that ended meanwhile is over, the schedule is that of
// the hour it is, and what it looked at before counts no more.
func TestKeeperAfterAnHourAsleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		window := "daily " + now.Format("15:04") + "-" + now.Add(30*time.Minute).Format("15:04")
		schedule, err := volunteer.ParseSchedule([]string{window})
		if err != nil {
			t.Fatal(err)
		}
		k := keep(t, t.TempDir(), volunteer.Settings{Schedule: schedule, OnBattery: true})
		if !k.open() {
			t.Fatalf("in %s: %+v", window, k.now())
		}
		if err := k.ask(t.Context(), api.ControlRequest{Action: api.ControlPause, ForSeconds: 60}); err != nil {
			t.Fatal(err)
		}
		// It is stopped while it looks: nothing of it runs for an hour.
		k.set(func() { k.asleep = make(chan struct{}) })
		time.Sleep(time.Hour)
		k.set(func() {
			close(k.asleep)
			k.asleep = nil
		})
		if v := k.after(0); v.Reason != volunteer.OffHours || k.open() || !v.Until.Equal(now.Truncate(time.Minute).Add(24*time.Hour)) {
			t.Errorf("an hour later: %+v, open %v", v, k.open())
		}
		if v := k.after(23 * time.Hour); !v.Works() || !k.open() {
			t.Errorf("the next day: %+v, open %v", v, k.open())
		}
	})
}
