package runner

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// Trainer is the base model with one adapter on one device. Its methods are
// called from one goroutine. Values are float32 in the order of the run's
// layout.
type Trainer interface {
	SetAdapter(values []float32) error
	Adapter(dst []float32)
	// Step takes one optimizer step on the batch and returns the sum of the
	// losses (nats) and the number of supervised tokens.
	Step(ctx context.Context, batch []train.Sample, learningRate float64) (lossSum float64, tokens int, err error)
	// Save makes adapter, optimizer and position durable; Load brings the
	// last saved ones back, and reports false when there are none.
	Save(position []byte) error
	Load() (position []byte, ok bool, err error)
	// Eval returns the mean loss per supervised token.
	Eval(ctx context.Context, samples []train.Sample) (loss float64, tokens int, err error)
	// Moments returns what the optimizer remembers after Steps steps,
	// MomentVectors vectors; SetMoments replaces it.
	Moments() ([][]float32, error)
	SetMoments(steps int, moments [][]float32) error
	MomentVectors() int
	Steps() int
}

// Samples draws training samples. The draw depends on seed alone, so that
// anybody can repeat it.
type Samples interface {
	// Batch returns n samples, of which the first is the position-th of the
	// order that seed gives.
	Batch(ctx context.Context, seed [32]byte, position uint64, n int) ([]train.Sample, error)
	// HeldOut returns up to n held-out samples, always the same.
	HeldOut(ctx context.Context, n int) ([]train.Sample, error)
}

// job is the training of one round.
type job struct {
	round   msg.Round
	head    cid.Cid // record the round starts from; draws the samples
	state   cid.Cid
	bits    uint32      // of the delta's codec; 0: that of the manifest
	steps   uint32      // at most; 0: those of the manifest
	done    Done        // before this round; drives the schedule
	course  *msg.Course // of the head
	until   time.Time
	before  cid.Cid // own trace that it goes on from, in a run with traces
	earlier round.Earlier
}

// outcome is what a finished job hands to the round.
type outcome struct {
	delta     cid.Cid
	bytes     uint64
	tokens    uint64
	steps     uint64
	norm      uint64
	lossMicro uint64
	trace     cid.Cid // cid.Undef in a run without
}

// position says how far a job came; it is saved with every step.
type position struct {
	Head    string  `json:"head"`
	Steps   uint64  `json:"steps"`
	Samples uint64  `json:"samples"`
	Tokens  uint64  `json:"tokens"`
	LossSum float64 `json:"loss_sum"`
	// Warm counts the steps since this peer's optimizer started cold.
	Warm uint64 `json:"warm"`
	// Trace is the boundaries so far, in a run with traces.
	Trace []boundary `json:"trace,omitempty"`
	// Guess is what the steps so far were taken from, while the head is not known.
	Guess *round.Earlier `json:"guess,omitempty"`
	// Early is how many of the steps were taken before the head was known.
	Early uint64 `json:"early,omitempty"`
}

// worker owns the device: it trains, measures and encodes. Its methods are
// called from one goroutine.
type worker struct {
	// constant after newWorker
	self     peer.ID
	manifest *run.Manifest
	layout   *fold.Layout
	trainer  Trainer
	samples  Samples
	states   *states
	store    Store
	dir      string
	log      *slog.Logger
	onStep   func(round msg.Round, step uint64, loss float64, tokens int, took time.Duration)
	// ending, when closed, ends training after the step that is under way.
	ending <-chan struct{}
	// gate, if not nil, says how much of the time is for work.
	gate *Gate
	// remove, if not nil, deletes files of the store.
	remove func(context.Context, []cid.Cid)
	still  cid.Cid // the movement of nothing

	// owned by the goroutine that calls
	loaded      bool
	pos         position
	residual    []int32
	coldMoments cid.Cid // cid.Undef: not computed yet
}

// errEnding is what train returns when it was ended by worker.ending.
var errEnding = errors.New("the node is being stopped")

// errNoHeldOut is what evaluate returns when the data set holds nothing out.
var errNoHeldOut = errors.New("the data set has no held-out rows")

// restore brings back what the last process saved. A checkpoint that cannot be
// read costs the round's work, nothing else.
func (w *worker) restore(ctx context.Context) {
	if w.loaded {
		return
	}
	w.loaded = true
	w.pos = position{}
	b, ok, err := w.trainer.Load()
	if err == nil && ok {
		err = json.Unmarshal(b, &w.pos)
	}
	if err != nil {
		w.pos = position{}
		w.log.WarnContext(ctx, "checkpoint was not usable, the round starts again", "err", err)
	}
	w.residual = make([]int32, w.layout.Params())
	if err := w.loadResidual(); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.log.WarnContext(ctx, "error feedback was not usable, it starts at zero", "err", err)
		clear(w.residual)
	}
}

