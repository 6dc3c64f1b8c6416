package runner

import (
	"context"
	"sync"

	"github.com/moot-net/moot/node/api"
)

// stage is how far a Runner came before it takes part, and how it ended.
type stage struct {
	mu       sync.Mutex
	progress api.Progress  // guarded by mu; of what is being pulled
	pulled   bool          // guarded by mu; model and data are here
	met      bool          // guarded by mu; a member took this node for one
	ready    bool          // guarded by mu
	ended    bool          // guarded by mu
	err      error         // guarded by mu; why it ended
	changed  chan struct{} // guarded by mu; closed at the next change
}

func (s *stage) change(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *stage) tell(p api.Progress) { s.change(func() { s.progress = p }) }
func (s *stage) havePulled()         { s.change(func() { s.pulled = true }) }
func (s *stage) end(err error)       { s.change(func() { s.ended, s.err = true, err }) }

func (s *stage) haveReady() { s.once(&s.ready) }
func (s *stage) haveMet()   { s.once(&s.met) }

func (s *stage) once(what *bool) {
	s.mu.Lock()
	already := *what
	s.mu.Unlock()
	if !already {
		s.change(func() { *what = true })
	}
}

// snapshot is a stage at one moment.
type snapshot struct {
	progress                  api.Progress
	pulled, met, ready, ended bool
	err                       error
	changed                   <-chan struct{}
}

func (s *stage) now() snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return snapshot{s.progress, s.pulled, s.met, s.ready, s.ended, s.err, s.changed}
}

// Ready waits until manifest, model, data and state are here and a seat was
// asked for, and tells progress how far that is. It fails when ctx is done or
// Run ended.
func (r *Runner) Ready(ctx context.Context, progress api.ProgressFunc) error {
	var told api.Progress
	for {
		s := r.stage.now()
		if s.progress != told {
			told = s.progress
			progress(told)
		}
		switch {
		case s.ready:
			return nil
		case s.ended && s.err != nil:
			return s.err
		case s.ended:
			return api.Errorf(api.CodeInterrupted, "%w", errEnded)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.changed:
		}
	}
}
