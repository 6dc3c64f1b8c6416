// Package swarm trains a run with several peers in one process: the real
// trainer, samples, codec and fold, without network, clock or votes. It shows
// what a run can learn; the demo's settings are tuned and tested with it.
package swarm

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/runfile"
	"github.com/moot-net/moot/node/internal/tokenizer"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// Swarm is a run that peers in this process can train.
type Swarm struct {
	modelDir string
	store    *shard.Store
	data     *shard.Dataset
	tok      *tokenizer.Tokenizer
	template dataset.Template
	manifest *run.Manifest
	layout   *fold.Layout
	spec     lora.Spec
}

// Options say of what the run is made.
type Options struct {
	Dir      string // for a store of shards; must exist
	ModelDir string
	Data     shard.DatasetOptions
	RunFile  string // path; its model and data may be empty
}

// New imports model and data, and makes the manifest of the run. The caller
// closes the Swarm.
func New(ctx context.Context, o Options) (*Swarm, error) {
	store, err := shard.Open(filepath.Join(o.Dir, "shards"))
	if err != nil {
		return nil, err
	}
	s := &Swarm{modelDir: o.ModelDir, store: store}
	if err := s.open(ctx, o); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return s, nil
}

func (s *Swarm) open(ctx context.Context, o Options) error {
	m, err := s.store.ImportModel(ctx, o.ModelDir, shard.ImportOptions{})
	if err != nil {
		return err
	}
	d, err := s.store.ImportDataset(ctx, o.Data)
	if err != nil {
		return err
	}
	if s.data, err = shard.OpenDataset(ctx, s.store, d.Root); err != nil {
		return err
	}
	if s.tok, err = tokenizer.Load(o.ModelDir); err != nil {
		return err
	}
	if s.template, err = dataset.ParseTemplate(d.Index.Template); err != nil {
		return err
	}
	file, err := readRunFile(o.RunFile, m.Root, d.Root)
	if err != nil {
		return err
	}
	schedule, err := run.ParseSchedule(file.Inner.Schedule)
	if err != nil {
		return err
	}
	targets := file.LoRA.Targets.List
	if len(targets) == 0 {
		if targets, err = allLinear(o.ModelDir); err != nil {
			return err
		}
	}
	s.spec = lora.Spec{Rank: int(file.LoRA.Rank), Alpha: int(file.LoRA.Alpha), Targets: targets}
	tensors, err := train.Layout(o.ModelDir, s.spec)
	if err != nil {
		return err
	}
	in, key := file.Inner, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	s.manifest = &run.Manifest{
		Version: run.ManifestVersion, Name: file.Name,
		Model: m.Root, ModelBytes: uint64(m.Bytes), Dataset: d.Root, DatasetBytes: uint64(d.Bytes),
		LoRA:        run.LoRA{Rank: file.LoRA.Rank, Alpha: file.LoRA.Alpha, Targets: targets},
		GenesisSeed: file.Seed,
		Inner: run.Inner{
			LearningRateNano: scaled(in.LearningRate, 1e9), Beta1PPM: uint32(scaled(*in.Beta1, 1e6)),
			Beta2PPM: uint32(scaled(*in.Beta2, 1e6)), EpsilonPico: scaled(*in.Epsilon, 1e12),
			WeightDecayPPM: uint32(scaled(in.WeightDecay, 1e6)), ClipMilli: uint32(scaled(*in.Clip, 1e3)),
			WarmupSteps: in.WarmupSteps, MinSteps: in.MinSteps, MaxSteps: in.MaxSteps,
			BatchSamples: in.BatchSamples, MaxTokens: in.SequenceTokens,
		},
		Outer: run.Outer{
			LearningRateQ16: uint32(scaled(*file.Outer.LearningRate, fold.One)),
			MomentumQ16:     uint32(scaled(*file.Outer.Momentum, fold.One)),
		},
		CodecBits: file.CodecBits, PeriodMillis: 1000, Seats: file.Seats, MinPeers: file.MinPeers,
		MaxRounds: uint64(file.Rounds), MaxTokens: file.MaxTokens, Schedule: schedule, EvalSamples: file.EvalSamples,
		Launcher: peer.ID("\x00\x24\x08\x01\x12\x20" + string(key.Public().(ed25519.PublicKey))), Template: d.Index.Template,
	}
	for _, t := range tensors {
		s.manifest.Tensors = append(s.manifest.Tensors, run.Tensor{Name: t.Name, Rows: uint32(t.Rows), Cols: uint32(t.Cols)})
	}
	if s.layout, err = s.manifest.Layout(); err != nil {
		return err
	}
	return s.manifest.Validate()
}

