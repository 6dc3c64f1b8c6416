package api

import (
	"context"
	"net/http"
	"sync"
)

// shared answers many who ask the same at once with one computation. An answer
// is never older than its question: who comes while one is computed waits for
// the next, with all others who do.
type shared struct {
	life context.Context // of all computations; done when the server's is over
	end  context.CancelFunc
	// computing are those that were begun, or will be: none is added when ended.
	computing sync.WaitGroup

	mu sync.Mutex
	// guarded by mu
	waiting map[string]*batch // by question, those that were not begun
	busy    map[string]bool   // questions that are being answered
	ended   bool
}

// batch is one computation, and who waits for it.
type batch struct {
	ready chan struct{} // closed when it is this one's turn
	done  chan struct{} // closed when the answer is there
	led   bool          // somebody computes it, or will
	body  []byte
	err   error
}

func newShared() *shared {
	s := &shared{waiting: make(map[string]*batch), busy: make(map[string]bool)}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// stop ends what is computed, and waits for it until ctx is done.
func (s *shared) stop(ctx context.Context) {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.end()
	over := make(chan struct{})
	go func() {
		s.computing.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-ctx.Done(): // it does not look at its context
	}
}

// ask returns the answer to key, by compute, which goes on when ctx is done, for
// others wait for it too, and ends with life.
func (s *shared) ask(ctx context.Context, key string, compute func(life context.Context) ([]byte, error)) ([]byte, error) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil, Errorf(CodeRetry, "%v", errStopping)
	}
	b := s.waiting[key]
	if b == nil {
		b = &batch{ready: make(chan struct{}), done: make(chan struct{})}
		s.waiting[key] = b
		if !s.busy[key] {
			s.begin(key, b)
		}
	}
	lead := !b.led
	b.led = true
	if lead {
		// It computes even if its own asker goes away: others may have come.
		s.computing.Go(func() {
			<-b.ready
			b.body, b.err = compute(s.life)
			close(b.done)
			s.mu.Lock()
			defer s.mu.Unlock()
			if next := s.waiting[key]; next != nil {
				s.begin(key, next)
			} else {
				delete(s.busy, key)
			}
		})
	}
	s.mu.Unlock()
	select {
	case <-b.done:
		return b.body, b.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// begin lets a batch compute; from now on who asks gets another. It needs mu.
func (s *shared) begin(key string, b *batch) {
	s.busy[key] = true
	delete(s.waiting, key)
	close(b.ready)
}

// once makes a handler, like get, that answers all who ask the same at once
// with one answer.
func once[T any](s *Server, fn func(ctx context.Context, r *http.Request) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, err := s.shared.ask(r.Context(), r.URL.Path+"?"+r.URL.RawQuery, func(life context.Context) (b []byte, err error) {
			defer func() {
				if p := recover(); p != nil {
					err = s.panicked(r, p)
				}
			}()
			ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), answerTimeout)
			defer cancel()
			defer context.AfterFunc(life, cancel)()
			v, err := fn(ctx, r)
			if err != nil {
				return nil, err
			}
			b, err = Marshal(v)
			return append(b, '\n'), err
		})
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.send(w, http.StatusOK, b)
	}
}
