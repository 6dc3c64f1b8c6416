package runner

import (
	"context"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

func (r *Runner) emitCommit(c *msg.Commit) {
	loss := float64(c.LossMicro) * 1e-6
	r.emit(api.Event{Type: api.EventCommit, N: uint64(c.Round), Peer: c.Peer.String(), Tokens: c.Tokens, Loss: &loss})
}

// check pulls and checks a delta. What is not here when the round is decided
// is not waited for.
func (r *Runner) check(e round.Check) {
	ctx := r.scopes.of(e.Round)
	r.copies.announce(e.Round, e.CID)
	r.running.Go(func() {
		if !acquire(ctx, r.checks) {
			return
		}
		defer func() { <-r.checks }()
		began := time.Now()
		reason := r.deltas.check(ctx, e.Commit)
		if ctx.Err() != nil {
			return
		}
		if reason == msg.Held {
			r.emitCommit(e.Commit)
			r.log.DebugContext(ctx, "delta was checked", "round", e.Round, "peer", e.Commit.Peer, "took", time.Since(began))
		} else {
			r.log.WarnContext(ctx, "delta was refused", "round", e.Round, "peer", e.Commit.Peer, "reason", reason)
		}
		r.post(ctx, round.Checked{Commit: e.CID, Reason: reason})
		if reason == msg.Held {
			r.compare(ctx, e.Commit, e.CID)
		}
	})
}

// compare looks for copies among the deltas of a round, when there is one more.
func (r *Runner) compare(ctx context.Context, c *msg.Commit, id cid.Cid) {
	d, err := r.deltas.get(ctx, c.Delta, c.Round, c.Peer)
	if err != nil {
		return // the scope ended: it was here a moment ago
	}
	head, ok := r.ledger.Link(c.Head)
	if !ok {
		return // it was checked against it
	}
	for _, id := range r.copies.found(c.Round, id, d, r.layout.Params(), comparableDeltas(len(head.Record.NextSeats))) {
		r.log.WarnContext(ctx, "delta is a copy of another seat's", "round", c.Round, "commit", id)
		r.post(ctx, round.Checked{Commit: id, Reason: msg.Copy})
	}
}

// fold computes the next state, again and again until it has all it needs or
// the round is decided.
func (r *Runner) fold(e round.Fold) {
	ctx := r.scopes.of(e.Round)
	r.running.Go(func() {
		if !acquire(ctx, r.folds) {
			return
		}
		defer func() { <-r.folds }()
		for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
			began := time.Now()
			ev, err := r.compute(ctx, e)
			if err == nil {
				r.log.DebugContext(ctx, "state was folded", "round", e.Round, "deltas", len(e.Inputs), "took", time.Since(began))
				r.post(ctx, ev)
				return
			}
			if ctx.Err() != nil {
				return
			}
			r.log.WarnContext(ctx, "fold has to wait", "round", e.Round, "err", err)
			if !wait(ctx, pause) {
				return
			}
		}
	})
}

func (r *Runner) compute(ctx context.Context, e round.Fold) (round.Folded, error) {
	if e.Cell {
		return r.foldCell(ctx, e)
	}
	next, applied, err := e.Compute(payloads{ctx, r, e.Round}, r.manifest.FoldOuter())
	if err != nil {
		return round.Folded{}, fmt.Errorf("fold: %w", err)
	}
	id, err := r.states.put(ctx, next)
	if err != nil {
		return round.Folded{}, err
	}
	return round.Folded{ID: e.ID, State: id, Applied: applied}, nil
}

// payloads brings what a fold of a round is made of.
type payloads struct {
	ctx   context.Context
	r     *Runner
	round msg.Round
}

// State implements round.Payloads.
func (p payloads) State(id cid.Cid) (*fold.State, error) { return p.r.states.get(p.ctx, id) }

// Delta implements round.Payloads.
func (p payloads) Delta(in round.Input) (*fold.Delta, error) {
	return p.r.deltas.getBits(p.ctx, in.Delta, int(in.Bits), p.round, in.Peer)
}

// syncPatience is how long one peer is asked for records, whatever it gives: others
// are not asked meanwhile.
const syncPatience = 3 * time.Minute

// sync asks a peer for the records that follow ours. One request is under way
// at a time; what is asked for meanwhile is asked for again later.
func (r *Runner) sync(ctx context.Context, e round.Sync) {
	if !r.syncing.CompareAndSwap(false, true) {
		return
	}
	r.running.Go(func() {
		defer r.syncing.Store(false)
		asking, cancel := context.WithTimeout(ctx, syncPatience)
		defer cancel()
		if !e.Branch.Defined() && !r.proveHead(asking, e.From) {
			return // the head is proven and its records are here, or another peer will be asked
		}
		protocol, req := syncProtocol, syncRequest{Run: r.id}
		switch {
		case e.Branch.Defined():
			protocol, req.Locator = branchProtocol, []cid.Cid{e.Branch}
		case e.After.Defined():
			req.Locator = append([]cid.Cid{e.After}, r.ledger.Locator(maxLocator-1)...)
		default:
			req.Locator = r.ledger.Locator(maxLocator - 1)
		}
		b, err := r.ask(asking, e.From, protocol, req.encode())
		var items []syncItem
		if err == nil {
			items, err = decodeSyncItems(b)
		}
		if err != nil {
			if ctx.Err() == nil {
				r.log.WarnContext(ctx, "records were not brought", "peer", e.From, "err", err)
			}
			return
		}
		if len(items) > 0 {
			r.post(ctx, round.Offered{From: e.From, Items: items})
		}
	})
}

// acquire takes a slot, unless ctx ends first.
func acquire(ctx context.Context, slots chan struct{}) bool {
	select {
	case slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}
