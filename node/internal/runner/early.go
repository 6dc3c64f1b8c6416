package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

// While the deltas of a round travel, a seat takes the first steps of the next
// one, from a guess of the state that they will give: the fold of its own delta
// alone. When the head is known, what these steps moved is moved from its state.

// earlyJob is the training of a round whose head is not known.
type earlyJob struct {
	round   msg.Round
	earlier round.Earlier
	course  *msg.Course // of the head that the round before began from
	trace   cid.Cid     // own, of the round before
}

// trainEarly takes steps until there are as many as the run allows, or ctx is
// cancelled. What was done is saved.
func (w *worker) trainEarly(ctx context.Context, j earlyJob) error {
	w.restore(ctx)
	origin, err := w.guess(ctx, j.earlier, w.ownDelta)
	if err != nil {
		return err
	}
	if w.pos.Guess == nil || *w.pos.Guess != j.earlier || !w.resumesTrace(ctx, j.trace) {
		if err := w.begin(ctx, position{Guess: &j.earlier}, origin, j.trace); err != nil {
			return err
		}
	}
	in := &w.manifest.Inner
	return w.steps(ctx, leg{
		round: j.round, seed: sampleSeed(j.earlier.Head, w.self), skip: j.earlier.Steps * uint64(in.BatchSamples),
		rate: w.rateOf(j.course, Done{j.earlier.Trained, j.earlier.Tokens}), origin: origin, most: uint64(in.OverlapSteps),
		over: func() bool { return w.gate != nil && w.gate.Draining() }, // it would not come to a delta
	})
}

// guessed reports whether the steps that were taken early are the first ones of j.
func (w *worker) guessed(ctx context.Context, j job) bool {
	g := w.pos.Guess
	switch {
	case g == nil || w.pos.Steps == 0 || w.pos.Steps > w.mostSteps(j), !g.Head.Equals(j.earlier.Head):
		return false
	case w.traces() && !g.Delta.Equals(j.earlier.Delta):
		return false // nobody else could tell what they were taken from
	}
	return w.resumesTrace(ctx, j.before)
}

// turn moves what was trained early to the state that the round begins from. If it
// cannot, the round begins without.
func (w *worker) turn(ctx context.Context, j job, start []float32) bool {
	origin, err := w.guess(ctx, *w.pos.Guess, w.ownDelta)
	if err == nil {
		now := make([]float32, len(start))
		w.trainer.Adapter(now)
		moveTo(now, origin, start)
		err = w.trainer.SetAdapter(now)
	}
	if err == nil {
		w.pos.Head, w.pos.Early, w.pos.Guess = j.head.String(), w.pos.Steps, nil
		err = w.save()
	}
	if err != nil {
		w.log.WarnContext(ctx, "early steps were not usable, the round begins without", "round", j.round, "err", err)
		return false
	}
	w.log.DebugContext(ctx, "training went on from early steps", "round", j.round, "step", w.pos.Steps)
	return true
}

// moveTo makes values that are some way from one origin as far from another.
func moveTo(values, from, to []float32) {
	for i, v := range values {
		values[i] = to[i] - (from[i] - v)
	}
}

// guess is what early steps are taken from: the fold of a peer's own delta alone.
func (w *worker) guess(ctx context.Context, e round.Earlier, delta func(context.Context, cid.Cid, int64) ([]byte, error)) ([]float32, error) {
	st, err := w.states.get(ctx, e.State)
	if err != nil {
		return nil, err
	}
	b, err := delta(ctx, e.Delta, fold.EncodedBytes(w.layout, int(e.Bits)))
	if err != nil {
		return nil, err
	}
	d, err := fold.Decode(w.layout, b)
	if err != nil {
		return nil, fmt.Errorf("decode delta %s: %w", e.Delta, err)
	}
	next, _, err := fold.Fold(st, []fold.Input{{Delta: d, Tokens: 1, FactorQ16: fold.FactorFull}}, w.manifest.FoldOuter())
	if err != nil {
		return nil, fmt.Errorf("guess the next state: %w", err)
	}
	values := make([]float32, len(next.Theta))
	fold.ToFloat32(values, next.Theta)
	return values, nil
}

// ownDelta reads a delta that is stored.
func (w *worker) ownDelta(ctx context.Context, id cid.Cid, size int64) ([]byte, error) {
	b, err := w.store.ReadBytes(ctx, id, size)
	if err != nil {
		return nil, fmt.Errorf("read own delta %s: %w", id, err)
	}
	return b, nil
}

// disturbed notes that the adapter is not a round's any more: it was used to
// measure something. What was trained early is still needed, and saved.
func (w *worker) disturbed() {
	if w.pos.Guess != nil && w.pos.Steps > 0 {
		w.loaded = false
		return
	}
	w.pos.Head, w.pos.Guess = "", nil
}

// trainEarly begins to train a round whose head is not known when there is
// nothing else to do, in the place of any other training.
func (d *device) trainEarly(j earlyJob) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.job != nil {
		d.job = nil
		d.interrupt()
	}
	d.early = &j
	d.signal()
}

func (d *device) doEarly(ctx, wctx context.Context, j *earlyJob) {
	err := d.w.trainEarly(wctx, *j)
	if wctx.Err() != nil || ctx.Err() != nil || errors.Is(err, errEnding) {
		return // there is something else to do
	}
	if err != nil {
		d.r.log.WarnContext(ctx, "no step was taken early", "round", j.round, "err", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.early == j {
		d.early = nil
	}
}

// dropTrace removes what was stored of a trace that does not come to its end.
func (w *worker) dropTrace(ctx context.Context) {
	if len(w.pos.Trace) < 2 || w.remove == nil {
		return
	}
	needed := []cid.Cid{w.still}
	for _, s := range w.readTraces() {
		needed = append(append(needed, s.Parts...), s.Ends...)
	}
	var gone []cid.Cid
	for _, e := range w.pos.Trace[1:] {
		for _, c := range []cid.Cid{e.Movement, e.Moments} {
			if !slices.Contains(needed, c) {
				gone = append(gone, c)
			}
		}
	}
	w.remove(ctx, gone)
}
