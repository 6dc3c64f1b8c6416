// Package volunteer decides whether this machine may work for others just now:
// whether its owner paused it, at which times it may compute, and whether
// somebody plays, works or is on battery. Decisions are made of observations
// that are handed in, so that they can be tested without the hardware.
package volunteer

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// Reason is why a machine does not work, one word for programs.
type Reason string

// The reasons, in the order of their rank: what a person decided first, then
// what heals by itself.
const (
	Working    Reason = ""           // it does
	Paused     Reason = "paused"     // by a person
	Consent    Reason = "consent"    // nobody agreed to it yet
	Finished   Reason = "finished"   // asked to take no further work
	Hot        Reason = "hot"        // a device is too hot
	OnBattery  Reason = "battery"    // not plugged in
	Exclusive  Reason = "app"        // a listed application runs
	Game       Reason = "game"       // the desktop says that a game runs
	Fullscreen Reason = "fullscreen" // something fills the screen
	OtherGPU   Reason = "gpu-busy"   // another process uses the device
	InUse      Reason = "in-use"     // somebody uses the computer
	OffHours   Reason = "schedule"   // the schedule does not allow it
	Settling   Reason = "settling"   // the cause is gone, for a short while
)

// Verdict is a decision.
type Verdict struct {
	Reason Reason
	// Text says it in a sentence, Do what to do about it.
	Text, Do string
	// Until is when it ends by itself, if that is known.
	Until time.Time
}

// Works reports whether the machine may work.
func (v Verdict) Works() bool { return v.Reason == Working }

// Settings are what the owner wants. The zero value lets it work always.
type Settings struct {
	Schedule      Schedule
	OnBattery     bool          // work on battery too
	IdleOnly      time.Duration // work after nobody touched the computer for so long; 0: always
	Fullscreen    bool          // stop while something fills the screen
	GameMode      bool          // stop while the desktop says that a game runs
	ExclusiveApps []string      // stop while one of these runs
	MaxTemp       int           // °C; 0: any
	OtherUtil     int           // percent of the GPU that others may use; 0: any
	OtherMemory   int64         // bytes of the GPU that others may hold; 0: any
	ResumeAfter   time.Duration // work again when the cause is gone for so long
}

// cooling is how many degrees below MaxTemp a device must be to work again.
const cooling = 8

// busyFor is how long another process must use the GPU before that counts:
// drawing a window does for a moment.
const busyFor = 5 * time.Second

// Observation is what there is to see of the machine. What a system does not
// tell is nil.
type Observation struct {
	Battery    *bool          // it runs on battery
	Idle       *time.Duration // since somebody touched it
	Fullscreen *bool
	GameMode   *bool
	Apps       []string // names of running programs
	GPUs       []GPU
	Temps      []Temp // of other devices
	CPU        *Load

	// Unseen says why something is nil that is looked for.
	Unseen map[Sight]string
}

// Load is what the processor and the memory are used for.
type Load struct {
	Util        int // percent of the time, of all processors
	UsedMemory  int64
	TotalMemory int64
}

// Temp is a temperature.
type Temp struct {
	Device  string
	Celsius int
}

// GPU is what is known of the device that is worked on.
type GPU struct {
	Name        string
	Celsius     *int
	Util        *int   // percent of the time, of all processes
	Watts       *int   // that it takes
	UsedMemory  *int64 // bytes, of all processes
	TotalMemory *int64
	OtherUtil   *int   // percent, of other processes
	OtherMemory *int64 // bytes, of other processes
}

// Policy decides. Its methods are called from one goroutine.
type Policy struct {
	settings Settings
	control  Control
	device   string // that is worked on

	hot       map[string]bool
	busySince time.Time // zero: not busy
	last      Verdict   // of those that settle
	gone      time.Time // when its cause was gone
}

// NewPolicy returns a policy that follows settings and control.
func NewPolicy(s Settings) *Policy { return &Policy{settings: s, hot: map[string]bool{}} }

// SetDevice names the device that is worked on, for pauses of single ones.
func (p *Policy) SetDevice(name string) { p.device = name }

// SetSettings and SetControl replace what the policy follows.
func (p *Policy) SetSettings(s Settings) { p.settings = s }

// SetControl replaces what a person asked for.
func (p *Policy) SetControl(c Control) { p.control = c }

// Decide says whether the machine may work at time now.
func (p *Policy) Decide(now time.Time, o Observation) Verdict {
	// All of them look at o each time, so that what they remember is true.
	temp, seen := p.temperature(o), p.seen(now, o)
	for _, v := range []Verdict{p.person(now), temp} {
		if !v.Works() {
			return v
		}
	}
	if !seen.Works() {
		return seen
	}
	if s := p.settings.Schedule; !s.Active(now) {
		return Verdict{OffHours, "the schedule does not allow it now", `change it with "mootd config set work.schedule"`, s.Next(now)}
	}
	return Verdict{}
}

// person is what somebody decided.
func (p *Policy) person(now time.Time) Verdict {
	c := p.control
	pause, device := c.paused(now, p.device)
	switch {
	case pause != nil:
		v := Verdict{Reason: Paused, Text: "it was paused", Do: `go on with "mootd resume"`, Until: pause.Until}
		if device != "" {
			v.Text, v.Do = device+" was paused", fmt.Sprintf("go on with %q", "mootd resume --device "+device)
		}
		if pause.Note != "" {
			v.Text += ": " + pause.Note
		}
		return v
	case !c.Consent: // before Finished, which computes what is under way
		return Verdict{Reason: Consent, Text: "nobody has agreed yet that this machine works for others", Do: `start it with "mootd --yes", or join a run`}
	case c.Finish:
		return Verdict{Reason: Finished, Text: "it was asked to finish and takes no further work", Do: `go on with "mootd resume"`}
	}
	return Verdict{}
}

