package sim

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/rand/v2"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/run"
)

// noRecord asks for the loss on all held-out samples.
var noRecord = cid.Undef

// task is what a run learns.
type task interface {
	// train takes steps from a state; the same assignment of the same node,
	// after the same ones before, gives the same values.
	train(ctx context.Context, a assignment) (learned, error)
	// tokensOf is about how many tokens so many steps read.
	tokensOf(steps int) uint64
	// loss is the mean loss per token at theta, on the held-out samples that a
	// record draws for audits; undefined: on all.
	loss(ctx context.Context, theta []float32, record cid.Cid) (float64, error)
}

// assignment is what a seat trains in a round.
type assignment struct {
	node  int
	peer  peer.ID
	head  cid.Cid
	state *fold.State
	done  runner.Done
	steps int
	early earlySteps
	guess *fold.State // that early steps begin from
}

// earlySteps are those of an assignment that were taken before its head was known.
type earlySteps struct {
	steps int
	from  round.Earlier
}

// guess is what a delta alone makes of a state.
func (w *world) guess(e round.Earlier) (*fold.State, error) {
	d, err := w.contents.decoded(e.Delta)
	if err != nil {
		return nil, err
	}
	next, _, err := fold.Fold(w.contents.stateOf(e.State), []fold.Input{{Delta: d, Tokens: 1, FactorQ16: fold.FactorFull}}, w.manifest.FoldOuter())
	return next, err
}

// learned is what came of it: the pseudo-gradient and what a commit says.
type learned struct {
	values []int32
	tokens uint64
	loss   float64
}

// lossOf is the loss of a state on all held-out samples.
func (w *world) lossOf(state cid.Cid) (float64, error) {
	return w.lossAt(w.contents.stateOf(state), noRecord)
}

func (w *world) lossAt(st *fold.State, record cid.Cid) (float64, error) {
	theta := make([]float32, len(st.Theta))
	fold.ToFloat32(theta, st.Theta)
	return w.task.loss(w.ctx, theta, record)
}

// gainKey names a measurement: all honest auditors come to the same.
type gainKey struct {
	record cid.Cid
	seat   uint32 // or noSeat, for the loss before
}

// gain is what an honest auditor measures of a delta, as the daemon does.
func (w *world) gain(record, state cid.Cid, item round.AuditItem) (int64, error) {
	if g, ok := w.gains[gainKey{record, item.Seat}]; ok {
		return g, nil
	}
	st := w.contents.stateOf(state)
	before, ok := w.losses[record]
	if !ok {
		var err error
		if before, err = w.lossAt(st, record); err != nil {
			return 0, err
		}
		w.losses[record] = before
	}
	d, err := w.contents.decoded(item.Delta)
	if err != nil {
		return 0, err
	}
	values, theta := make([]int32, len(st.Theta)), make([]float32, len(st.Theta))
	d.Values(values)
	fold.ToFloat32(theta, st.Theta)
	part := runner.AuditPart * float64(item.ClipQ16) / fold.One
	for i, v := range values {
		theta[i] -= float32(part * float64(v) / (1 << 26))
	}
	after, err := w.task.loss(w.ctx, theta, record)
	if err != nil {
		return 0, err
	}
	g := runner.AuditGain(before, after)
	w.gains[gainKey{record, item.Seat}] = g
	return g, nil
}

func (w *world) mergePasses(e round.Gate) (bool, error) {
	ours, theirs := w.contents.stateOf(e.State), w.contents.stateOf(e.Merge.State)
	merged, err := fold.Merge(ours, w.contents.stateOf(e.Merge.Base), theirs, e.Merge.WeightQ16)
	if err != nil {
		return false, err
	}
	var losses [3]float64
	for i, st := range []*fold.State{ours, theirs, merged} {
		if losses[i], err = w.lossAt(st, noRecord); err != nil {
			return false, err
		}
	}
	passes := runner.MergePasses(losses[0], losses[1], losses[2])
	if passes {
		w.seen.gatesPassed++
	} else {
		w.seen.gatesFailed++
		w.seen.gateLosses = losses
	}
	return passes, nil
}

// quickTask is a problem that costs nothing: parameters have to come near a
// target, a step goes a part of the way, and each node sees the target through
// noise of its own, so that the deltas of two honest nodes are nearly at right
// angles once a run is under way. Early steps are to it as others are.
type quickTask struct {
	target []float64
	// noise is how far a step goes astray, beside the usual.
	noise float64
	seed  uint64
}

const (
	quickRate  = 0.02 // of the way, in a step
	quickNoise = 0.3  // of a step
	quickBase  = 1.0  // loss at the target
)

func newQuickTask(layout *fold.Layout, seed uint64) *quickTask {
	rnd := rand.New(rand.NewPCG(seed, 2))
	t := &quickTask{target: make([]float64, layout.Params()), seed: seed, noise: 1}
	for i := range t.target {
		t.target[i] = rnd.NormFloat64()
	}
	return t
}

func drawn(seed uint64, id cid.Cid, node int) *rand.Rand {
	b := binary.LittleEndian.AppendUint64(id.Bytes(), seed)
	h := sha256.Sum256(binary.LittleEndian.AppendUint64(b, uint64(node)))
	return rand.New(rand.NewPCG(binary.LittleEndian.Uint64(h[:]), binary.LittleEndian.Uint64(h[8:])))
}

func (t *quickTask) tokensOf(steps int) uint64 { return uint64(steps) * 1000 }

func (t *quickTask) train(_ context.Context, a assignment) (learned, error) {
	rnd := drawn(t.seed, a.head, a.node)
	start, end := make([]float32, len(t.target)), make([]float32, len(t.target))
	fold.ToFloat32(start, a.state.Theta)
	part := 1 - math.Pow(1-quickRate, float64(a.steps))
	deviation := t.noise * quickNoise * math.Sqrt(float64(a.steps)) * quickRate * 5
	for i, x := range start {
		end[i] = x + float32(part*(t.target[i]-float64(x))+deviation*rnd.NormFloat64())
	}
	values := make([]int32, len(start))
	if err := fold.PseudoGradient(values, start, end); err != nil {
		return learned{}, err
	}
	return learned{values: values, tokens: t.tokensOf(a.steps), loss: t.distance(start, nil)}, nil
}

func (t *quickTask) loss(_ context.Context, theta []float32, record cid.Cid) (float64, error) {
	if record.Defined() {
		return t.distance(theta, drawn(t.seed, record, -1)), nil
	}
	return t.distance(theta, nil), nil
}

// distance is the loss; of samples that see the target a little moved, with rnd.
func (t *quickTask) distance(theta []float32, rnd *rand.Rand) float64 {
	var sum float64
	for i, x := range theta {
		target := t.target[i]
		if rnd != nil {
			target += 0.05 * rnd.NormFloat64()
		}
		d := float64(x) - target
		sum += d * d
	}
	return quickBase + sum/float64(len(theta))/2
}

// quickManifest is of a run of quickTask: 128 parameters.
func quickManifest() *run.Manifest {
	m := baseManifest()
	m.LoRA = run.LoRA{Rank: 4, Alpha: 4, Targets: []string{"q"}}
	m.Tensors = []run.Tensor{
		{Name: "base_model.model.q.lora_A.weight", Rows: 4, Cols: 16},
		{Name: "base_model.model.q.lora_B.weight", Rows: 16, Cols: 4},
	}
	return m
}
