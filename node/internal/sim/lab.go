package sim

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/demo"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// Lab has what learning scenarios need: a small model and something to teach it.
// It also remembers what a run without faults comes to, so that scenarios that
// compare with the same one train it once. The zero value is ready; Close gives
// back what was opened.
type Lab struct {
	dir          string
	lesson, demo *subject
	clean        map[cleanKey]learning
}

// subject is a model, and rows to train it on.
type subject struct {
	model  string // folder
	store  *shard.Store
	source *dataset.Source
	held   []train.Sample
	base   *run.Manifest
	steps  uint32 // in a round
	usual  tuning
}

// cleanKey names a run without faults.
type cleanKey struct {
	demo          bool
	seed          uint64
	peers, rounds int
	tuning
}

// tuning are settings of a run; the zero value is the usual one of a subject.
type tuning struct {
	rate  uint64 // of learning, in 1e-9
	outer run.Outer
	steps stepping
	early uint32 // steps that may be taken early
}

// stepping is how many steps rounds have, and after how many tokens a run ends; the
// zero value is a subject's usual.
type stepping struct {
	least, start, most uint32
	tokens             uint64
}

// Close removes what was written.
func (l *Lab) Close() error {
	if l.dir == "" {
		return nil
	}
	var errs []error
	for _, s := range []*subject{l.lesson, l.demo} {
		if s != nil {
			errs = append(errs, s.store.Close())
		}
	}
	return errors.Join(errors.Join(errs...), os.RemoveAll(l.dir))
}

// subject opens the lesson or the demo's model and data, once.
func (l *Lab) subject(ctx context.Context, ofDemo bool) (*subject, error) {
	kept := &l.lesson
	if ofDemo {
		kept = &l.demo
	}
	if *kept != nil {
		return *kept, nil
	}
	if l.dir == "" {
		dir, err := os.MkdirTemp("", "moot-sim-")
		if err != nil {
			return nil, err
		}
		l.dir, l.clean = dir, make(map[cleanKey]learning)
	}
	var s *subject
	var err error
	if ofDemo {
		if s, err = openDemo(ctx, filepath.Join(l.dir, "demo")); err != nil {
			return nil, fmt.Errorf("open the demo's model and data: %w", err)
		}
	} else if s, err = openLesson(ctx, filepath.Join(l.dir, "lesson")); err != nil {
		return nil, fmt.Errorf("make a model and data: %w", err)
	}
	*kept = s
	return s, nil
}

func openDemo(ctx context.Context, dir string) (*subject, error) {
	a, err := demo.Write(filepath.Join(dir, "assets"))
	if err != nil {
		return nil, err
	}
	s := &subject{model: a.ModelDir, steps: 6, usual: tuning{rate: 1_000_000, outer: baseManifest().Outer}}
	return s, s.open(ctx, filepath.Join(dir, "shards"), shard.DatasetOptions{
		Files: a.Data.Files, EvalFile: a.Data.EvalFile, Seed: a.Data.Seed, Shuffle: a.Data.Shuffle, ShardBytes: a.Data.ShardBytes,
		Licence: a.Data.Licence, Source: a.Data.Source, Template: a.Data.Template,
	})
}

func openLesson(ctx context.Context, dir string) (*subject, error) {
	if err := newLesson().write(ctx, dir); err != nil {
		return nil, err
	}
	s := &subject{model: filepath.Join(dir, "model"), steps: 15, usual: tuning{rate: 8_000_000, outer: baseManifest().Outer}}
	return s, s.open(ctx, filepath.Join(dir, "shards"), shard.DatasetOptions{
		Files: []string{filepath.Join(dir, "train.jsonl")}, EvalFile: filepath.Join(dir, "eval.jsonl"),
		Licence: demo.Licence, Source: "made by moot sim", Template: "none", ShardBytes: demo.ShardBytes,
	})
}

