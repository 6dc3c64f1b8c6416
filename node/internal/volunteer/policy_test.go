package volunteer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

var noon = time.Date(2026, 2, 2, 12, 0, 0, 0, time.UTC) // a Monday

// agreed is a policy of a machine whose owner agreed.
func agreed(s Settings) *Policy {
	p := NewPolicy(s)
	p.SetControl(Control{Consent: true})
	return p
}

func TestNothingHappensBeforeConsent(t *testing.T) {
	p := NewPolicy(Settings{})
	if v := p.Decide(noon, Observation{}); v.Reason != Consent || v.Text == "" || v.Do == "" {
		t.Errorf("got %+v", v)
	}
	p.SetControl(Control{Finish: true}) // would compute what is under way
	if v := p.Decide(noon, Observation{}); v.Reason != Consent {
		t.Errorf("finish: got %+v", v)
	}
	p.SetControl(Control{Consent: true})
	if v := p.Decide(noon, Observation{}); !v.Works() {
		t.Errorf("got %+v", v)
	}
}

func TestReasons(t *testing.T) {
	s := Settings{
		IdleOnly: 5 * time.Minute, Fullscreen: true, GameMode: true, ExclusiveApps: []string{"CS2", "eldenring.exe"}, MaxTemp: 83,
		OtherMemory: 1 << 30,
	}
	for _, x := range []struct {
		name string
		o    Observation
		want Reason
	}{
		{"nothing known", Observation{}, Working},
		{"battery", Observation{Battery: new(true)}, OnBattery},
		{"plugged in", Observation{Battery: new(false)}, Working},
		{"app", Observation{Apps: []string{"bash", "cs2.exe"}}, Exclusive},
		{"app without its ending", Observation{Apps: []string{"EldenRing"}}, Exclusive},
		{"other app", Observation{Apps: []string{"cs2-helper", "scs2"}}, Working},
		{"game", Observation{GameMode: new(true)}, Game},
		{"full screen", Observation{Fullscreen: new(true)}, Fullscreen},
		{"in use", Observation{Idle: new(time.Minute)}, InUse},
		{"idle", Observation{Idle: new(5 * time.Minute)}, Working},
		{"not known whether it is idle", Observation{Unseen: map[Sight]string{SightIdle: "not available on this desktop"}}, InUse},
		{"hot", Observation{GPUs: []GPU{{Name: "gpu", Celsius: new(84)}}}, Hot},
		{"warm", Observation{GPUs: []GPU{{Name: "gpu", Celsius: new(83)}}}, Working},
		{"hot processor", Observation{Temps: []Temp{{"cpu", 90}}}, Hot},
		{"hot in a game on battery", Observation{GameMode: new(true), Battery: new(true), Temps: []Temp{{"cpu", 90}}}, Hot},
	} {
		if x.o.Idle == nil && x.want != InUse {
			x.o.Idle = new(time.Hour)
		}
		v := agreed(s).Decide(noon, x.o)
		if v.Reason != x.want {
			t.Errorf("%s: got %+v", x.name, v)
		}
		if !v.Works() && (v.Text == "" || v.Do == "") {
			t.Errorf("%s: does not say why or what to do: %+v", x.name, v)
		}
		// Who wants none of it gets none of it.
		if v := agreed(Settings{OnBattery: true}).Decide(noon, x.o); !v.Works() {
			t.Errorf("%s: without limits: %+v", x.name, v)
		}
	}
	if v := agreed(s).Decide(noon, Observation{Idle: new(time.Minute)}); !v.Until.Equal(noon.Add(4 * time.Minute)) {
		t.Errorf("in use until %v", v.Until)
	}
}

func TestScheduleSaysUntilWhen(t *testing.T) {
	p := agreed(Settings{Schedule: schedule(t, "Mon-Fri 22:00-07:00")})
	v := p.Decide(noon, Observation{})
	if v.Reason != OffHours || !v.Until.Equal(noon.Add(10*time.Hour)) {
		t.Errorf("got %+v", v)
	}
	if v := p.Decide(v.Until, Observation{}); !v.Works() {
		t.Errorf("then: %+v", v)
	}
}

func TestHeatHasHysteresis(t *testing.T) {
	p := agreed(Settings{MaxTemp: 80})
	for i, x := range []struct {
		temp int
		want Reason
	}{{80, Working}, {81, Hot}, {80, Hot}, {73, Hot}, {72, Working}, {80, Working}, {81, Hot}} {
		// The other one stays cool and changes nothing.
		o := Observation{GPUs: []GPU{{Name: "a", Celsius: new(x.temp)}, {Name: "b", Celsius: new(40)}}}
		if v := p.Decide(noon.Add(time.Duration(i)*time.Second), o); v.Reason != x.want {
			t.Errorf("step %d, %d °C: %+v", i, x.temp, v)
		}
	}
}

