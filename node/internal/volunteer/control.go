package volunteer

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Control is what a person asked the node for. It outlives the process.
type Control struct {
	// Consent is that this machine may work for others.
	Consent bool `json:"consent"`
	// Pause, if not nil, is a pause.
	Pause *Pause `json:"pause,omitempty"`
	// Devices are pauses of single devices, by name: cpu, cuda:0. One counts
	// while the node computes on that device.
	Devices map[string]Pause `json:"devices,omitempty"`
	// Finish takes no further work after what is under way; Exit then ends
	// the daemon.
	Finish bool `json:"finish,omitempty"`
	Exit   bool `json:"exit,omitempty"`
}

// Pause is a pause from Since until Until, or, if that is zero, until it is
// ended.
type Pause struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until,omitzero"`
	Note  string    `json:"note,omitempty"`
}

// paused returns the pause that is in effect, and the device if it is that of
// one. Of two it is the one that lasts longer.
func (c Control) paused(now time.Time, device string) (p *Pause, of string) {
	if c.Pause != nil && c.Pause.lasts(now) {
		p = c.Pause
	}
	if d, ok := c.Devices[device]; ok && d.lasts(now) && (p == nil || !p.Until.IsZero() && (d.Until.IsZero() || d.Until.After(p.Until))) {
		p, of = &d, device
	}
	return p, of
}

func (p *Pause) lasts(now time.Time) bool { return p.Until.IsZero() || now.Before(p.Until) }

// maxControl bounds the file in bytes.
const maxControl = 64 << 10

// LoadControl reads path. Of a file that is not there the error is
// fs.ErrNotExist, and the Control the zero one.
func LoadControl(path string) (Control, error) {
	var c Control
	f, err := os.Open(path)
	if err != nil {
		return c, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return c, err
	}
	if info.Size() > maxControl {
		return c, fmt.Errorf("%s has %d bytes, more than a pause needs", path, info.Size())
	}
	if err := json.NewDecoder(f).Decode(&c); err != nil {
		return Control{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Save writes c to path, durably.
func (c Control) Save(path string) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // there when something failed
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename in dir durable, where the system can.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	_ = d.Sync() // Windows cannot
	return nil
}
