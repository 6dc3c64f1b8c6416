package volunteer

import (
	"io/fs"
	"os"
	"runtime"
)

// Observer looks at the machine.
type Observer struct {
	root fs.FS        // nil where the system has no files that tell
	gpus func() []GPU // may be nil
}

// NewObserver returns an observer of this machine. gpus, if not nil, tells
// about the devices that are worked on.
func NewObserver(gpus func() []GPU) *Observer {
	o := &Observer{gpus: gpus}
	if runtime.GOOS == "linux" {
		o.root = os.DirFS("/")
	}
	return o
}

// Observe returns what there is to see. Apps are looked at only if some are
// to be made way for.
func (o *Observer) Observe(s Settings) Observation {
	var v Observation
	if o.root != nil {
		v.Battery = readBattery(o.root)
		v.Temps = readTemps(o.root)
		if len(s.ExclusiveApps) > 0 {
			v.Apps = readApps(o.root)
		}
	}
	if o.gpus != nil {
		v.GPUs = o.gpus()
	}
	return v
}
