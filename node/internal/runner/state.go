package runner

import (
	"context"
	"fmt"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

// Store keeps the bytes of deltas and states, named by their CIDs.
type Store interface {
	PutBytes(ctx context.Context, data []byte) (cid.Cid, error)
	ReadBytes(ctx context.Context, root cid.Cid, limit int64) ([]byte, error)
}

// Fetcher makes a DAG local. It gives up only when ctx is done.
type Fetcher interface {
	Fetch(ctx context.Context, root cid.Cid, maxBytes int64, from []peer.ID) error
}

// states gives the states of a run by CID: the last few from memory, others
// from the store.
type states struct {
	store   Store
	fetcher Fetcher
	layout  *fold.Layout

	mu     sync.Mutex
	recent []stateEntry // guarded by mu; newest last, at most keepStates
}

type stateEntry struct {
	id    cid.Cid
	state *fold.State
}

// keepStates is how many states stay in memory: the head's, its parent's and
// the candidates of a disputed round.
const keepStates = 4

func (s *states) remember(id cid.Cid, st *fold.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.recent {
		if e.id == id {
			return
		}
	}
	s.recent = append(s.recent, stateEntry{id, st})
	if len(s.recent) > keepStates {
		s.recent = append(s.recent[:0], s.recent[1:]...)
	}
}

func (s *states) cached(id cid.Cid) *fold.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.recent {
		if e.id == id {
			return e.state
		}
	}
	return nil
}

// put makes a state available to this node and, through the store, to others.
func (s *states) put(ctx context.Context, st *fold.State) (cid.Cid, error) {
	id, err := s.store.PutBytes(ctx, st.Marshal())
	if err != nil {
		return cid.Undef, fmt.Errorf("store state: %w", err)
	}
	s.remember(id, st)
	return id, nil
}

// get returns the state id, pulling it from peers when it is not local.
func (s *states) get(ctx context.Context, id cid.Cid) (*fold.State, error) {
	if st := s.cached(id); st != nil {
		return st, nil
	}
	size := fold.StateBytes(s.layout)
	if err := s.fetcher.Fetch(ctx, id, size+dagOverhead(size), nil); err != nil {
		return nil, fmt.Errorf("fetch state %s: %w", id, err)
	}
	b, err := s.store.ReadBytes(ctx, id, size)
	if err != nil {
		return nil, fmt.Errorf("read state %s: %w", id, err)
	}
	st, err := fold.UnmarshalState(s.layout, b)
	if err != nil {
		return nil, fmt.Errorf("decode state %s: %w", id, err)
	}
	s.remember(id, st)
	return st, nil
}

// merge moves next by what a branch learned that lost.
func (s *states) merge(ctx context.Context, next *fold.State, m msg.Merge) (*fold.State, error) {
	base, err := s.get(ctx, m.Base)
	if err != nil {
		return nil, err
	}
	other, err := s.get(ctx, m.State)
	if err != nil {
		return nil, err
	}
	return fold.Merge(next, base, other, m.WeightQ16)
}

// dagOverhead bounds what the inner nodes of a file's DAG add to its bytes.
func dagOverhead(size int64) int64 { return 1024 + size>>10 }
