package volunteer

import (
	"io/fs"
	"os"
	"runtime"
	"time"
)

// Sight is one of the things that an Observer looks for.
type Sight string

// The sights, each by the setting that needs it.
const (
	SightIdle       Sight = "work.idle_minutes"
	SightFullscreen Sight = "work.fullscreen"
	SightGame       Sight = "work.gamemode"
	SightBattery    Sight = "work.on_battery"
	SightHeat       Sight = "work.max_temp_c"
	SightApps       Sight = "work.exclusive_apps"
	SightGPU        Sight = "work.other_gpu_mb"
)

// Everything are settings for which an Observer looks at all there is.
func Everything() Settings {
	return Settings{IdleOnly: time.Minute, Fullscreen: true, GameMode: true, ExclusiveApps: []string{"-"}, MaxTemp: 100, OtherUtil: 100, OtherMemory: 1}
}

// Observer looks at the machine.
type Observer struct {
	root    fs.FS                 // nil where the system has no files that tell
	gpus    func() ([]GPU, error) // may be nil: the processor is worked on
	desktop func(Settings, *Observation)
	close   func()

	times cpuTimes // of the last look

	// looking, if not nil, has the answer of a desktop that was slow.
	looking chan Observation
}

// NewObserver returns an observer of this machine. gpus, if not nil, tells
// about the devices that are worked on. Close gives its connections back.
func NewObserver(gpus func() ([]GPU, error)) *Observer {
	o := &Observer{gpus: gpus}
	if runtime.GOOS == "linux" {
		o.root = os.DirFS("/")
	}
	d := newDesktop()
	o.desktop, o.close = d.look, d.close
	return o
}

// Close ends its connections.
func (o *Observer) Close() { o.close() }

// patience is how long a desktop may take to answer.
const patience = time.Second

// Observe returns what there is to see. What costs something is looked at only
// if the settings need it.
func (o *Observer) Observe(s Settings) Observation {
	v := o.lookAround(s)
	if o.root != nil {
		v.Battery = readBattery(o.root)
		v.Temps = readTemps(o.root)
		v.CPU = readLoad(o.root, &o.times)
		if len(s.ExclusiveApps) > 0 {
			v.Apps = readApps(o.root)
		}
	}
	if v.Battery == nil {
		v.unseen(SightBattery, "this system does not tell whether it runs on battery")
	}
	if o.gpus != nil {
		var err error
		if v.GPUs, err = o.gpus(); err != nil {
			v.unseen(SightGPU, err.Error())
		}
	}
	if len(v.Temps) == 0 && !knowsHeat(v.GPUs) {
		v.unseen(SightHeat, "this system tells no temperature")
	}
	return v
}

func knowsHeat(gpus []GPU) bool {
	for _, g := range gpus {
		if g.Celsius != nil {
			return true
		}
	}
	return false
}

// lookAround asks the desktop. One that does not answer holds nobody up.
func (o *Observer) lookAround(s Settings) Observation {
	if o.looking == nil {
		answer := make(chan Observation, 1)
		o.looking = answer
		go func() {
			var v Observation
			o.desktop(s, &v)
			answer <- v
		}()
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case v := <-o.looking:
		o.looking = nil
		return v
	case <-t.C:
	}
	var v Observation
	for _, sight := range []Sight{SightIdle, SightFullscreen, SightGame} {
		v.unseen(sight, "the desktop does not answer")
	}
	return v
}

// unseen notes why something cannot be seen.
func (v *Observation) unseen(s Sight, why string) {
	if v.Unseen == nil {
		v.Unseen = map[Sight]string{}
	}
	v.Unseen[s] = why
}

// needs are what has to be seen for the settings to have an effect.
func (s *Settings) needs() map[Sight]bool {
	return map[Sight]bool{
		SightIdle: s.IdleOnly > 0, SightFullscreen: s.Fullscreen, SightGame: s.GameMode, SightBattery: !s.OnBattery,
		SightHeat: s.MaxTemp > 0, SightApps: len(s.ExclusiveApps) > 0, SightGPU: s.OtherUtil > 0 || s.OtherMemory > 0,
	}
}

// Blind returns which of the settings have no effect, and why: what they need
// cannot be seen.
func Blind(s Settings, v Observation) map[Sight]string {
	out := map[Sight]string{}
	for sight, needed := range s.needs() {
		if why, ok := v.Unseen[sight]; ok && needed {
			out[sight] = why
		}
	}
	return out
}
