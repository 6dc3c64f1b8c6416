package app

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"runtime"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

const (
	// maxPaceBytes bounds a model that is loaded for nothing but to be timed.
	maxPaceBytes = 4 << 30
	// paceTime is for how long steps are taken to time them, loading not counted.
	paceTime = 3 * time.Second
	// paceLife is for how long a timing is taken again: how busy a machine is changes.
	paceLife = 10 * time.Minute
	// trainShare is which part of a period is for training; see round.DefaultTiming.
	trainShare = 0.8
	// foldSeconds is what it takes to make the state of a round, to write it down
	// and to begin the next one.
	foldSeconds = 0.03
	// turnSeconds is what it takes until a message of each seat is everywhere, of
	// machines that are near one another, and until what follows from it is computed.
	turnSeconds = 0.09
	// turns are those after the deltas: haves, a proposal and votes.
	turns = 3
	// paceMbit is the link that is reckoned with.
	paceMbit = 100
)

// planPace says how fast rounds would be if all machines were like this one. A plan
// that is to be quick says what was timed before, or nothing.
func (n *node) planPace(ctx context.Context, m *run.Manifest, here *api.Fit, req *api.LaunchRequest, progress api.ProgressFunc) (api.PlanPace, error) {
	p := api.PlanPace{Sharing: max(1, req.Sharing), Device: n.device}
	switch {
	case here.Items[0].Verdict == api.VerdictExceeds:
		p.Why = "the run does not fit this machine"
	case m.ModelBytes > maxPaceBytes:
		p.Why = fmt.Sprintf("a model of more than %s is not loaded only to be timed", megabytes(maxPaceBytes))
	default:
		v, err := n.stepPace(ctx, m, req.Quick, progress)
		switch {
		case ctx.Err() != nil:
			return p, ctx.Err()
		case err != nil:
			p.Why = err.Error()
		case v.seconds == 0: // it is to be quick
			return api.PlanPace{}, nil
		default:
			took := v.seconds
			p.StepSeconds, p.Timed = took, v.at.UTC()
			if n.gpu == nil { // processors are shared when there are too few
				took *= max(1, float64(p.Sharing*n.threads)/float64(runtime.NumCPU()))
			} else {
				took *= float64(p.Sharing)
			}
			paceRound(m, took, &p)
		}
	}
	return p, nil
}

// paceRound says how many steps fit into a round, and how long it takes then.
func paceRound(m *run.Manifest, step float64, p *api.PlanPace) {
	period := float64(m.PeriodMillis) / 1e3
	p.Steps = uint64(math.Ceil(trainShare * period / step)) // the last one is not broken off
	p.Steps = min(max(p.Steps, uint64(m.Inner.MinSteps)), uint64(cmp.Or(m.Inner.StartSteps, m.Inner.MaxSteps)))
	p.TrainSeconds = float64(p.Steps) * step
}

// paceSwarm is planSwarm with the steps that machines like this one take.
func paceSwarm(m *run.Manifest, d *api.PlanData, delta int64, p *api.PlanPace, s *api.PlanSwarm) {
	if p.Steps == 0 {
		return
	}
	rounds := m.MaxRounds
	if tokens := float64(s.Seats) * float64(p.Steps) * float64(m.Inner.BatchSamples) * tokensPerSample(d); m.MaxTokens > 0 && tokens > 0 {
		rounds = min(rounds, uint64(math.Ceil(float64(m.MaxTokens)/tokens)))
	}
	// A round waits for those who measure the one before, but not beyond its period.
	train := p.TrainSeconds + linkOf(m, delta, s.Seats, paceMbit).Seconds
	row := p.TrainSeconds / float64(p.Steps) / (3 * float64(m.Inner.BatchSamples)) // forward only
	measured := train + row*float64(planEval(m, d).Rows+auditedRows(m, d, s.Seats))
	s.ExpectedRounds, s.ExpectedRoundSeconds = rounds, min(measured, max(train, float64(m.PeriodMillis)/1e3))+agreeSeconds(s.Seats)
	s.ExpectedSeconds = float64(rounds) * s.ExpectedRoundSeconds
}

// auditedRows are the rows on which a seat measures deltas of others in a round:
// once without any, and once with each.
func auditedRows(m *run.Manifest, d *api.PlanData, seats int) int {
	deltas := min(int(m.Trust.Auditors), seats-1)
	if deltas <= 0 {
		return 0
	}
	return (deltas + 1) * max(0, min(int(m.Trust.AuditSamples), d.Eval.Rows-d.Eval.Dropped))
}