// readRunFile reads a run file, with model and data where it has "".
func readRunFile(path string, modelID, data cid.Cid) (*runfile.File, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	text := strings.Replace(string(b), `model = ""`, fmt.Sprintf("model = %q", modelID), 1)
	text = strings.Replace(text, `data = ""`, fmt.Sprintf("data = %q", data), 1)
	return runfile.Parse(filepath.Base(path), []byte(text))
}

// allLinear lists the names of the linear layers of a model's blocks, sorted.
func allLinear(dir string) ([]string, error) {
	c, err := model.ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, m := range c.Modules() {
		names[m.Path[strings.LastIndexByte(m.Path, '.')+1:]] = true
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// scaled is a setting of run.toml as the integer that a manifest has.
func scaled(v, unit float64) uint64 { return uint64(math.RoundToEven(v * unit)) }

// Close gives the store back.
func (s *Swarm) Close() error { return s.store.Close() }

// Rounds is how many rounds the run has.
func (s *Swarm) Rounds() int { return int(s.manifest.MaxRounds) }

// Shards is how many training shards the data set has.
func (s *Swarm) Shards() int { return len(s.data.TrainShards()) }

// Peer says what a peer does.
type Peer struct {
	// Joins and Leaves are the first round that it trains, and the first that
	// it does not. Rounds count from 1; Leaves 0 is never.
	Joins, Leaves int
	// Steps are how many inner steps it takes in a round.
	Steps func(round int) int
}

// Even returns peers that all train in every round, about the given number of
// steps: one a third less, one a third more, as machines differ.
func Even(peers, steps int) []Peer {
	list := make([]Peer, peers)
	for i := range list {
		list[i] = Peer{Joins: 1, Steps: func(round int) int {
			return max(1, steps+((i+round)%3-1)*steps/3)
		}}
	}
	return list
}

// Churn returns five peers as in the demo: two of the first four go after
// round 2, and another one comes in round 4.
func Churn(steps int) []Peer {
	list := Even(5, steps)
	list[0].Leaves, list[1].Leaves, list[4].Joins = 3, 3, 4
	return list
}

// Round is what a round came to.
type Round struct {
	Number        int
	Contributions int
	Steps         int     // of all peers
	TrainLoss     float64 // per counted token, mean of all peers' steps
}

// member is a peer of the run as it goes on.
type member struct {
	Peer
	index    int
	trainer  *train.Trainer
	source   *dataset.Source
	residual []int32
	warm     uint64
}

// Run trains all rounds from the genesis state and returns the last state.
// onRound is called after each; its error ends the run.
func (s *Swarm) Run(ctx context.Context, peers []Peer, onRound func(Round, *fold.State) error) (*fold.State, error) {
	state, _, err := run.Genesis(s.manifest)
	if err != nil {
		return nil, err
	}
	members := make([]*member, len(peers))
	for i, p := range peers {
		if members[i], err = s.join(p, i); err != nil {
			return nil, err
		}
	}
	for round := 1; round <= s.Rounds(); round++ {
		r := Round{Number: round}
		var inputs []fold.Input
		for _, m := range members {
			if round < m.Joins || m.Leaves > 0 && round >= m.Leaves {
				continue
			}
			in, err := s.contribute(ctx, m, state, &r)
			if err != nil {
				return nil, fmt.Errorf("peer %d, round %d: %w", m.index, round, err)
			}
			inputs = append(inputs, in)
		}
		if state, _, err = fold.Fold(state, inputs, s.manifest.FoldOuter()); err != nil {
			return nil, err
		}
		r.Contributions = len(inputs)
		r.TrainLoss /= max(1, float64(len(inputs)))
		if onRound != nil {
			if err := onRound(r, state); err != nil {
				return nil, err
			}
		}
	}
	return state, nil
}

func (s *Swarm) join(p Peer, index int) (*member, error) {
	t, err := s.trainer()
	if err != nil {
		return nil, err
	}
	e, err := s.encoder()
	if err != nil {
		return nil, err
	}
	return &member{
		Peer: p, index: index, trainer: t, source: dataset.NewSource(s.data, e),
		residual: make([]int32, s.layout.Params()),
	}, nil
}

func (s *Swarm) trainer() (*train.Trainer, error) {
	in := s.manifest.Inner
	return train.Open(train.Options{
		ModelDir: s.modelDir, Spec: s.spec, MaxTokens: int(in.MaxTokens),
		Adam: train.Adam{
			Beta1: float64(in.Beta1PPM) / 1e6, Beta2: float64(in.Beta2PPM) / 1e6, Epsilon: float64(in.EpsilonPico) / 1e12,
			WeightDecay: float64(in.WeightDecayPPM) / 1e6, ClipNorm: float64(in.ClipMilli) / 1e3,
		},
	})
}

func (s *Swarm) encoder() (*dataset.Encoder, error) {
	return dataset.NewEncoder(s.tok, s.template, int(s.manifest.Inner.MaxTokens))
}

// contribute takes the inner steps of a member and returns its delta as the
// others decode it.
func (s *Swarm) contribute(ctx context.Context, m *member, state *fold.State, r *Round) (fold.Input, error) {
	start := make([]float32, s.layout.Params())
	fold.ToFloat32(start, state.Theta)
	if err := m.trainer.SetAdapter(start); err != nil {
		return fold.Input{}, err
	}
	steps := m.Steps(r.Number)
	if steps < 1 {
		return fold.Input{}, errors.New("no steps")
	}
	var sum float64
	var counted int
	n := int(s.manifest.Inner.BatchSamples)
	for step := range steps {
		batch, err := m.source.Batch(ctx, sampleSeed(r.Number, m.index), uint64(step*n), n)
		if err != nil {
			return fold.Input{}, err
		}
		loss, tokens, err := m.trainer.Step(ctx, batch, s.learningRate(r.Number, m.warm))
		if err != nil {
			return fold.Input{}, err
		}
		m.warm++
		sum += loss
		counted += tokens
	}
	end, values := make([]float32, len(start)), make([]int32, len(start))
	m.trainer.Adapter(end)
	if err := fold.PseudoGradient(values, start, end); err != nil {
		return fold.Input{}, err
	}
	encoded, err := fold.Encode(s.layout, int(s.manifest.CodecBits), values, m.residual)
	if err != nil {
		return fold.Input{}, err
	}
	delta, err := fold.Decode(s.layout, encoded)
	if err != nil {
		return fold.Input{}, err
	}
	r.Steps += steps
	r.TrainLoss += sum / float64(counted)
	in := fold.Input{Delta: delta, Tokens: uint64(counted), FactorQ16: fold.FactorFull}
	if m.Joins > 1 && r.Number == m.Joins {
		in.FactorQ16 = fold.FactorFresh
	}
	return in, nil
}

// sampleSeed stands for what a run draws from its head.
func sampleSeed(round, peer int) [32]byte {
	b := binary.LittleEndian.AppendUint64([]byte("moot demo swarm"), uint64(round))
	return sha256.Sum256(binary.LittleEndian.AppendUint64(b, uint64(peer)))
}

// learningRate is the formula that the protocol recommends.
func (s *Swarm) learningRate(round int, warm uint64) float64 {
	rate := float64(s.manifest.Inner.LearningRateNano) * 1e-9
	if s.manifest.Schedule == run.ScheduleCosine {
		rate *= (1 + math.Cos(math.Pi*(float64(round)-0.5)/float64(s.manifest.MaxRounds))) / 2
	}
	if n := uint64(s.manifest.Inner.WarmupSteps); warm < n {
		rate *= float64(warm+1) / float64(n)
	}
	return rate
}

// Evaluation is how a model does on all held-out rows.
type Evaluation struct {
	Loss    float64 // mean cross-entropy of a response token, nats
	Correct int     // greedy answers equal to the row's output
	Answers []Answer
}

// Answer is what was answered to a row.
type Answer struct {
	shard.Row
	Got string
}

// Accuracy is the share of correct answers.
func (e *Evaluation) Accuracy() float64 { return float64(e.Correct) / float64(max(1, len(e.Answers))) }

// Evaluate measures the adapter in state, or the base model when it is nil.
func (s *Swarm) Evaluate(ctx context.Context, state *fold.State) (*Evaluation, error) {
	m, err := model.Load(s.modelDir, model.Options{})
	if err != nil {
		return nil, err
	}
	t, err := train.New(m, train.Options{Spec: s.spec})
	if err != nil {
		return nil, err
	}
	if state != nil {
		values := make([]float32, s.layout.Params())
		fold.ToFloat32(values, state.Theta)
		if err := t.SetAdapter(values); err != nil {
			return nil, err
		}
	}
	encoder, err := s.encoder()
	if err != nil {
		return nil, err
	}
	source := dataset.NewSource(s.data, encoder)
	rows, err := source.HeldOutRows(ctx, math.MaxInt)
	if err != nil {
		return nil, err
	}
	samples, err := source.HeldOut(ctx, math.MaxInt)
	if err != nil {
		return nil, err
	}
	e := &Evaluation{}
	if e.Loss, _, err = t.Eval(ctx, samples); err != nil {
		return nil, err
	}
	for _, row := range rows {
		ids := encoder.EncodePrompt(row.Instruction, row.Input)
		ids, err := t.Generate(ctx, ids, train.GenerateOptions{MaxTokens: 64, Stop: encoder.Stop()})
		if err != nil {
			return nil, err
		}
		got := strings.TrimSpace(encoder.Decode(ids))
		if got == strings.TrimSpace(row.Output) {
			e.Correct++
		}
		e.Answers = append(e.Answers, Answer{row, got})
	}
	return e, nil
}
