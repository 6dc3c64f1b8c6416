package cpu

import (
	"sync"
	"sync/atomic"
)

// A task is a number of independent pieces of work.
type task interface {
	// piece does piece i on thread thread.
	piece(thread, i int)
}

// pool runs tasks on several goroutines, which live only as long as a task.
// Starting one costs less than a microsecond, and there is nothing to close.
type pool struct {
	threads int

	current task
	pieces  int64
	next    atomic.Int64
	wg      sync.WaitGroup
	// helpers are kept, because a go statement with arguments allocates.
	helpers []func()
}

func (p *pool) init(threads int) {
	p.threads = threads
	for i := 1; i < threads; i++ {
		p.helpers = append(p.helpers, func() {
			p.drain(i)
			p.wg.Done()
		})
	}
}

// do runs all pieces of t and returns when they are done.
func (p *pool) do(pieces int, t task) {
	if p.threads == 1 || pieces <= 1 {
		for i := range pieces {
			t.piece(0, i)
		}
		return
	}
	p.current, p.pieces = t, int64(pieces)
	p.next.Store(0)
	helpers := p.helpers[:min(len(p.helpers), pieces-1)]
	p.wg.Add(len(helpers))
	for _, h := range helpers {
		go h()
	}
	p.drain(0)
	p.wg.Wait()
	p.current = nil
}

func (p *pool) drain(thread int) {
	for {
		i := p.next.Add(1) - 1
		if i >= p.pieces {
			return
		}
		p.current.piece(thread, int(i))
	}
}