// temperature has hysteresis: what was too hot must cool down first.
func (p *Policy) temperature(o Observation) Verdict {
	limit := p.settings.MaxTemp
	temps := o.Temps
	for _, g := range o.GPUs {
		if g.Celsius != nil {
			temps = append(temps, Temp{g.Name, *g.Celsius})
		}
	}
	var worst *Temp
	seen := map[string]bool{}
	for i, t := range temps {
		bound := limit
		if p.hot[t.Device] {
			bound = limit - cooling
		}
		seen[t.Device] = limit > 0 && t.Celsius > bound
		if seen[t.Device] && (worst == nil || t.Celsius > worst.Celsius) {
			worst = &temps[i]
		}
	}
	p.hot = seen
	if worst == nil {
		return Verdict{}
	}
	return Verdict{
		Reason: Hot, Text: fmt.Sprintf("%s has %d °C; it goes on at %d °C", worst.Device, worst.Celsius, limit-cooling),
		Do: "it cools down by itself; work.max_temp_c and work.duty_percent set how hot it gets",
	}
}

// seen is what the machine is used for. When the cause is gone it waits for a
// while: a game that loads the next level is not over.
func (p *Policy) seen(now time.Time, o Observation) Verdict {
	v := p.use(now, o)
	switch {
	case !v.Works():
		p.last, p.gone = v, time.Time{}
		return v
	case p.last.Works():
		return v
	case p.gone.IsZero():
		p.gone = now
	}
	until := p.gone.Add(p.settings.ResumeAfter)
	if !now.Before(until) {
		p.last = Verdict{}
		return Verdict{}
	}
	return Verdict{Settling, fmt.Sprintf("it goes on soon; before, %s", p.last.Text), "work.resume_after_seconds sets how long it waits", until}
}

func (p *Policy) use(now time.Time, o Observation) Verdict {
	s := p.settings
	busy := p.busy(now, o)
	if app, ok := running(s.ExclusiveApps, o.Apps); ok {
		return Verdict{Reason: Exclusive, Text: fmt.Sprintf("%s is running", app), Do: "work.exclusive_apps lists what it makes way for"}
	}
	switch {
	case s.GameMode && is(o.GameMode):
		return Verdict{Reason: Game, Text: "a game is running (GameMode)", Do: byItself}
	case s.Fullscreen && is(o.Fullscreen):
		return Verdict{Reason: Fullscreen, Text: "something fills the screen", Do: byItself}
	case !busy.Works():
		return busy
	case !s.OnBattery && is(o.Battery):
		return Verdict{Reason: OnBattery, Text: "the computer runs on battery", Do: "plug it in, or set work.on_battery = true"}
	case s.IdleOnly > 0 && o.Idle == nil:
		// Who wants it to work when nobody is there wants no guess.
		return Verdict{
			Reason: InUse, Text: "it is not known whether somebody uses the computer: " + cmp.Or(o.Unseen[SightIdle], "this system does not tell"),
			Do: "set work.idle_minutes = 0, and name what it makes way for in work.exclusive_apps",
		}
	case s.IdleOnly > 0 && *o.Idle < s.IdleOnly:
		return Verdict{InUse, fmt.Sprintf("the computer is in use; it works after %s without input", s.IdleOnly), byItself, now.Add(s.IdleOnly - *o.Idle)}
	}
	return Verdict{}
}

// busy looks at what other processes do on the GPU.
func (p *Policy) busy(now time.Time, o Observation) Verdict {
	s := p.settings
	var v Verdict
	for _, g := range o.GPUs {
		switch {
		case s.OtherMemory > 0 && g.OtherMemory != nil && *g.OtherMemory > s.OtherMemory:
			v = Verdict{Reason: OtherGPU, Text: fmt.Sprintf("another process holds %d MiB of %s", *g.OtherMemory>>20, g.Name), Do: byItself}
		case s.OtherUtil > 0 && g.OtherUtil != nil && *g.OtherUtil > s.OtherUtil:
			v = Verdict{Reason: OtherGPU, Text: fmt.Sprintf("another process uses %d %% of %s", *g.OtherUtil, g.Name), Do: byItself}
		}
	}
	if v.Works() {
		p.busySince = time.Time{}
		return v
	}
	if p.busySince.IsZero() {
		p.busySince = now
	}
	if now.Sub(p.busySince) < busyFor {
		return Verdict{}
	}
	return v
}

// byItself is what to do where nothing need be done.
const byItself = "nothing: it goes on by itself when that is over"

func is(b *bool) bool { return b != nil && *b }

// running finds one of names among the running programs. Case and a .exe at
// the end make no difference.
func running(names, apps []string) (string, bool) {
	plain := func(s string) string { return strings.TrimSuffix(strings.ToLower(s), ".exe") }
	for _, name := range names {
		for _, app := range apps {
			if plain(name) == plain(app) {
				return app, true
			}
		}
	}
	return "", false
}
