package runner

import (
	"context"
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/proto/trace"
)

const (
	// keepRoundBytes is how much of a run's states and deltas stays on disk.
	keepRoundBytes = 2 << 30
	// keepRounds of them stay in any case: late joiners and a fold that is
	// behind need them.
	keepRounds = 4
)

// roundBytes is what a round adds to the disk.
func roundBytes(l *fold.Layout, codecBits, seats int) int64 {
	return fold.StateBytes(l) + int64(seats)*fold.EncodedBytes(l, codecBits)
}

// KeptBytes is how much of the disk a run's states, deltas and own traces take at
// most.
func KeptBytes(l *fold.Layout, m *run.Manifest) int64 {
	each := roundBytes(l, int(m.CodecBits), int(m.Seats))
	kept := each * int64(min(m.MaxRounds, uint64(max(keepRounds, keepRoundBytes/each))))
	if m.Trust.RetracePPM > 0 {
		kept += keepTraces * traceBytes(l, m)
		if m.Inner.OverlapSteps > 0 {
			kept += traceBytes(l, m) // one more is begun before the others go
		}
	}
	return kept
}

// traceBytes is what the trace of a round adds to the disk.
func traceBytes(l *fold.Layout, m *run.Manifest) int64 {
	movement := fold.EncodedBytes(l, trace.MovementBits)
	part := movement + trace.MomentsBytes(trace.MaxVectors, l.Params())
	return int64(trace.Parts(uint64(m.Inner.MaxSteps), uint64(m.Inner.MaxSteps)))*part + movement
}

// evict removes states and deltas that nobody will ask for, so that a run does
// not fill the disk.
func (l *driver) evict(ctx context.Context, head msg.Round) {
	r := l.r
	r.deltas.forget(head) // of this round and later ones stay in memory
	keep := msg.Round(max(keepRounds, keepRoundBytes/roundBytes(r.layout, int(r.manifest.CodecBits), len(r.ledger.Head().Record.Seats))))
	if head <= keep {
		return
	}
	upTo := head - keep
	first := max(l.evicted+1, 1)
	if upTo < first {
		return
	}
	l.evicted = upTo
	r.running.Go(func() { r.remove(ctx, first, upTo, head) })
}

// remove deletes what belongs to rounds first to last alone.
func (r *Runner) remove(ctx context.Context, first, last, head msg.Round) {
	var states, keep []cid.Cid
	for n := last + 1; n <= head; n++ {
		if e, ok := r.ledger.Entry(n); ok {
			states = append(states, e.State)
		}
	}
	if t := r.ledger.Head().Record.Trend; t != nil && t.BestState.Defined() {
		states = append(states, t.BestState) // the run may go back to it
	}
	for _, c := range states {
		// One that is not local (whole) has no blocks to lose.
		if missing, _, _, err := r.hub.o.Store.Missing(ctx, c); err == nil && len(missing) == 0 {
			keep = append(keep, c)
		}
	}
	for n := first; n <= last; n++ {
		k, _, ok := r.ledger.At(n)
		if !ok {
			continue
		}
		gone := []cid.Cid{k.Record.State}
		gone = slices.DeleteFunc(gone, func(c cid.Cid) bool { return slices.ContainsFunc(keep, c.Equals) })
		for _, c := range k.Record.Contributions {
			gone = append(gone, c.Delta)
		}
		r.removeFiles(ctx, gone, keep...)
	}
	r.removeLeftovers(ctx, last, keep)
}
