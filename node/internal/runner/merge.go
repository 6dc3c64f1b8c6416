package runner

import (
	"context"
	"fmt"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
)

// mergeWorse is how much worse than the better one of two states their merge may
// be.
const mergeWorse = 1.005

// mergeJob is to find out whether a branch that lost is worth merging.
type mergeJob round.Gate

// tryMerge measures two states and what a merge makes of them.
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
		w.disturbed()
		loss, _, err := w.trainer.Eval(ctx, held)
		return loss, err
	}
	ours, err := w.states.get(ctx, j.State)
	if err != nil {
		return false, err
	}
	merged, err := w.states.merge(ctx, ours, j.Merge)
	if err != nil {
		return false, err
	}
	theirs, err := w.states.get(ctx, j.Merge.State)
	if err != nil {
		return false, err
	}
	var losses [3]float64
	for i, st := range []*fold.State{ours, theirs, merged} {
		if losses[i], err = measure(st); err != nil {
			return false, err
		}
	}
	w.log.InfoContext(ctx, "branch that lost was measured", "head", j.Merge.Head, "ours", losses[0], "theirs", losses[1], "merged", losses[2])
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
		d.r.log.WarnContext(ctx, "branch that lost was not measured", "head", j.Merge.Head, "err", err)
		return
	}
	d.r.post(ctx, round.Gated{Head: j.Merge.Head, Passes: ok})
}