// open imports rows, and says how a run trains on them.
func (s *subject) open(ctx context.Context, dir string, o shard.DatasetOptions) error {
	var err error
	if s.store, err = shard.Open(dir); err != nil {
		return err
	}
	d, err := s.store.ImportDataset(ctx, o)
	if err != nil {
		return err
	}
	data, err := shard.OpenDataset(ctx, s.store, d.Root)
	if err != nil {
		return err
	}
	template, err := dataset.ParseTemplate(d.Index.Template)
	if err != nil {
		return err
	}
	m := baseManifest()
	m.Inner = run.Inner{
		LearningRateNano: s.usual.rate, Beta1PPM: 900_000, Beta2PPM: 950_000, EpsilonPico: 10_000, ClipMilli: 1000,
		MinSteps: 1, MaxSteps: s.steps, BatchSamples: 8, MaxTokens: 96,
	}
	encoder, err := dataset.LoadEncoder(s.model, template, int(m.Inner.MaxTokens))
	if err != nil {
		return err
	}
	s.source = dataset.NewSource(data, encoder)
	if s.held, err = s.source.HeldOut(ctx, math.MaxInt); err != nil {
		return err
	}
	spec := lora.Spec{Rank: 8, Alpha: 16, Targets: []string{"down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"}}
	tensors, err := train.Layout(s.model, spec)
	if err != nil {
		return err
	}
	m.Dataset, m.Template = d.Root, d.Index.Template
	m.LoRA = run.LoRA{Rank: 8, Alpha: 16, Targets: spec.Targets}
	for _, t := range tensors {
		m.Tensors = append(m.Tensors, run.Tensor{Name: t.Name, Rows: uint32(t.Rows), Cols: uint32(t.Cols)})
	}
	m.Schedule = run.ScheduleCosine
	m.EvalSamples = uint32(len(s.held))
	m.Trust.AuditSamples = 16
	s.base = m
	return nil
}

// realTask trains a subject's model with the real trainer, one for each node.
type realTask struct {
	*subject
	manifest *run.Manifest
	trainers map[int]*train.Trainer
	judge    *train.Trainer // measures losses
	warm     map[int]uint64
	tokens   uint64 // of the steps that were taken
	steps    uint64
}

func (s *subject) task(m *run.Manifest) *realTask {
	return &realTask{subject: s, manifest: m, trainers: make(map[int]*train.Trainer), warm: make(map[int]uint64)}
}

func (t *realTask) openTrainer() (*train.Trainer, error) {
	return train.Open(runner.TrainOptions(t.manifest, t.model))
}

func (t *realTask) tokensOf(steps int) uint64 {
	if t.steps == 0 {
		return uint64(steps) * 100
	}
	return max(uint64(steps)*t.tokens/t.steps, 1)
}

// train does what the daemon's worker does: it starts from the state, keeps the
// optimizer's moments, and draws the samples that head and peer draw.
func (t *realTask) train(ctx context.Context, a assignment) (learned, error) {
	trainer := t.trainers[a.node]
	if trainer == nil {
		var err error
		if trainer, err = t.openTrainer(); err != nil {
			return learned{}, err
		}
		t.trainers[a.node] = trainer
	}
	start, end := make([]float32, len(a.state.Theta)), make([]float32, len(a.state.Theta))
	fold.ToFloat32(start, a.state.Theta)
	n := int(t.manifest.Inner.BatchSamples)
	var l learned
	steps := func(head cid.Cid, first, steps int, done runner.Done) error {
		seed := runner.SampleSeed(head, a.peer)
		for step := first; step < first+steps; step++ {
			batch, err := t.source.Batch(ctx, seed, uint64(step*n), n)
			if err != nil {
				return err
			}
			loss, tokens, err := trainer.Step(ctx, batch, runner.LearningRate(t.manifest, done, t.warm[a.node]))
			if err != nil {
				return err
			}
			t.warm[a.node]++
			l.tokens += uint64(tokens)
			l.loss += loss
		}
		return nil
	}
	if k := a.early.steps; k == 0 {
		if err := trainer.SetAdapter(start); err != nil {
			return learned{}, err
		}
	} else {
		guess, now := make([]float32, len(start)), make([]float32, len(start))
		fold.ToFloat32(guess, a.guess.Theta)
		if err := trainer.SetAdapter(guess); err != nil {
			return learned{}, err
		}
		from := a.early.from
		if err := steps(from.Head, int(from.Steps), k, runner.Done{Rounds: from.Trained, Tokens: from.Tokens}); err != nil {
			return learned{}, err
		}
		trainer.Adapter(now)
		runner.MoveTo(now, guess, start)
		if err := trainer.SetAdapter(now); err != nil {
			return learned{}, err
		}
	}
	if err := steps(a.head, a.early.steps, a.steps-a.early.steps, a.done); err != nil {
		return learned{}, err
	}
	t.tokens += l.tokens
	t.steps += uint64(a.steps)
	l.loss /= float64(max(l.tokens, 1))
	trainer.Adapter(end)
	l.values = make([]int32, len(start))
	return l, fold.PseudoGradient(l.values, start, end)
}

