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
	mu sync.Mutex
	// guarded by mu
	waiting map[string]*batch // by question, those that were not begun
	busy    map[string]bool   // questions that are being answered
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
	return &shared{waiting: make(map[string]*batch), busy: make(map[string]bool)}
}

// ask returns the answer to key, by compute, which does not end before ctx of
// the server does: others wait for it too.
func (s *shared) ask(ctx context.Context, key string, compute func() ([]byte, error)) ([]byte, error) {
	s.mu.Lock()
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
	s.mu.Unlock()
	if lead {
		// It computes even if its own asker goes away: others may have come.
		go func() {
			<-b.ready
			b.body, b.err = compute()
			close(b.done)
			s.mu.Lock()
			defer s.mu.Unlock()
			if next := s.waiting[key]; next != nil {
				s.begin(key, next)
			} else {
				delete(s.busy, key)
			}
		}()
	}
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
		b, err := s.shared.ask(r.Context(), r.URL.Path+"?"+r.URL.RawQuery, func() (b []byte, err error) {
			defer func() {
				if p := recover(); p != nil {
					err = s.panicked(r, p)
				}
			}()
			ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), answerTimeout)
			defer cancel()
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