// train runs j until its time is up, its steps are done or ctx is cancelled,
// and returns the encoded delta. With ctx cancelled it returns ctx's error and
// what was done is saved.
func (w *worker) train(ctx context.Context, j job) (outcome, error) {
	w.restore(ctx)
	st, err := w.states.get(ctx, j.state)
	if err != nil {
		return outcome{}, err
	}
	start := make([]float32, len(st.Theta))
	fold.ToFloat32(start, st.Theta)
	switch {
	case w.pos.Head == j.head.String() && w.resumesTrace(ctx, j.before):
		if w.pos.Steps > 0 {
			w.log.InfoContext(ctx, "training resumed", "round", j.round, "step", w.pos.Steps)
		}
	case w.guessed(ctx, j) && w.turn(ctx, j, start):
	default:
		if err := w.begin(ctx, position{Head: j.head.String()}, start, j.before); err != nil {
			return outcome{}, err
		}
	}
	w.forgetTraces(ctx, j)
	if err := w.steps(ctx, leg{
		round: j.round, seed: sampleSeed(j.head, w.self), rate: w.rateOf(j.course, j.done), origin: start,
		over: func() bool { return w.pos.Steps >= uint64(w.manifest.Inner.MinSteps) && !time.Now().Before(j.until) },
		most: w.mostSteps(j),
	}); err != nil {
		return outcome{}, err
	}
	if err := w.mark(ctx, start, true); err != nil {
		return outcome{}, err
	}
	end := make([]float32, len(start))
	w.trainer.Adapter(end)
	out, err := w.encode(ctx, int(cmp.Or(j.bits, w.manifest.CodecBits)), start, end)
	if err == nil {
		out.trace, err = w.endTrace(ctx, j)
	}
	return out, err
}

// began reports whether steps of j were taken.
func (w *worker) began(j *job) bool { return w.pos.Head == j.head.String() && w.pos.Steps > 0 }

// begin sets parameters, and in a run with traces moments and error feedback, to
// what a round begins with.
func (w *worker) begin(ctx context.Context, at position, start []float32, before cid.Cid) error {
	w.dropTrace(ctx)
	at.Warm = w.pos.Warm
	w.pos = at
	if err := w.trainer.SetAdapter(start); err != nil {
		return fmt.Errorf("set adapter: %w", err)
	}
	if err := w.beginTrace(ctx, before); err != nil {
		return fmt.Errorf("begin trace: %w", err)
	}
	return nil
}

// leg is a row of steps that are drawn and scheduled alike.
type leg struct {
	round  msg.Round
	seed   [32]byte                  // of the order of samples
	skip   uint64                    // samples of that order that come before
	rate   func(warm uint64) float64 // of learning
	origin []float32                 // that movements are measured from
	most   uint64                    // steps of the round at its end
	over   func() bool               // ends it before a step; nil: nothing does
}

// rateOf is the learning rate of a round, by the steps since the optimizer began.
func (w *worker) rateOf(course *msg.Course, done Done) func(warm uint64) float64 {
	m := round.Under(w.manifest, course)
	return func(warm uint64) float64 { return learningRate(m, done, warm) }
}

// mostSteps is how many steps a round has at most.
func (w *worker) mostSteps(j job) uint64 { return uint64(cmp.Or(j.steps, w.manifest.Inner.MaxSteps)) }

func (w *worker) steps(ctx context.Context, l leg) error {
	n := uint64(w.manifest.Inner.BatchSamples)
	for w.pos.Steps < l.most {
		if err := ctx.Err(); err != nil {
			return err
		}
		select {
		case <-w.ending:
			return errEnding
		default:
		}
		if l.over != nil && l.over() {
			return nil
		}
		began := time.Now()
		batch, err := w.samples.Batch(ctx, l.seed, l.skip+w.pos.Samples, int(n))
		if err != nil {
			return fmt.Errorf("draw samples: %w", err)
		}
		loss, tokens, err := w.trainer.Step(ctx, batch, l.rate(w.pos.Warm))
		if err != nil {
			return fmt.Errorf("inner step %d: %w", w.pos.Steps, err)
		}
		w.pos.Steps++
		w.pos.Warm++
		if w.traces() {
			w.pos.Warm = uint64(w.trainer.Steps()) // which others can tell
		}
		w.pos.Samples += uint64(len(batch))
		w.pos.Tokens += uint64(tokens)
		w.pos.LossSum += loss
		// Once a step is taken, what ends training waits until it is saved.
		err = w.mark(context.WithoutCancel(ctx), l.origin, false)
		if err == nil {
			err = w.save()
		}
		if err != nil {
			w.loaded = false // what was saved last goes on, without this step
			return err
		}
		if w.onStep != nil && tokens > 0 {
			w.onStep(l.round, w.pos.Steps, loss/float64(tokens), tokens, time.Since(began))
		}
		if w.gate != nil {
			w.gate.rest(ctx, w.ending, time.Since(began))
		}
	}
	return nil
}