func (t *realTask) loss(ctx context.Context, theta []float32, record cid.Cid) (float64, error) {
	if t.judge == nil {
		var err error
		if t.judge, err = t.openTrainer(); err != nil {
			return 0, err
		}
	}
	if err := t.judge.SetAdapter(theta); err != nil {
		return 0, err
	}
	samples := t.held
	if record.Defined() {
		n := int(t.manifest.Trust.AuditSamples)
		samples = runner.AuditSamples(samples[:min(len(samples), runner.AuditPool*n)], record, n)
	}
	loss, _, err := t.judge.Eval(ctx, samples)
	return loss, err
}

// learning is what a run learned.
type learning struct {
	before, after float64 // held-out loss
	curve         []Point // loss by trained rounds
	tokens        uint64
	kappa, steps  float64 // mean of the recorded ones; of the last round
	// withoutWeight is which part of honest contributions counted for nothing
	// because of what audits found.
	withoutWeight float64
}

// floor is the loss of who knows all there is to know; 0: of the demo's task.
func (t *trial) floor() float64 {
	if t.demo {
		return 0
	}
	return newLesson().floor()
}

// realWorld is a world in which a real model is trained for so many rounds.
func (t *trial) realWorld(nodes, rounds int, net network, with tuning) (*world, error) {
	s, err := t.Lab.subject(t.ctx, t.demo)
	if err != nil {
		return nil, err
	}
	m := *s.base
	m.Seats = max(m.Seats, uint32(nodes))
	m.MaxRounds, m.MinPeers, m.GenesisSeed = uint64(rounds), uint32(min(nodes, msg.MaxSeats)), t.Seed
	if with.rate == 0 {
		with.rate, with.outer = s.usual.rate, s.usual.outer
	}
	m.Inner.LearningRateNano, m.Outer, m.Inner.OverlapSteps = with.rate, with.outer, with.early
	if o := with.steps; o.start > 0 {
		m.Inner.MinSteps, m.Inner.StartSteps, m.Inner.MaxSteps, m.MaxTokens = o.least, o.start, o.most, o.tokens
	}
	return newWorld(t.ctx, worldOptions{seed: t.Seed, nodes: nodes, net: net, manifest: &m, task: s.task(&m)})
}

// finish plays until the run is final for all honest nodes that are up.
func (t *trial) finish(w *world, within int) (bool, error) {
	told := uint64(0)
	return w.runUntil(time.Duration(within)*w.period(), func() bool {
		done := true
		for _, n := range w.nodes {
			if !n.up || n.fault != honest {
				continue
			}
			r := n.chain.Head().Record
			if r.TrainedRounds >= told+5 {
				told = r.TrainedRounds
				t.say("%d rounds are trained", told)
			}
			done = done && r.Final
		}
		return done
	})
}

// learned measures the states of a chain.
func (w *world) learned(n *node, every int) (out learning, err error) {
	told := 0
	defer func() { out.kappa /= float64(max(told, 1)) }()
	for i, l := range n.chain.links {
		last := i == len(n.chain.links)-1
		if p := l.Record.Tempo; p != nil {
			out.steps = float64(p.StepsBefore)
			if p.KappaPPM > 0 {
				out.kappa += float64(p.KappaPPM) / 1e6
				told++
			}
		}
		if i > 0 && !last && (len(l.Record.Contributions) == 0 || int(l.Record.TrainedRounds)%every != 0) {
			continue
		}
		loss, err := w.lossOf(l.Record.State)
		if err != nil {
			return learning{}, err
		}
		if i == 0 {
			out.before = loss
		}
		out.after = loss
		out.curve = append(out.curve, Point{float64(l.Record.TrainedRounds), loss})
		out.tokens = l.Record.Tokens
	}
	return out, nil
}

// cleanRun is what a run of so many peers learns without faults.
func (t *trial) cleanRun(peers, rounds int) (learning, error) {
	return t.faultless(peers, rounds, tuning{})
}

// faultless is that with other settings.
func (t *trial) faultless(peers, rounds int, with tuning) (learning, error) {
	key := cleanKey{t.demo, t.Seed, peers, rounds, with}
	if l, ok := t.Lab.clean[key]; ok {
		return l, nil
	}
	w, err := t.realWorld(peers, rounds, wide(), with)
	if err != nil {
		return learning{}, err
	}
	w.start(w.nodes...)
	if ok, err := t.finish(w, 4*rounds); err != nil || !ok {
		return learning{}, cause(err, "the run without faults did not end in %d periods", 4*rounds)
	}
	l, err := w.learned(w.nodes[0], max(rounds/6, 1))
	if err == nil {
		s := w.tally(w.nodes[0], 0, roundOf(w.nodes[0]))
		l.withoutWeight = float64(s.uncounted) / float64(max(s.honestSeats, 1))
		t.Lab.clean[key] = l
		t.say("without faults: loss %.4f, then %.4f", l.before, l.after)
	}
	return l, err
}
