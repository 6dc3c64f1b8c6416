package runner

import (
	"context"
	"errors"
	"math"
	"runtime/debug"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/trace"
)

// device gives the worker one thing to do after the other: training first,
// measuring when there is nothing to train, and early steps when there is nothing
// to measure.
type device struct {
	r    *Runner
	w    *worker
	open func() (*train.Trainer, error)

	// owned by run
	t *train.Trainer // nil while the memory is given back

	mu     sync.Mutex
	job    *job               // guarded by mu; to train, nil: nothing
	audits *auditJob          // guarded by mu; to measure for others, nil: nothing
	merge  *mergeJob          // guarded by mu; likewise
	eval   *evalJob           // guarded by mu; to measure, nil: nothing
	early  *earlyJob          // guarded by mu; to train when there is nothing else, nil: nothing
	yields bool               // guarded by mu; what is being done is that
	hasty  int                // guarded by mu; so many measurements for rounds come before training
	cancel context.CancelFunc // guarded by mu; ends what is being done
	wake   chan struct{}      // of capacity 1
}

type evalJob struct {
	round  msg.Round
	record cid.Cid
	state  cid.Cid
	first  bool // before training
}

// hastyRounds is for how many of its measurements a peer does them before it
// trains, once a record had no loss because too few were done in time.
const hastyRounds = 16

func newDevice(r *Runner, t *train.Trainer, s Samples, open func() (*train.Trainer, error)) *device {
	d := &device{r: r, t: t, open: open, wake: make(chan struct{}, 1)}
	d.w = &worker{
		self: r.hub.self, manifest: r.manifest, layout: r.layout, trainer: t, samples: s, states: r.states,
		store: r.store, dir: r.dir, log: r.log, onStep: d.stepped, gate: r.hub.o.Gate,
		remove: func(ctx context.Context, list []cid.Cid) { r.removeFiles(ctx, list) }, still: fold.FileCID(trace.Still(r.layout)),
	}
	return d
}

// stepped keeps the rate that other peers are told.
func (d *device) stepped(n msg.Round, step uint64, loss float64, tokens int, took time.Duration) {
	now := float64(tokens) / max(took.Seconds(), 1e-6) * 1e3
	if old := float64(d.r.rate.Load()); old > 0 {
		now = 0.8*old + 0.2*now
	}
	d.r.rate.Store(uint64(now))
	d.r.log.Debug("inner step was taken", "round", n, "step", step, "loss", loss, "tokens", tokens, "took", took)
}

// train begins a job in the place of any other.
func (d *device) train(j job) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.job, d.early = &j, nil
	d.interrupt()
}

// stop ends training.
func (d *device) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.early != nil {
		d.early = nil
		d.signal()
	}
	if d.job != nil {
		d.job = nil
		d.interrupt()
	}
}

// evaluate measures a head when there is time. A later head takes its place.
func (d *device) evaluate(k round.Link) {
	if d.r.manifest.EvalSamples == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.eval = &evalJob{round: k.Record.Round, record: k.ID, state: k.Record.State}
	d.signal()
}

// measure is evaluate for a round that waits for the loss.
func (d *device) measure(ctx context.Context, e round.Evaluate) {
	if k, ok := d.r.ledger.Entry(e.Round - 1); ok && k.ID == e.Record && !math.IsNaN(k.EvalLoss) {
		d.r.running.Go(func() { d.r.post(ctx, round.Evaluated{Record: e.Record, LossMicro: lossMicro(k.EvalLoss)}) })
		return
	}
	head, _, ok := d.r.ledger.At(e.Round - 1)
	before, _, too := d.r.ledger.At(e.Round - 2)
	d.await(evalJob{round: e.Round - 1, record: e.Record, state: e.State}, e.Round > 2 && ok && too && unmeasured(head.Record, before.Record))
}

// unmeasured reports whether a record has no held-out loss of the state before it,
// which is new: too few said one in time.
func unmeasured(r, parent *msg.Record) bool {
	return r.Trend != nil && r.Trend.LossMicro == 0 && len(parent.Contributions) > 0
}

// await sets what is to be measured for a round. As a rule there is time for it
// when training is over, which costs nothing. Where there was too little, it comes
// first for some rounds.
func (d *device) await(e evalJob, late bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if late {
		d.hasty = hastyRounds
	}
	d.eval = &e
	if d.hasty == 0 {
		d.signal()
		return
	}
	d.hasty--
	e.first = true
	d.interrupt()
}

// lossMicro is a loss as it is told to others; one that is no number is as high
// as can be.
func lossMicro(loss float64) uint64 {
	if micro := loss * 1e6; micro < msg.MaxLossMicro {
		return uint64(max(math.Round(micro), 1))
	}
	return msg.MaxLossMicro
}

// interrupt is called with mu held.
func (d *device) interrupt() {
	if d.cancel != nil {
		d.cancel()
	}
	d.signal()
}

