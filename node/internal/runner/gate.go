package runner

import (
	"context"
	"sync"
	"time"
)

// Gate says whether the device may be used, and how much of the time. The zero
// Gate is open. Its methods may be called at the same time.
type Gate struct {
	mu      sync.Mutex
	closed  bool          // guarded by mu
	drained bool          // guarded by mu; what is under way may end, nothing else begins
	duty    int           // guarded by mu; percent of the time, 0: all of it
	changed chan struct{} // guarded by mu; closed at the next change, nil: nobody waits
}

// Set opens or closes the gate, and says how much of the time, in percent, is
// for work: after a step it rests. What is under way when it closes ends at
// once; the steps that were taken are saved.
func (g *Gate) Set(open bool, duty int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed == !open && g.duty == duty {
		return
	}
	g.closed, g.duty = !open, duty
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// Drain lets what is under way end, and nothing else begin, until it is undone.
func (g *Gate) Drain(drain bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.drained == drain {
		return
	}
	g.drained = drain
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// Draining reports whether nothing new begins.
func (g *Gate) Draining() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.drained
}

// Open reports whether work may go on.
func (g *Gate) Open() bool {
	open, _ := g.state()
	return open
}

// state returns whether the gate is open, and a channel that is closed when it
// may be another one.
func (g *Gate) state() (open bool, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.changed == nil {
		g.changed = make(chan struct{})
	}
	return !g.closed, g.changed
}

// rest waits as long as the duty asks for after work of so long.
func (g *Gate) rest(ctx context.Context, ending <-chan struct{}, worked time.Duration) {
	g.mu.Lock()
	duty := g.duty
	g.mu.Unlock()
	if duty <= 0 || duty >= 100 {
		return
	}
	t := time.NewTimer(worked * time.Duration(100-duty) / time.Duration(duty))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-ending:
	}
}

// whileOpen ends ctx when the gate closes. The function it returns gives back
// what that takes.
func (g *Gate) whileOpen(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for {
			open, changed := g.state()
			if !open {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, cancel
}
