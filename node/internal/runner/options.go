package runner

import (
	"math"

	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/run"
)

// Spec is the adapter that a run trains, for the modules that its manifest
// names. There is none in run.ModeFull.
func Spec(m *run.Manifest) lora.Spec {
	l := &m.LoRA
	s := lora.Spec{Rank: int(l.Rank), Alpha: int(l.Alpha), Targets: l.Targets, RSLoRA: l.RSLoRA}
	for _, t := range m.Tensors {
		if module, ok := lora.ModuleOf(t.Name); ok && t.Rows != l.Rank {
			s.Ranks = append(s.Ranks, lora.Override{Key: module, Value: int(t.Rows)})
		}
	}
	for _, a := range l.Alphas {
		s.Alphas = append(s.Alphas, lora.Override{Key: a.Module, Value: int(a.Alpha)})
	}
	return s
}

// TrainOptions are those that a manifest gives the trainer of its run.
func TrainOptions(m *run.Manifest, modelDir string) train.Options {
	in := &m.Inner
	o := train.Options{
		ModelDir: modelDir,
		Full:     m.Mode == run.ModeFull,
		Adam: train.Adam{
			Beta1: betaOf(in.Beta1PPM), Beta2: betaOf(in.Beta2PPM),
			Epsilon: float64(in.EpsilonPico) / 1e12, WeightDecay: float64(in.WeightDecayPPM) / 1e6,
			ClipNorm: float64(in.ClipMilli) / 1e3,
		},
		Momentum:      float64(in.MomentumPPM) / 1e6,
		LoRAPlusRatio: plusRatio(m),
		MaxTokens:     int(in.MaxTokens),
		Unpacked:      in.Unpacked,
	}
	if !o.Full {
		o.Spec = Spec(m)
	}
	switch in.Optimizer {
	case run.OptimizerAdamW8bit:
		o.Optimizer = train.AdamW8bit
	case run.OptimizerSGD:
		o.Optimizer = train.SGD
	}
	return o
}

// betaOf keeps a beta of 0 from being taken for the trainer's default: the
// least number there is computes the same.
func betaOf(ppm uint32) float64 {
	return max(float64(ppm)/1e6, math.SmallestNonzeroFloat64)
}

// learningRate is the inner learning rate of a peer that has taken warm steps,
// in a run of which done was trained: the formulas of proto/README.md.
func learningRate(m *run.Manifest, done Done, warm uint64) float64 {
	lr := float64(m.Inner.LearningRateNano) / 1e9
	// The middle of the round, so that the last one still learns.
	at, all := float64(done.Rounds)+0.5, float64(m.MaxRounds)
	if m.Inner.StartSteps > 0 && m.MaxTokens > 0 {
		// Rounds are not alike: the schedule goes by tokens. Half of a usual round is
		// its middle.
		at = float64(done.Tokens) * (1 + 0.5/max(float64(done.Rounds), 1)) / float64(m.MaxTokens) * all
	}
	wave := func(x float64) float64 { return (1 + math.Cos(math.Pi*max(0, min(1, x)))) / 2 }
	switch m.Schedule {
	case run.ScheduleCosine:
		lr *= wave(at / all)
	case run.ScheduleLinear:
		lr *= 1 - min(1, at/all)
	case run.ScheduleWSD:
		lr *= wave((at - all + float64(m.Inner.DecayRounds)) / float64(m.Inner.DecayRounds))
	}
	if n := uint64(m.Inner.WarmupSteps); warm < n {
		lr *= float64(warm+1) / float64(n)
	}
	return lr
}

// Done is what of a run was trained before a round.
type Done struct{ Rounds, Tokens uint64 }

// plusRatio is the learning rate of B by that of A.
func plusRatio(m *run.Manifest) float64 {
	if m.Inner.LoRAPlusMilli == 0 {
		return 1
	}
	return float64(m.Inner.LoRAPlusMilli) / 1e3
}
