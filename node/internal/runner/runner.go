package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/gossip"
	"github.com/moot-net/moot/node/internal/ledger"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

const (
	maxFolds  = 2  // at the same time
	maxChecks = 16 // likewise
)

type roundEvent = round.Event

// Runner takes part in one run: it pulls what the run needs, trains, and
// drives the round.
type Runner struct {
	// constant after Open
	hub      *Hub
	id       cid.Cid
	manifest *run.Manifest
	rules    *round.Rules
	ground   *ground
	fetcher  fetcher
	store    roundStore
	badge    badge
	dir      string
	log      *slog.Logger
	layout   *fold.Layout
	genesis  *fold.State
	ledger   *ledger.Ledger
	states   *states
	deltas   *deltas
	copies   copies
	events   chan roundEvent
	moves    chan move
	scopes   *scopes
	folds    chan struct{} // a slot for each fold under way
	checks   chan struct{} // likewise
	telling  chan struct{} // likewise, for each message that a seat is sent

	view    atomic.Pointer[round.View] // nil before the loop began
	rate    atomic.Uint64              // tokens per second, 1e-3
	syncing atomic.Bool
	proven  atomic.Pointer[round.Link] // that others are at, before all records up to it are here; nil: none
	whole   atomic.Bool                // the run is followed by all its records: its proofs are in doubt
	doubts  atomic.Int32               // proofs whose head others did not know
	filling atomic.Bool
	brought atomic.Int64   // bytes of records, also of those that were refused
	running sync.WaitGroup // what the loop began

	differing   sync.Mutex // while a difference is computed
	differences differences

	stage  stage
	online *online
}

// Run takes part until ctx is done, and then returns nil with the step that is
// under way finished and saved. Without network or seat it goes on trying. An
// error means that this node cannot go on with the run; Summary says so too.
func (r *Runner) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	if err := r.draw(); err != nil {
		r.stage.end(err)
		return fmt.Errorf("run %s: %w", r.id, err)
	}
	g.Go(func() error { return r.hub.o.Host.Rendezvous(gctx, r.id.String()) })
	g.Go(func() error { return r.present(gctx) })
	g.Go(func() error { return r.watchOnline(gctx) })
	g.Go(func() error { return r.takePart(gctx) })
	err := g.Wait()
	if ctx.Err() != nil {
		err = nil // what failed did so because it was ended
	}
	r.stage.end(err)
	var s api.Run
	r.tellState(&s, r.ledger.Head())
	r.emit(api.Event{Type: api.EventRunState, State: string(s.State), Why: s.Why})
	if err != nil {
		return fmt.Errorf("run %s: %w", r.id, err)
	}
	return nil
}

func (r *Runner) takePart(ctx context.Context) error {
	if id, err := r.states.put(ctx, r.genesis); err != nil {
		return err
	} else if want := r.genesisState(); id != want {
		return fmt.Errorf("genesis state is %s, its record says %s", id, want)
	}
	d, err := r.prepare(ctx)
	if err != nil {
		return err
	}
	defer d.close()
	topic, err := r.hub.o.Gossip.Join(gossip.RunTopic(r.id), r.validate)
	if err != nil {
		return fmt.Errorf("join topic: %w", err)
	}
	defer func() { _ = topic.Leave() }() // there is nobody to tell

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.run(gctx) })
	g.Go(func() error {
		// What the loop began ends with it, also if it is the loop that fails.
		lctx, end := context.WithCancel(gctx)
		defer r.running.Wait()
		defer r.scopes.closeAll()
		defer end()
		return r.loop(lctx, topic, d)
	})
	return g.Wait()
}

func (r *Runner) genesisState() cid.Cid {
	e, _ := r.ledger.Entry(0)
	return e.State
}

// Close gives the run's files back. Run must have returned, or never begun.
func (r *Runner) Close() error {
	r.hub.mu.Lock()
	delete(r.hub.runs, r.id)
	r.hub.mu.Unlock()
	return r.ledger.Close()
}

// ID is the run's ID.
func (r *Runner) ID() cid.Cid { return r.id }

// Manifest is the run's manifest. It must not be changed.
func (r *Runner) Manifest() *run.Manifest { return r.manifest }

// Leave tells the others that this peer gives up its seat. It takes a moment,
// and its effect comes with the next round; the caller ends Run afterwards.
func (r *Runner) Leave(ctx context.Context) {
	if r.view.Load() == nil {
		return
	}
	r.post(ctx, round.Want{Seat: false})
	// The request is published again while Run goes on; some neighbours may
	// have missed the first.
	wait(ctx, 1500*time.Millisecond)
}

// post hands an event to the loop.
func (r *Runner) post(ctx context.Context, ev round.Event) {
	select {
	case r.events <- ev:
	case <-ctx.Done():
	}
}

func (r *Runner) emit(e api.Event) {
	e.Run = r.id.String()
	r.hub.o.Emit(e)
}

// StateAt returns the state after a decided round, nil for the head, or after
// the record head if that is defined; and the round, the record and the CID of
// the state. The state is pulled if it is not local. What does not exist gives
// an *api.Error with E_NOTFOUND.
func (r *Runner) StateAt(ctx context.Context, n *uint64, head cid.Cid) (Snapshot, error) {
	var k round.Link
	ok := true
	switch {
	case head.Defined():
		k, ok = r.ledger.Link(head)
	case n != nil:
		k, _, ok = r.ledger.At(msg.Round(*n))
	default:
		k = r.ledger.Head()
	}
	if !ok || k.Record == nil {
		what := "record " + head.String()
		if !head.Defined() {
			what = fmt.Sprintf("round %d", *n)
		}
		return Snapshot{}, api.Errorf(api.CodeNotFound, "run %s has no %s; its head is round %d", api.ShortID(r.id.String()), what, r.ledger.Head().Record.Round).
			WithHint("\"moot run show %s\" lists the rounds", api.ShortID(r.id.String()))
	}
	st, err := r.states.get(ctx, k.Record.State)
	if err != nil {
		return Snapshot{}, err
	}
	return Snapshot{Round: uint64(k.Record.Round), Head: k.ID, ID: k.Record.State, State: st}, nil
}

// Snapshot is the state after a round.
type Snapshot struct {
	Round uint64
	Head  cid.Cid // the record
	ID    cid.Cid // of the state
	State *fold.State
}

// wait returns after d, or false when ctx is done.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// errEnded is what Ready says of a run that is not running any more.
var errEnded = errors.New("the run was ended on this node")
