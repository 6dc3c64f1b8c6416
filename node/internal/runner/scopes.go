package runner

import (
	"context"
	"sync"

	"github.com/moot-net/moot/proto/msg"
)

// scopes end what was begun for a round once that round is decided.
type scopes struct {
	mu     sync.Mutex
	ctx    context.Context // guarded by mu; set by begin
	rounds map[msg.Round]scope
	closed bool
}

type scope struct {
	ctx    context.Context
	cancel context.CancelFunc
}

func newScopes() *scopes { return &scopes{rounds: make(map[msg.Round]scope)} }

// begin makes ctx the parent of all scopes.
func (s *scopes) begin(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctx, s.closed = ctx, false
}

// of returns the context of what is done for a round.
func (s *scopes) of(n msg.Round) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, ok := s.rounds[n]; ok {
		return k.ctx
	}
	ctx, cancel := context.WithCancel(s.ctx)
	if s.closed {
		cancel()
	}
	s.rounds[n] = scope{ctx, cancel}
	return ctx
}

// decided ends what was begun for rounds up to n.
func (s *scopes) decided(n msg.Round) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r, k := range s.rounds {
		if r <= n {
			k.cancel()
			delete(s.rounds, r)
		}
	}
}

// closeAll ends everything.
func (s *scopes) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for r, k := range s.rounds {
		k.cancel()
		delete(s.rounds, r)
	}
}
