package app

import (
	"sync"
	"time"
)

// perRun remembers something of each run that is asked about, for as long as
// somebody asks. The zero value is ready.
type perRun[T any] struct {
	mu   sync.Mutex
	runs map[string]forRun[T] // guarded by mu, by ID
}

type forRun[T any] struct {
	value  *T
	forget *time.Timer
}

// keptFor is how long what is remembered of a run is kept that nobody asks for.
const keptFor = 30 * time.Minute

// of returns what is remembered of a run, and keeps it for a while.
func (l *perRun[T]) of(id string) *T {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.runs == nil {
		l.runs = make(map[string]forRun[T])
	}
	r, ok := l.runs[id]
	if !ok {
		r.value = new(T)
		r.forget = time.AfterFunc(keptFor, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.runs[id].value == r.value {
				delete(l.runs, id)
			}
		})
		l.runs[id] = r
	}
	r.forget.Reset(keptFor)
	return r.value
}
