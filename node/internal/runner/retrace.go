package runner

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/trace"
	"github.com/moot-net/moot/shard"
)

// residualPart is the most that an encoding loses of what it encodes, as a
// length beside it, by the bits of the codec. AdamW came to 0.71, 0.63, 0.09 and
// 0.004 in rounds of falling rates, SGD, whose values spread more, to 0.89, 0.81, 0.50
// and 0.01.
var residualPart = map[int]float64{1: 0.95, 2: 0.9, 4: 0.65, 8: 0.1}

// linkTolerance is how far a delta may be from what its trace and its error
// feedback give.
const linkTolerance = 0.15

var (
	// errWithheld is wrapped by the error for a file of a trace that does not come.
	errWithheld = errors.New("its maker does not give it")
	// errForged is wrapped by the errors for what is not as it must be.
	errForged = errors.New("the trace is not one of this delta")
)

// traceFiles gives the bytes of a file of at most, and exactly if it is no
// trace, so many bytes.
type traceFiles func(ctx context.Context, id cid.Cid, size int64, maker peer.ID) ([]byte, error)

// retrace does a part of the training of a delta again, and returns how far the
// result is from what the trace says.
func (w *worker) retrace(ctx context.Context, j auditJob, item round.RetraceItem, delta *fold.Delta, files traceFiles) (uint32, error) {
	e, err := w.retraceError(ctx, j, item, delta, files)
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.Is(err, errWithheld):
		w.log.WarnContext(ctx, "delta cannot be retraced", "round", j.round-1, "peer", item.Maker, "err", err)
		return round.Withheld, nil
	case errors.Is(err, errForged), errors.Is(err, trace.ErrForm), errors.Is(err, fold.ErrCodec), errors.Is(err, fold.ErrRange):
		w.log.WarnContext(ctx, "delta was not trained as it must be", "round", j.round-1, "peer", item.Maker, "err", err)
		return round.Forged, nil
	case err != nil:
		return 0, err
	}
	return uint32(min(math.Round(e*1e6), round.Forged)), nil
}

func (w *worker) retraceError(ctx context.Context, j auditJob, item round.RetraceItem, delta *fold.Delta, files traceFiles) (float64, error) {
	r := &retracing{w: w, item: item, files: files}
	if err := r.open(ctx); err != nil {
		return 0, err
	}
	begin, end := r.t.Boundaries[item.Part], r.t.Boundaries[item.Part+1]
	from, err := r.movement(ctx, begin.Movement)
	if err != nil {
		return 0, err
	}
	to, err := r.movement(ctx, end.Movement)
	if err != nil {
		return 0, err
	}
	last, err := r.movement(ctx, r.t.End().Movement)
	if err != nil {
		return 0, err
	}
	if err := r.leadsTo(delta, last); err != nil {
		return 0, err
	}
	before, err := r.moments(ctx, begin.Moments)
	if err != nil {
		return 0, err
	}
	after, err := r.moments(ctx, end.Moments)
	if err != nil {
		return 0, err
	}

	st, err := w.states.get(ctx, j.state)
	if err != nil {
		return 0, err
	}
	start := make([]float32, len(st.Theta))
	fold.ToFloat32(start, st.Theta)
	turning, err := r.turning(ctx, start, begin.Steps)
	if err != nil {
		return 0, err
	}
	if turning.guess != nil {
		copy(start, turning.guess)
	}
	for i, v := range from {
		start[i] -= float32(v) / (1 << 26)
	}
	w.disturbed() // and so are the moments
	if err := w.trainer.SetAdapter(start); err != nil {
		return 0, fmt.Errorf("set adapter: %w", err)
	}
	if err := w.trainer.SetMoments(int(before.Steps), before.Vectors); err != nil {
		return 0, fmt.Errorf("set moments: %w", err)
	}
	tokens, err := w.again(ctx, j, item, turning, start, end.Steps)
	if err != nil {
		return 0, err
	}
	if tokens != end.Tokens-begin.Tokens {
		return 0, fmt.Errorf("%d tokens in part %d, there are %d: %w", end.Tokens-begin.Tokens, item.Part, tokens, errForged)
	}
	now := make([]float32, len(start))
	w.trainer.Adapter(now)
	vectors, err := w.trainer.Moments()
	if err != nil {
		return 0, err
	}
	if uint64(w.trainer.Steps()) != after.Steps {
		return 0, fmt.Errorf("moments of %d steps, must be %d: %w", after.Steps, w.trainer.Steps(), errForged)
	}
	worst := apart(len(start),
		func(i int) float64 { return float64(start[i]-now[i]) * (1 << 26) },
		func(i int) float64 { return float64(to[i]) - float64(from[i]) })
	for k, v := range vectors {
		// What is left of the moments before says nothing of this part. Second
		// moments change too little in one to be seen beside their rounding.
		left := 0.0
		if k == 0 {
			left = math.Pow(w.decay(), float64(after.Steps-before.Steps))
		}
		b, a := before.Vectors[k], after.Vectors[k]
		worst = max(worst, apart(len(v),
			func(i int) float64 { return float64(v[i]) - left*float64(b[i]) },
			func(i int) float64 { return float64(a[i]) - left*float64(b[i]) }))
	}
	return worst, nil
}

