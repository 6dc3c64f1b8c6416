package volunteer

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"
)

// A desktop that hangs holds nobody up, and is not asked again meanwhile.
func TestDesktopThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		o := &Observer{desktop: func(_ Settings, v *Observation) {
			asked++
			time.Sleep(time.Minute)
			v.Idle = new(time.Hour)
		}}
		for range 5 {
			began := time.Now()
			v := o.Observe(Everything())
			if took := time.Since(began); took > patience {
				t.Errorf("it takes %v", took)
			}
			if v.Idle != nil || v.Unseen[SightIdle] != "the desktop does not answer" {
				t.Errorf("got %+v", v)
			}
		}
		time.Sleep(time.Minute)
		if v := o.Observe(Everything()); v.Idle == nil || asked != 1 {
			t.Errorf("when it answers: %+v, asked %d times", v, asked)
		}
	})
}

func TestBlind(t *testing.T) {
	o := &Observer{root: fstest.MapFS{}, desktop: func(_ Settings, v *Observation) { v.unseen(SightFullscreen, "not available on this desktop") }}
	o.gpus = func() ([]GPU, error) { return nil, errors.New("no NVML") }
	v := o.Observe(Everything())
	got := Blind(Everything(), v)
	for sight, want := range map[Sight]string{
		SightFullscreen: "not available on this desktop", SightGPU: "no NVML", SightBattery: "does not tell", SightHeat: "no temperature",
	} {
		if !strings.Contains(got[sight], want) {
			t.Errorf("%s: %q", sight, got[sight])
		}
	}
	if len(got) != 4 {
		t.Errorf("got %v", got)
	}
	// Who does not want it need not know.
	if got := Blind(Settings{OnBattery: true}, v); len(got) != 0 {
		t.Errorf("without settings %v", got)
	}
}

func TestReadMac(t *testing.T) {
	run := func(name string, _ ...string) (string, error) {
		switch name {
		case "/usr/sbin/ioreg":
			return "  | {\n  |   \"HIDIdleTime\" = 61000000000\n  | }\n  \"HIDIdleTime\" = 5500000000\n", nil
		case "/bin/ps":
			return "launchd\nGame Of The Year\n", nil
		case "/usr/bin/pmset":
			return "Now drawing from 'Battery Power'\n -InternalBattery-0 (id=1)\t95%; discharging; 5:11 remaining present: true\n", nil
		}
		return "", errors.New("no such program")
	}
	var v Observation
	lookMac(run, Everything(), &v)
	if v.Idle == nil || *v.Idle != 5500*time.Millisecond || v.Battery == nil || !*v.Battery || len(v.Apps) != 2 || v.Apps[1] != "Game Of The Year" {
		t.Errorf("got %+v", v)
	}
	if v.Unseen[SightFullscreen] != "not available on macOS" {
		t.Errorf("unseen %v", v.Unseen)
	}
	v = Observation{}
	lookMac(func(string, ...string) (string, error) { return "", errors.New("no") }, Everything(), &v)
	if v.Idle != nil || v.Battery != nil || v.Unseen[SightIdle] == "" || v.Unseen[SightApps] == "" {
		t.Errorf("where nothing answers: %+v", v)
	}
}