func TestItWaitsUntilTheGameIsReallyOver(t *testing.T) {
	p := agreed(Settings{GameMode: true, ResumeAfter: 2 * time.Minute})
	for _, x := range []struct {
		after time.Duration
		game  bool
		want  Reason
	}{
		{0, false, Working}, // nothing to wait for at the start
		{time.Minute, true, Game},
		{2 * time.Minute, false, Settling},
		{3 * time.Minute, true, Game},
		{4 * time.Minute, false, Settling},
		{5*time.Minute + 59*time.Second, false, Settling},
		{6 * time.Minute, false, Working},
		{7 * time.Minute, false, Working},
	} {
		v := p.Decide(noon.Add(x.after), Observation{GameMode: new(x.game)})
		if v.Reason != x.want {
			t.Errorf("after %v: %+v", x.after, v)
		}
		if v.Reason == Settling && !v.Until.After(noon.Add(x.after)) {
			t.Errorf("after %v it settles until %v", x.after, v.Until)
		}
	}
}

func TestOthersOnTheGPU(t *testing.T) {
	p := agreed(Settings{OtherUtil: 25, OtherMemory: 1500 << 20})
	o := func(util int, memory int64) Observation {
		return Observation{GPUs: []GPU{{Name: "gpu", OtherUtil: &util, OtherMemory: &memory}}}
	}
	for _, x := range []struct {
		after time.Duration
		o     Observation
		want  Reason
	}{
		{0, o(90, 0), Working}, // for a moment
		{4 * time.Second, o(90, 0), Working},
		{5 * time.Second, o(30, 0), OtherGPU},
		{6 * time.Second, o(25, 0), Working},
		{7 * time.Second, o(0, 2<<30), Working},
		{12 * time.Second, o(0, 2<<30), OtherGPU},
		{13 * time.Second, o(0, 1<<30), Working},
	} {
		if v := p.Decide(noon.Add(x.after), x.o); v.Reason != x.want {
			t.Errorf("after %v: %+v", x.after, v)
		}
	}
}

func TestPausesEndAndOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.json")
	if c, err := LoadControl(path); !errors.Is(err, fs.ErrNotExist) || c.Consent {
		t.Fatalf("got %+v, %v", c, err)
	}
	for _, c := range []Control{
		{Consent: true, Pause: &Pause{Since: noon, Until: noon.Add(time.Hour), Note: "film"}},
		{Consent: true, Pause: &Pause{Since: noon}},
		{Consent: true, Finish: true, Exit: true},
	} {
		if err := c.Save(path); err != nil {
			t.Fatal(err)
		}
		got, err := LoadControl(path)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("got %+v, %v, want %+v", got, err, c)
		}
		p := NewPolicy(Settings{})
		p.SetControl(got)
		v, later := p.Decide(noon.Add(time.Minute), Observation{}), p.Decide(noon.Add(time.Hour), Observation{})
		switch {
		case c.Finish:
			if v.Reason != Finished || later.Reason != Finished {
				t.Errorf("finish: %+v, %+v", v, later)
			}
		case c.Pause.Until.IsZero():
			if v.Reason != Paused || later.Reason != Paused || !v.Until.IsZero() {
				t.Errorf("pause: %+v, %+v", v, later)
			}
		default:
			if v.Reason != Paused || !v.Until.Equal(c.Pause.Until) || v.Text != "it was paused: film" || !later.Works() {
				t.Errorf("pause for an hour: %+v, %+v", v, later)
			}
		}
	}
	for _, bad := range []string{"{", "[]"} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := LoadControl(path); err == nil || c.Consent {
			t.Errorf("%q: %+v, %v", bad, c, err)
		}
	}
}

func TestPauseOfADevice(t *testing.T) {
	p := NewPolicy(Settings{})
	p.SetDevice("cuda:0")
	decide := func(c Control, at time.Duration) Verdict {
		c.Consent = true
		p.SetControl(c)
		return p.Decide(noon.Add(at), Observation{})
	}
	hour := noon.Add(time.Hour)
	of := func(device string, until time.Time) Control {
		return Control{Devices: map[string]Pause{device: {Since: noon, Until: until, Note: "film"}}}
	}
	if v := decide(of("cpu", time.Time{}), 0); !v.Works() {
		t.Errorf("a pause of another device: %+v", v)
	}
	v := decide(of("cuda:0", hour), time.Minute)
	if v.Reason != Paused || v.Text != "cuda:0 was paused: film" || !v.Until.Equal(hour) || v.Do != `go on with "mootd resume --device cuda:0"` {
		t.Errorf("of this one: %+v", v)
	}
	if v := decide(of("cuda:0", hour), time.Hour); !v.Works() {
		t.Errorf("when it is over: %+v", v)
	}
	// Of two pauses the longer one counts.
	both := of("cuda:0", hour)
	both.Pause = &Pause{Since: noon, Until: hour.Add(time.Minute)}
	if v := decide(both, 0); v.Text != "it was paused" || !v.Until.Equal(hour.Add(time.Minute)) {
		t.Errorf("both: %+v", v)
	}
	both.Devices["cuda:0"] = Pause{Since: noon}
	if v := decide(both, 0); v.Text != "cuda:0 was paused" || !v.Until.IsZero() {
		t.Errorf("both, one without an end: %+v", v)
	}
}