// agreeSeconds is how long seats take to agree on a round when all deltas are
// there. One alone waits for no message.
func agreeSeconds(seats int) float64 {
	if seats == 1 {
		return foldSeconds
	}
	return foldSeconds + turns*turnSeconds
}

// stepPace returns how long a step of the run takes: as it was timed before, if that
// is not long ago, or of some steps that are taken as the run would. With quick none
// are taken: what was timed before will do, however old, or nothing.
func (n *node) stepPace(ctx context.Context, m *run.Manifest, quick bool, progress api.ProgressFunc) (pace, error) {
	key, err := paceKey(m)
	if err != nil {
		return pace{}, err
	}
	if v, ok := n.paces.get(key); quick || ok && v.fresh(time.Now()) {
		return v, nil
	}
	took, err := n.stepSeconds(ctx, m, progress)
	if err != nil {
		return pace{}, err
	}
	v := pace{took, time.Now()}
	n.paces.put(key, v)
	return v, nil
}

// stepSeconds takes some steps as the run would, and returns how long one takes.
func (n *node) stepSeconds(ctx context.Context, m *run.Manifest, progress api.ProgressFunc) (float64, error) {
	release, err := n.takeCompute(ctx, progress)
	if err != nil {
		return 0, err
	}
	defer release()
	progress(api.Progress{Phase: "pace", Text: "takes some steps to time them"})
	dir, err := n.modelDir(ctx, m.Model)
	if err != nil {
		return 0, err
	}
	o := runner.TrainOptions(m, dir)
	o.Threads = n.threads
	if o.CheckpointDir, err = os.MkdirTemp(n.dir, importTemp); err != nil {
		return 0, err
	}
	defer os.RemoveAll(o.CheckpointDir)
	if err := n.planMemory(&o); err != nil {
		return 0, err
	}
	if n.gpu != nil {
		if err := n.openGPU(&o); err != nil {
			return 0, err
		}
	}
	t, err := train.Open(o)
	if err != nil {
		return 0, err
	}
	defer func() { _ = t.Close() }() // nothing of it is kept
	samples, err := n.paceSamples(ctx, m, dir)
	if err != nil {
		return 0, err
	}
	return timeSteps(ctx, t, samples)
}

// pace is how long a step took, and when.
type pace struct {
	seconds float64
	at      time.Time
}

// fresh reports whether a timing still says something.
func (p pace) fresh(now time.Time) bool { return now.Sub(p.at) < paceLife }

// paceKey names all that decides how long a step takes.
func paceKey(m *run.Manifest) (string, error) {
	b, err := json.Marshal([]any{m.Model, m.Dataset, m.Template, m.Mode, m.LoRA, m.Tensors, m.Inner})
	return string(b), err
}

// paceSamples is a batch that the run could draw.
func (n *node) paceSamples(ctx context.Context, m *run.Manifest, dir string) ([]train.Sample, error) {
	e, err := encoderOf(m, dir)
	if err != nil {
		return nil, err
	}
	d, err := shard.OpenDataset(ctx, n.store, m.Dataset)
	if err != nil {
		return nil, err
	}
	return dataset.NewSource(d, e).Batch(ctx, [32]byte{1}, 0, int(m.Inner.BatchSamples))
}

// timeSteps returns how long a step on a batch takes. The first is not counted,
// and when a batch is large, others are on a part of it.
func timeSteps(ctx context.Context, t *train.Trainer, batch []train.Sample) (float64, error) {
	all := 0
	for _, s := range batch {
		all += len(s.IDs)
	}
	if _, _, err := t.Step(ctx, batch[:1], 1e-9); err != nil {
		return 0, err
	}
	var spent, saving time.Duration
	tokens, size, saved := 0, 1, 0
	for spent+saving < paceTime {
		part := batch[:min(size, len(batch))]
		began := time.Now()
		if _, _, err := t.Step(ctx, part, 1e-9); err != nil {
			return 0, err
		}
		took := time.Since(began)
		if len(part) < len(batch) && took < paceTime/8 { // a whole one can be afforded
			size *= 4
			continue
		}
		began = time.Now() // each step of a run is made durable
		if err := t.Save(nil); err != nil {
			return 0, err
		}
		saving, saved = saving+time.Since(began), saved+1
		spent += took
		for _, s := range part {
			tokens += len(s.IDs)
		}
	}
	return spent.Seconds()*float64(all)/float64(tokens) + saving.Seconds()/float64(saved), nil
}