// signal tells of something to do. It is called with mu held.
func (d *device) signal() {
	if d.yields {
		d.cancel()
	}
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// run works until ctx is done; a step that is under way then is finished and
// saved.
func (d *device) run(ctx context.Context) error {
	d.w.ending = ctx.Done()
	for ctx.Err() == nil {
		gate := d.r.hub.o.Gate
		open, changed := gate.state()
		if !open {
			d.release(ctx)
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		d.mu.Lock()
		j, a, g, e, early := d.job, d.audits, d.merge, d.eval, d.early
		if gate.Draining() {
			a, g, e, early = nil, nil, nil, nil
			if j != nil && !d.w.began(j) {
				j = nil
			}
		}
		// What ctx ends is finished first: see worker.ending.
		wctx, cancel := gate.whileOpen(context.WithoutCancel(ctx))
		d.cancel = cancel
		d.yields = early != nil && j == nil && a == nil && g == nil && e == nil
		d.mu.Unlock()
		if (j != nil || a != nil || g != nil || e != nil || early != nil) && !d.acquire(ctx, changed) {
			cancel()
			continue
		}
		switch {
		case e != nil && e.first:
			d.doEvaluate(ctx, wctx, e)
		case j != nil:
			d.doTrain(ctx, wctx, j)
		case a != nil:
			d.doAudit(ctx, wctx, a)
		case g != nil:
			d.doMerge(ctx, wctx, g)
		case e != nil:
			d.doEvaluate(ctx, wctx, e)
		case early != nil:
			d.doEarly(ctx, wctx, early)
		default:
			idle := time.NewTimer(d.r.hub.idleAfter)
			select {
			case <-ctx.Done():
			case <-d.wake:
			case <-changed:
			case <-idle.C:
				d.release(ctx)
			}
			idle.Stop()
		}
		cancel()
	}
	return nil
}

// idleAfter is longer than what lies between two rounds, as a rule: loading a
// model takes a while.
const idleAfter = 5 * time.Minute

// release gives the memory of the device back while it is not used, that of the
// processor to the system. Every step is saved, so that acquire goes on where
// that was.
func (d *device) release(ctx context.Context) {
	if d.t == nil {
		return
	}
	began := time.Now()
	err := d.t.Close()
	d.t = nil
	debug.FreeOSMemory()
	d.r.log.InfoContext(ctx, "memory of the device was given back", "took", time.Since(began), "err", err)
}

// acquire opens the trainer again after release. Where that fails, because
// another program has the memory for example, it waits, and returns false.
func (d *device) acquire(ctx context.Context, changed <-chan struct{}) bool {
	if d.t != nil {
		return true
	}
	t, err := d.open()
	if err == nil {
		d.t, d.w.trainer, d.w.loaded = t, t, false
		return true
	}
	d.r.log.WarnContext(ctx, "the device cannot be used yet", "err", err)
	d.r.emit(api.Event{Type: api.EventAlert, Text: "device: " + err.Error()})
	pause := time.NewTimer(reopenAfter)
	defer pause.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-pause.C:
	}
	return false
}

// reopenAfter is how long a device that could not be opened is left alone.
const reopenAfter = 15 * time.Second

// done takes a job off, unless there is another one already.
func (d *device) done(j *job) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.job == j {
		d.job = nil
	}
}

func (d *device) doTrain(ctx, wctx context.Context, j *job) {
	out, err := d.w.train(wctx, *j)
	switch {
	case err == nil:
		d.done(j)
		d.r.post(ctx, round.Trained{
			Head: j.head, Delta: out.delta, DeltaBytes: out.bytes, Tokens: out.tokens, Steps: out.steps,
			Norm: out.norm, LossMicro: out.lossMicro, Trace: out.trace,
		})
	case wctx.Err() != nil, ctx.Err() != nil, errors.Is(err, errEnding):
		// There is another job, or none any more.
	default:
		d.r.log.WarnContext(ctx, "training has to wait", "round", j.round, "err", err)
		d.r.emit(api.Event{Type: api.EventAlert, N: uint64(j.round), Text: "training: " + err.Error()})
		if d.t.DeviceErr() != nil {
			d.release(ctx) // nothing works on it any more
		}
		pause, cancel := context.WithTimeout(wctx, 2*time.Second)
		defer cancel()
		select {
		case <-pause.Done():
		case <-ctx.Done():
		}
	}
}

func (d *device) doEvaluate(ctx, wctx context.Context, e *evalJob) {
	// A measurement is not worth waiting for at the end.
	wctx, cancel := context.WithCancel(wctx)
	defer cancel()
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	began := time.Now()
	loss, err := d.w.evaluate(wctx, e.state)
	if err != nil && wctx.Err() != nil {
		return // it is tried again when there is nothing to train
	}
	d.mu.Lock()
	if d.eval == e {
		d.eval = nil
	}
	d.mu.Unlock()
	told := round.Evaluated{Record: e.record}
	if err == nil {
		told.LossMicro = lossMicro(loss)
	}
	d.r.post(ctx, told)
	switch {
	case errors.Is(err, errNoHeldOut):
	case err != nil:
		d.r.log.WarnContext(ctx, "round was not measured", "round", e.round, "err", err)
	case math.IsNaN(loss) || math.IsInf(loss, 0):
		d.r.log.WarnContext(ctx, "loss is not a number", "round", e.round)
	default:
		if err := d.r.ledger.SetEval(e.record, loss); err != nil {
			d.r.log.WarnContext(ctx, "measurement was not kept", "round", e.round, "err", err)
		}
		d.r.log.InfoContext(ctx, "round was measured", "round", e.round, "loss", loss, "took", time.Since(began))
		d.r.emit(api.Event{Type: api.EventEval, N: uint64(e.round), Loss: &loss})
	}
}

func (d *device) close() {
	if d.t != nil {
		_ = d.t.Close() // it has nothing to write
	}
}
