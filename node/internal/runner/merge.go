package runner

import (
	"context"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
)

// mergeWorse is how much worse than the better one of two states their merge may
// be.
const mergeWorse = 1.005

// mergeJob is to find out whether a branch that lost is worth merging.
type mergeJob round.Gate

// tryMerge measures two states and the one between them.
func (w *worker) tryMerge(ctx context.Context, j mergeJob) (bool, error) {
	held, err := w.samples.HeldOut(ctx, int(w.manifest.EvalSamples))
	if err != nil || len(held) == 0 {
		return false, fmt.Errorf("read held-out samples (%d): %w", len(held), err)
	}
	measure := func(st *fold.State) (float64, error) {
		values := make([]float32, len(st.Theta))
		fold.ToFloat32(values, st.Theta)
		if err := w.trainer.SetAdapter(values); err != nil {
			return 0, fmt.Errorf("set adapter: %w", err)
		}
		w.pos.Head = "" // the adapter is not a round's any more
		loss, _, err := w.trainer.Eval(ctx, held)
		return loss, err
	}
	var states []*fold.State
	for _, id := range []cid.Cid{j.Ours, j.Theirs} {
		st, err := w.states.get(ctx, id)
		if err != nil {
			return false, err
		}
		states = append(states, st)
	}
	merged, err := fold.Merge(states[0], states[0], states[1], j.WeightQ16)
	if err != nil {
		return false, err
	}
	var losses [3]float64
	for i, st := range append(states, merged) {
		if losses[i], err = measure(st); err != nil {
			return false, err
		}
	}
	w.log.InfoContext(ctx, "branch that lost was measured", "head", j.Head, "ours", losses[0], "theirs", losses[1], "merged", losses[2])
	return passes(losses[0], losses[1], losses[2]), nil
}

// passes is false as well when one of the losses is no number.
func passes(ours, theirs, merged float64) bool {
	return merged <= mergeWorse*ours && merged <= mergeWorse*theirs
}

// tryMerge measures when there is nothing to train. A later job takes its
// place.
func (d *device) tryMerge(j mergeJob) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.merge = &j
	d.signal()
}

func (d *device) doMerge(ctx, wctx context.Context, j *mergeJob) {
	wctx, cancel := context.WithCancel(wctx)
	defer cancel()
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	ok, err := d.w.tryMerge(wctx, *j)
	if err != nil && wctx.Err() != nil {
		return // it is tried again when there is nothing to train
	}
	d.mu.Lock()
	if d.merge == j {
		d.merge = nil
	}
	d.mu.Unlock()
	if err != nil {
		d.r.log.WarnContext(ctx, "branch that lost was not measured", "head", j.Head, "err", err)
		return
	}
	d.r.post(ctx, round.Gated{Head: j.Head, Passes: ok})
}
