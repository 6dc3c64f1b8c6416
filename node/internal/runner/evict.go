package runner

import (
	"context"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
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

// KeptBytes is how much of the disk a run's states and deltas take at most.
func KeptBytes(l *fold.Layout, codecBits, seats int, rounds uint64) int64 {
	each := roundBytes(l, codecBits, seats)
	return each * int64(min(rounds, uint64(max(keepRounds, keepRoundBytes/each))))
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
	var keep []cid.Cid
	for n := last + 1; n <= head; n++ {
		e, ok := r.ledger.Entry(n)
		if !ok {
			continue
		}
		// One that is not local (whole) has no blocks to lose.
		if missing, _, _, err := r.hub.o.Store.Missing(ctx, e.State); err == nil && len(missing) == 0 {
			keep = append(keep, e.State)
		}
	}
	for n := first; n <= last; n++ {
		k, _, ok := r.ledger.At(n)
		if !ok {
			continue
		}
		gone := []cid.Cid{k.Record.State}
		for _, c := range k.Record.Contributions {
			gone = append(gone, c.Delta)
		}
		for _, c := range gone {
			if _, err := r.hub.o.Store.Delete(ctx, c, keep...); err != nil && ctx.Err() == nil {
				r.log.DebugContext(ctx, "was not removed", "shard", c, "err", err)
			}
		}
	}
}
