package device

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/moot-net/moot/node/internal/cuda"
)

// Use is what a GPU is used for just now. What is not known is nil.
type Use struct {
	Name                  string
	Celsius, Busy, Watts  *int
	UsedBytes, TotalBytes *int64
	// OtherBytes and OtherBusy are what other processes hold, and how much of
	// the time they use it, in percent.
	OtherBytes *int64
	OtherBusy  *int
}

// watch looks at a GPU without taking anything on it.
type watch struct {
	read   func(bus string, since uint64) (cuda.Use, error)
	pid    int
	opened atomic.Bool // training was on it

	// owned by who calls Look
	bus, name string
	after     time.Time // it is asked for its bus again
	since     uint64
	self      bool // this process was among those on it
}

// askAgain is how long a GPU that cannot be used is left alone: to ask it takes
// memory on it for a moment.
const askAgain = time.Minute

// ErrAlike is why other processes cannot be told from this one.
var ErrAlike = errors.New("other processes on the GPU cannot be told from this one in this container")

// Look says what the GPU is used for. It is called from one goroutine.
func (g *GPU) Look() (Use, error) {
	w := &g.watch
	if w.bus == "" {
		if time.Now().Before(w.after) {
			return Use{}, fmt.Errorf("cuda:%d cannot be used", g.ordinal)
		}
		i, err := g.query(g.ordinal)
		if err != nil {
			w.after = time.Now().Add(askAgain)
			return Use{}, err
		}
		w.bus, w.name = i.Bus, i.Name
	}
	u, err := w.read(w.bus, w.since)
	if err != nil {
		return Use{}, fmt.Errorf("cuda:%d: %w", g.ordinal, err)
	}
	w.since = u.Time
	return w.tell(u)
}

// tell separates this process from others.
func (w *watch) tell(u cuda.Use) (Use, error) {
	out := Use{Name: w.name, Celsius: u.Celsius, Busy: u.Busy, UsedBytes: u.UsedBytes, TotalBytes: u.TotalBytes}
	if u.Watts != nil {
		out.Watts = new(int(math.Round(*u.Watts)))
	}
	if u.Processes == nil {
		return out, nil
	}
	var held int64
	busy, known, here := 0, true, false
	for _, p := range u.Processes {
		switch {
		case p.PID == w.pid:
			here, w.self = true, true
			continue
		case p.UsedBytes == nil:
			known = false // as on Windows
		default:
			held += *p.UsedBytes
		}
		busy += p.Busy
	}
	if w.opened.Load() && !w.self && len(u.Processes) > 0 {
		return out, ErrAlike
	}
	if known {
		out.OtherBytes = &held
	}
	switch {
	case u.Shares:
		out.OtherBusy = new(min(busy, 100))
	case !here:
		out.OtherBusy = u.Busy // all of it is theirs
	}
	return out, nil
}
