package runner

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/run"
)

func TestLearningRate(t *testing.T) {
	m := &run.Manifest{MaxRounds: 10, Inner: run.Inner{LearningRateNano: 1e6}}
	for _, tt := range []struct {
		schedule run.Schedule
		decay    uint64
		want     map[uint64]float64 // by trained rounds, as a share of the peak
	}{
		{run.ScheduleConstant, 0, map[uint64]float64{0: 1, 9: 1, 20: 1}},
		{run.ScheduleLinear, 0, map[uint64]float64{0: 0.95, 4: 0.55, 9: 0.05, 20: 0}},
		{run.ScheduleCosine, 0, map[uint64]float64{0: (1 + math.Cos(math.Pi*0.05)) / 2, 9: (1 + math.Cos(math.Pi*0.95)) / 2, 20: 0}},
		{run.ScheduleWSD, 4, map[uint64]float64{0: 1, 5: 1, 6: (1 + math.Cos(math.Pi/8)) / 2, 9: (1 + math.Cos(math.Pi*7/8)) / 2, 20: 0}},
		{run.ScheduleWSD, 10, map[uint64]float64{0: (1 + math.Cos(math.Pi*0.05)) / 2}},
	} {
		m.Schedule, m.Inner.DecayRounds = tt.schedule, tt.decay
		for trained, want := range tt.want {
			if got := learningRate(m, Done{Rounds: trained}, 99); math.Abs(got-want*1e-3) > 1e-15 {
				t.Errorf("%v, round %d: %v, want %v", tt.schedule, trained, got, want*1e-3)
			}
		}
	}
	// Of a run whose rounds are not alike, by tokens: the middle of a usual round.
	m.Schedule, m.Inner.DecayRounds, m.Inner.StartSteps, m.MaxTokens = run.ScheduleLinear, 0, 30, 1000
	for _, tt := range []struct {
		done Done
		want float64
	}{{Done{}, 1}, {Done{1, 100}, 0.85}, {Done{5, 100}, 0.89}, {Done{2, 800}, 0}, {Done{9, 5000}, 0}} {
		if got := learningRate(m, tt.done, 99); math.Abs(got-tt.want*1e-3) > 1e-15 {
			t.Errorf("after %+v: %v, want %v", tt.done, got, tt.want*1e-3)
		}
	}
	m.Inner.StartSteps = 0
	m.Schedule, m.Inner.WarmupSteps = run.ScheduleConstant, 4
	for warm, want := range []float64{0.25, 0.5, 0.75, 1, 1} {
		if got := learningRate(m, Done{}, uint64(warm)); math.Abs(got-want*1e-3) > 1e-15 {
			t.Errorf("step %d: %v, want %v", warm, got, want*1e-3)
		}
	}
}

// Every setting of a manifest that is the trainer's business reaches it.
func TestTrainOptions(t *testing.T) {
	const q, v = "base_model.model.a.0.q.lora_", "base_model.model.a.0.v.lora_"
	m := &run.Manifest{
		LoRA: run.LoRA{Rank: 4, Alpha: 8, Targets: []string{"q", "v"}, RSLoRA: true, Alphas: []run.ModuleAlpha{{Module: "a.0.q", Alpha: 3}}},
		Tensors: []run.Tensor{
			{Name: q + "A.weight", Rows: 4, Cols: 9},
			{Name: q + "B.weight", Rows: 9, Cols: 4},
			{Name: v + "A.weight", Rows: 2, Cols: 9},
			{Name: v + "B.weight", Rows: 9, Cols: 2},
		},
		Inner: run.Inner{
			Optimizer: run.OptimizerSGD, Beta1PPM: 900_000, Beta2PPM: 0, EpsilonPico: 10_000, MomentumPPM: 800_000,
			WeightDecayPPM: 100_000, ClipMilli: 500, LoRAPlusMilli: 16_000, MaxTokens: 77, Unpacked: true,
		},
	}
	want := train.Options{
		ModelDir: "dir", MaxTokens: 77, Unpacked: true, Optimizer: train.SGD, Momentum: 0.8, LoRAPlusRatio: 16,
		Spec: lora.Spec{
			Rank: 4, Alpha: 8, Targets: []string{"q", "v"}, RSLoRA: true,
			Ranks: []lora.Override{{Key: "a.0.v", Value: 2}}, Alphas: []lora.Override{{Key: "a.0.q", Value: 3}},
		},
		Adam: train.Adam{Beta1: 0.9, Beta2: math.SmallestNonzeroFloat64, Epsilon: 1e-8, WeightDecay: 0.1, ClipNorm: 0.5},
	}
	if diff := cmp.Diff(want, TrainOptions(m, "dir")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	m.Mode, m.LoRA, m.Inner.Optimizer, m.Inner.LoRAPlusMilli = run.ModeFull, run.LoRA{}, run.OptimizerAdamW8bit, 0
	want.Full, want.Spec, want.Optimizer, want.LoRAPlusRatio = true, lora.Spec{}, train.AdamW8bit, 1
	if diff := cmp.Diff(want, TrainOptions(m, "dir")); diff != "" {
		t.Errorf("full (-want +got):\n%s", diff)
	}
}