func (w *worker) save() error {
	b, err := json.Marshal(w.pos)
	if err != nil {
		return fmt.Errorf("encode position: %w", err)
	}
	if err := w.trainer.Save(b); err != nil {
		return fmt.Errorf("save checkpoint: %w", err)
	}
	return nil
}

// encode turns the movement of the round into a delta that others can pull.
func (w *worker) encode(ctx context.Context, bits int, start, end []float32) (outcome, error) {
	values := make([]int32, len(start))
	if err := fold.PseudoGradient(values, start, end); err != nil {
		return outcome{}, fmt.Errorf("training diverged: %w", err)
	}
	b, err := fold.Encode(w.layout, bits, values, w.residual)
	if err != nil {
		return outcome{}, fmt.Errorf("encode delta: %w", err)
	}
	d, err := fold.Decode(w.layout, b)
	if err != nil {
		return outcome{}, fmt.Errorf("check own delta: %w", err)
	}
	id, err := w.store.PutBytes(ctx, b)
	if err != nil {
		return outcome{}, fmt.Errorf("store delta: %w", err)
	}
	if err := w.saveResidual(); err != nil {
		return outcome{}, fmt.Errorf("save error feedback: %w", err)
	}
	return outcome{
		delta: id, bytes: uint64(len(b)), tokens: w.pos.Tokens, steps: w.pos.Steps, norm: d.Norm(),
		lossMicro: uint64(max(0, math.Round(1e6*w.pos.LossSum/float64(max(1, w.pos.Tokens))))),
	}, nil
}

// evaluate measures a state on the held-out samples.
func (w *worker) evaluate(ctx context.Context, state cid.Cid) (float64, error) {
	st, err := w.states.get(ctx, state)
	if err != nil {
		return 0, err
	}
	held, err := w.samples.HeldOut(ctx, int(w.manifest.EvalSamples))
	if err != nil {
		return 0, fmt.Errorf("read held-out samples: %w", err)
	}
	if len(held) == 0 {
		return 0, errNoHeldOut
	}
	values := make([]float32, len(st.Theta))
	fold.ToFloat32(values, st.Theta)
	if err := w.trainer.SetAdapter(values); err != nil {
		return 0, fmt.Errorf("set adapter: %w", err)
	}
	w.disturbed()
	loss, _, err := w.trainer.Eval(ctx, held)
	return loss, err
}

// sampleSeed draws the samples of a peer for a round: nobody can choose them.
func sampleSeed(head cid.Cid, self peer.ID) [32]byte {
	h := sha256.New()
	h.Write([]byte("moot samples 1"))
	h.Write(head.Bytes())
	h.Write([]byte(self))
	return [32]byte(h.Sum(nil))
}

// residualFile holds the error feedback: int32, little endian, in the order of
// the layout, then the SHA-256 of that.
const residualFile = "residual.bin"

func (w *worker) saveResidual() error {
	b := make([]byte, 0, 4*len(w.residual)+sha256.Size)
	for _, v := range w.residual {
		b = append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
	}
	sum := sha256.Sum256(b)
	path := filepath.Join(w.dir, residualFile)
	if err := os.WriteFile(path+".tmp", append(b, sum[:]...), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func (w *worker) loadResidual() error {
	b, err := os.ReadFile(filepath.Join(w.dir, residualFile))
	if err != nil {
		return err
	}
	n := 4 * len(w.residual)
	if len(b) != n+sha256.Size || sha256.Sum256(b[:n]) != [32]byte(b[n:]) {
		return fmt.Errorf("%s is damaged", residualFile)
	}
	for i := range w.residual {
		w.residual[i] = int32(uint32(b[4*i]) | uint32(b[4*i+1])<<8 | uint32(b[4*i+2])<<16 | uint32(b[4*i+3])<<24)
	}
	return nil
}