// decay is what a step leaves of the first moments.
func (w *worker) decay() float64 {
	in := &w.manifest.Inner
	if o := TrainOptions(w.manifest, ""); w.trainer.MomentVectors() == 2 {
		return o.Adam.Beta1
	}
	return float64(in.MomentumPPM) / 1e6
}

// again takes the steps of a part, up to so many of the round, and returns the
// tokens. start is where the part began; it moves with the turn, if that is in it.
func (w *worker) again(ctx context.Context, j auditJob, item round.RetraceItem, t turning, start []float32, to uint64) (tokens uint64, err error) {
	n := uint64(w.manifest.Inner.BatchSamples)
	seed, rate := sampleSeed(j.head, item.Maker), w.rateOf(j.course, j.done)
	earlySeed, earlyRate := sampleSeed(item.Earlier.Head, item.Maker), w.rateOf(j.earlierCourse, Done{item.Earlier.Trained, item.Earlier.Tokens})
	for s := t.from; s < to; s++ {
		if t.guess != nil && s == t.early {
			if err := w.turnAgain(t, start); err != nil {
				return 0, err
			}
		}
		at, position, lr := seed, s*n, rate
		if s < t.early {
			at, position, lr = earlySeed, (item.Earlier.Steps+s)*n, earlyRate
		}
		batch, err := w.samples.Batch(ctx, at, position, int(n))
		if err != nil {
			return 0, fmt.Errorf("draw samples: %w", err)
		}
		_, k, err := w.trainer.Step(ctx, batch, lr(uint64(w.trainer.Steps())))
		if err != nil {
			return 0, fmt.Errorf("step %d again: %w", s, err)
		}
		tokens += uint64(k)
		if w.gate != nil && ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
	return tokens, nil
}

// turning is how a part begins, and where in it early steps end.
type turning struct {
	from, early uint64
	// guess is what early steps were taken from, state what the others are; guess
	// is nil if the part begins after them.
	guess, state []float32
}

// turning reads what the part that begins after so many steps needs, if it begins
// with early ones. state is the head's.
func (r *retracing) turning(ctx context.Context, state []float32, from uint64) (turning, error) {
	t := turning{from: from, early: r.t.Early}
	if from >= t.early {
		return t, nil
	}
	var err error
	t.guess, err = r.w.guess(ctx, r.item.Earlier, func(ctx context.Context, id cid.Cid, size int64) ([]byte, error) {
		return r.files(ctx, id, size, r.item.Maker)
	})
	t.state = slices.Clone(state)
	return t, err
}

// turnAgain moves what was trained early, and with it where the part began, to the
// head's state.
func (w *worker) turnAgain(t turning, start []float32) error {
	now := make([]float32, len(start))
	w.trainer.Adapter(now)
	moveTo(now, t.guess, t.state)
	moveTo(start, t.guess, t.state)
	if err := w.trainer.SetAdapter(now); err != nil {
		return fmt.Errorf("set adapter: %w", err)
	}
	return nil
}

// retracing reads what a retrace needs.
type retracing struct {
	w        *worker
	item     round.RetraceItem
	files    traceFiles
	t        *trace.Trace
	residual cid.Cid // before; cid.Undef: nothing
	lost     []int32 // with this delta
	carried  []int32 // from the last one; nil: nothing
}

// open reads the trace, and checks what it says of all parts.
func (r *retracing) open(ctx context.Context) (err error) {
	w, item := r.w, r.item
	if r.t, err = r.trace(ctx, item.Trace); err != nil {
		return err
	}
	if err := r.t.Covers(item.Steps, item.Tokens, uint64(w.manifest.Inner.MaxSteps)); err != nil {
		return err
	}
	if most := uint64(w.manifest.Inner.OverlapSteps); r.t.Early > most || r.t.Early > 0 && !item.Earlier.Delta.Defined() {
		return fmt.Errorf("%d early steps, at most %d if the contribution before is in the head: %w", r.t.Early, most, errForged)
	}
	first := r.t.Boundaries[0]
	if first.Movement != w.still {
		return fmt.Errorf("begins elsewhere than the round: %w", errForged)
	}
	if first.Moments != w.cold() {
		if !item.Before.Defined() {
			return fmt.Errorf("begins with moments of no contribution before: %w", errForged)
		}
		t, err := r.trace(ctx, item.Before)
		if err != nil {
			return err
		}
		if first.Moments != t.End().Moments {
			return fmt.Errorf("begins with other moments than the last contribution ended with: %w", errForged)
		}
		r.residual = t.Residual
	}
	if r.lost, err = r.movement(ctx, r.t.Residual); err != nil {
		return err
	}
	if r.residual.Defined() {
		r.carried, err = r.movement(ctx, r.residual)
	}
	return err
}

// leadsTo checks that the delta is the movement of the round, encoded with the
// error feedback that there was and leaving the one that there is.
func (r *retracing) leadsTo(delta *fold.Delta, movement []int32) error {
	values := make([]int32, len(movement))
	delta.Values(values)
	var whole, lost, off float64
	for i, v := range movement {
		x := float64(v)
		if r.carried != nil {
			x += 0.95 * float64(r.carried[i])
		}
		l := float64(r.lost[i])
		d := x - l - float64(values[i])
		whole, lost, off = whole+x*x, lost+l*l, off+d*d
	}
	most := residualPart[delta.Bits()]
	if off > linkTolerance*linkTolerance*whole || lost > most*most*whole {
		return fmt.Errorf("the delta is %.3f from what was trained and lost %.3f of it, at most %v and %v: %w",
			math.Sqrt(off/whole), math.Sqrt(lost/whole), linkTolerance, most, errForged)
	}
	return nil
}

func (r *retracing) trace(ctx context.Context, id cid.Cid) (*trace.Trace, error) {
	b, err := r.files(ctx, id, trace.MaxBytes, r.item.Maker)
	if err != nil {
		return nil, err
	}
	return trace.Unmarshal(b)
}

// movement reads a movement, or what was lost.
func (r *retracing) movement(ctx context.Context, id cid.Cid) ([]int32, error) {
	values := make([]int32, r.w.layout.Params())
	if id == r.w.still {
		return values, nil
	}
	b, err := r.files(ctx, id, fold.EncodedBytes(r.w.layout, trace.MovementBits), r.item.Maker)
	if err != nil {
		return nil, err
	}
	d, err := fold.Decode(r.w.layout, b)
	if err != nil {
		return nil, err
	}
	if d.Bits() != trace.MovementBits {
		return nil, fmt.Errorf("a movement of %d bits: %w", d.Bits(), errForged)
	}
	d.Values(values)
	return values, nil
}

func (r *retracing) moments(ctx context.Context, id cid.Cid) (*trace.Moments, error) {
	vectors, params := r.w.trainer.MomentVectors(), r.w.layout.Params()
	if id == r.w.cold() {
		return trace.Cold(vectors, params), nil
	}
	b, err := r.files(ctx, id, trace.MomentsBytes(vectors, params), r.item.Maker)
	if err != nil {
		return nil, err
	}
	return trace.UnmarshalMoments(b, vectors, params)
}

// cold names the moments before the first step.
func (w *worker) cold() cid.Cid {
	if !w.coldMoments.Defined() {
		w.coldMoments = fold.FileCID(trace.Cold(w.trainer.MomentVectors(), w.layout.Params()).Marshal())
	}
	return w.coldMoments
}

// apart is the distance of b from a beside the length of a.
func apart(n int, a, b func(i int) float64) float64 {
	var d, l float64
	for i := range n {
		x := a(i)
		y := x - b(i)
		d, l = d+y*y, l+x*x
	}
	switch {
	case d == 0:
		return 0
	case l == 0 || math.IsNaN(d/l):
		return math.Inf(1)
	}
	return math.Sqrt(d / l)
}

// retrace does all retraces of a job. It returns what was found before an error.
func (d *device) retrace(ctx context.Context, j auditJob) ([]msg.Retrace, error) {
	var out []msg.Retrace
	var fetched []cid.Cid
	defer func() { d.r.removeFiles(context.WithoutCancel(ctx), fetched) }()
	files := func(ctx context.Context, id cid.Cid, size int64, maker peer.ID) ([]byte, error) {
		// What was here before stays.
		if missing, _, _, err := d.r.hub.o.Store.Missing(ctx, id); err != nil || len(missing) > 0 {
			fetched = append(fetched, id)
		}
		return d.r.traceFile(ctx, id, size, maker)
	}
	for _, item := range j.retraces {
		delta, err := d.r.deltas.get(ctx, item.Delta, j.round-1, item.Maker)
		if err != nil {
			return out, err
		}
		ppm, err := d.w.retrace(ctx, j, item, delta, files)
		if err != nil {
			return out, err
		}
		out = append(out, msg.Retrace{Seat: item.Seat, ErrorPPM: ppm})
	}
	return out, nil
}

// traceBefore is the trace that a peer's training on head goes on from.
func (r *Runner) traceBefore(head cid.Cid, maker peer.ID) cid.Cid {
	if r.manifest.Trust.RetracePPM == 0 {
		return cid.Undef
	}
	return round.TraceBefore(head, maker, r.ledger.Link)
}

// removeFiles removes what a round has left, but for what keep has of it.
func (r *Runner) removeFiles(ctx context.Context, list []cid.Cid, keep ...cid.Cid) {
	for _, c := range list {
		if _, err := r.hub.o.Store.Delete(ctx, c, keep...); err != nil && ctx.Err() == nil {
			r.log.DebugContext(ctx, "was not removed", "shard", c, "err", err)
			continue
		}
		r.ground.Release(c)
	}
}

// traceFile is the traceFiles of a run: it pulls from the maker, for as long as
// an honest one on a slow line takes.
func (r *Runner) traceFile(ctx context.Context, id cid.Cid, size int64, maker peer.ID) ([]byte, error) {
	wait, cancel := context.WithTimeout(ctx, time.Duration(r.manifest.PeriodMillis)*time.Millisecond/4)
	defer cancel()
	if err := r.fetcher.Fetch(wait, id, size+dagOverhead(size), []peer.ID{maker}); err != nil {
		if errors.Is(err, pull.ErrTooLarge) || errors.Is(err, shard.ErrInvalid) {
			return nil, fmt.Errorf("fetch %s: %w: %w", id, err, errForged)
		}
		if wait.Err() != nil {
			return nil, fmt.Errorf("fetch %s: %w: %w", id, err, errWithheld)
		}
		return nil, fmt.Errorf("fetch %s: %w", id, err) // this node's own failure
	}
	b, err := r.hub.o.Store.ReadBytes(ctx, id, size)
	if errors.Is(err, shard.ErrTooLarge) || errors.Is(err, shard.ErrInvalid) {
		return nil, fmt.Errorf("read %s: %w: %w", id, err, errForged)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", id, err)
	}
	return b, nil
}
