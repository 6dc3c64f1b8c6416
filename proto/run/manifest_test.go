package run

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/internal/vectors"
	"github.com/moot-net/moot/proto/msg"
)

func folder(word string) cid.Cid {
	return cid.NewCidV1(cid.DagProtobuf, msg.RawCID([]byte(word)).Hash())
}

// sample is a run of rank 4 on two modules of a small model.
func sample(t testing.TB) *Manifest {
	t.Helper()
	priv, _, err := crypto.GenerateEd25519Key(bytes.NewReader(bytes.Repeat([]byte{1}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	launcher, err := peer.IDFromPrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return &Manifest{
		Version: ManifestVersion, Name: "capitals", Model: folder("model"), Dataset: folder("data"),
		ModelBytes: 4_000_000, DatasetBytes: 300_000,
		LoRA: LoRA{Rank: 4, Alpha: 8, Targets: []string{"down_proj", "q_proj"}},
		Tensors: []Tensor{
			{"base_model.model.model.layers.0.mlp.down_proj.lora_A.weight", 4, 100},
			{"base_model.model.model.layers.0.mlp.down_proj.lora_B.weight", 48, 4},
			{"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", 4, 48},
			{"base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", 48, 4},
		},
		GenesisSeed: 42,
		Inner: Inner{
			LearningRateNano: 200_000, Beta1PPM: 900_000, Beta2PPM: 950_000, EpsilonPico: 10_000, ClipMilli: 1000,
			MinSteps: 1, MaxSteps: 30, BatchSamples: 16, MaxTokens: 512,
		},
		Outer: Outer{LearningRateQ16: 45875, MomentumQ16: 39322}, CodecBits: 2, PeriodMillis: 600_000,
		Seats: 32, MinPeers: 4, MaxRounds: 100, Schedule: ScheduleCosine, EvalSamples: 64,
		Licences: Licences{Model: "MIT", Data: "CC0-1.0"}, Launcher: launcher, Created: 1_700_000_000, Template: "alpaca",
	}
}

func TestManifestRoundTrip(t *testing.T) {
	bare := sample(t)
	bare.Licences, bare.Created, bare.GenesisSeed, bare.Outer.MomentumQ16 = Licences{}, 0, 0, 0
	guarded := sample(t)
	guarded.Licences.Use = UseResearch
	guarded.Trust, guarded.Admission = Trust{Auditors: 3, AuditSamples: 32, Probation: 5, TakeBack: true}, Admission{AdmissionList, []peer.ID{guarded.Launcher}, 20}
	for name, m := range map[string]*Manifest{"sample": sample(t), "guarded": guarded, "zeros": bare, "options": options(t), "full": full(t), "watched": watched(t), "crowded": crowded(t), "laddered": laddered(t), "judged": judged(t, 1), "newly judged": judged(t, 2), "timely": timely(t), "measured": measuredRun(t), "overlapping": overlapping(t), "keeping": keeping(t), "sourced": sourced(t)} {
		t.Run(name, func(t *testing.T) {
			b, err := m.Encode()
			if err != nil {
				t.Fatal(err)
			}
			got, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(m, got, cmp.Comparer(func(a, b cid.Cid) bool { return a.Equals(b) })); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
			if id, err := m.ID(); err != nil || id != msg.RawCID(b) {
				t.Errorf("ID() = %v, %v", id, err)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	b, err := sample(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	bare := sample(t)
	bare.Licences = Licences{}
	without, err := bare.Encode()
	if err != nil {
		t.Fatal(err)
	}
	// Licences are there also when they are empty: tag 20, length 0.
	omitted := bytes.Replace(without, []byte{0xa2, 0x01, 0x00}, nil, 1)
	if len(omitted) == len(without) {
		t.Fatal("empty licences are not encoded")
	}
	for name, b := range map[string][]byte{
		"empty":             nil,
		"too large":         make([]byte, MaxManifestBytes+1),
		"cut short":         b[:len(b)-1],
		"unknown field":     protowire.AppendVarint(protowire.AppendTag(slices.Clone(b), 99, protowire.VarintType), 1),
		"version twice":     slices.Concat(b[:2], b),
		"licences left out": omitted,
	} {
		if _, err := Decode(b); err == nil {
			t.Errorf("%s: Decode() accepts it", name)
		}
	}
}

// TestValidate breaks one rule at a time.
func TestValidate(t *testing.T) {
	tests := []struct {
		change func(m *Manifest)
		want   string
	}{
		{func(m *Manifest) { m.Version = 0 }, "version is 0, must be at least 1"},
		{func(m *Manifest) { m.Version = 2 }, "version is 2, must be at most 1"},
		{func(m *Manifest) { m.Name = "" }, "name has 0 bytes, must have 1 to 64"},
		{func(m *Manifest) { m.Name = strings.Repeat("x", 65) }, "name has 65 bytes, must have 1 to 64"},
		{func(m *Manifest) { m.Name = "a\nb" }, `name is "a\nb", must be printable UTF-8`},
		{func(m *Manifest) { m.Name = "\xff" }, "must be printable UTF-8"},
		{func(m *Manifest) { m.Model = cid.Undef }, "model is b, must be a CIDv1"},
		{func(m *Manifest) { m.Dataset = cid.NewCidV0(folder("x").Hash()) }, "data is Qm"},
		{func(m *Manifest) { m.ModelBytes = 0 }, "model_bytes is 0, must be at least 1"},
		{func(m *Manifest) { m.DatasetBytes = 1<<44 + 1 }, "data_bytes is 17592186044417, must be at most 17592186044416"},
		{func(m *Manifest) { m.LoRA.Rank = 0 }, "lora.rank is 0, must be at least 1"},
		{func(m *Manifest) { m.LoRA.Rank = 1025 }, "lora.rank is 1025, must be at most 1024"},
		{func(m *Manifest) { m.LoRA.Alpha = 0 }, "lora.alpha is 0, must be at least 1"},
		{func(m *Manifest) { m.LoRA.Targets = nil }, "lora.targets has 0 names, must have 1 to 4096"},
		{func(m *Manifest) { m.LoRA.Targets = []string{"q_proj", "down_proj"} }, `lora.targets has "down_proj" out of order`},
		{func(m *Manifest) { m.LoRA.Targets = []string{"down_proj", "down_proj"} }, "out of order or twice"},
		{func(m *Manifest) { m.LoRA.Targets = []string{"../x", "y"} }, `lora.targets has "../x", must be a module name`},
		{func(m *Manifest) { m.LoRA.Targets = []string{"down_proj", "k_proj", "q_proj"} }, `lora.targets has "k_proj", must be a module that tensors adapt`},
		{func(m *Manifest) { m.LoRA.Targets = []string{"q_proj"} }, "tensors have model.layers.0.mlp.down_proj, must be of a module in lora.targets"},
		{func(m *Manifest) { m.LoRA.Targets = []string{"down_proj", "proj"} }, "tensors have model.layers.0.self_attn.q_proj, must be"},
		{func(m *Manifest) { m.Tensors = nil }, "tensors are 0, must be an even number"},
		{func(m *Manifest) { m.Tensors = m.Tensors[:3] }, "tensors are 3, must be an even number"},
		{func(m *Manifest) { m.Tensors[0].Name = "x" }, `tensors have "x", must be base_model.model.MODULE.lora_A.weight`},
		{func(m *Manifest) { m.Tensors[0].Name = "base_model.model.a/b.lora_A.weight" }, `tensors have "base_model.model.a/b.lora_A.weight"`},
		{func(m *Manifest) { m.Tensors[1].Name = m.Tensors[3].Name }, "tensors have"},
		{func(m *Manifest) { m.Tensors[0].Rows = 5 }, "must have one rank of 1 to 1024"},
		{func(m *Manifest) { m.Tensors[1].Cols = 5 }, "must have one rank of 1 to 1024"},
		{func(m *Manifest) { m.Tensors[0].Cols = 0 }, "tensors are not a layout"},
		{func(m *Manifest) { m.Tensors[0].Cols = math.MaxUint32 }, "tensors are not a layout"},
		{func(m *Manifest) {
			m.Tensors[0], m.Tensors[1], m.Tensors[2], m.Tensors[3] = m.Tensors[2], m.Tensors[3], m.Tensors[0], m.Tensors[1]
		}, "is out of order or there twice"},
		{func(m *Manifest) { m.Inner.LearningRateNano = 0 }, "inner.learning_rate_nano is 0, must be at least 1"},
		{func(m *Manifest) { m.Inner.Beta1PPM = 1e6 }, "inner.beta1_ppm is 1000000, must be at most 999999"},
		{func(m *Manifest) { m.Inner.Beta2PPM = 1e6 }, "inner.beta2_ppm is 1000000, must be at most 999999"},
		{func(m *Manifest) { m.Inner.EpsilonPico = 0 }, "inner.epsilon_pico is 0, must be at least 1"},
		{func(m *Manifest) { m.Inner.WeightDecayPPM = 1e6 + 1 }, "inner.weight_decay_ppm is 1000001"},
		{func(m *Manifest) { m.Inner.ClipMilli = 1e9 + 1 }, "inner.clip_milli is 1000000001"},
		{func(m *Manifest) { m.Inner.WarmupSteps = 1e6 + 1 }, "inner.warmup_steps is 1000001"},
		{func(m *Manifest) { m.Inner.MinSteps = 31 }, "inner.min_steps is 31, must be at most 30"},
		{func(m *Manifest) { m.Inner.OverlapSteps = 31 }, "inner.overlap_steps is 31, must be at most 30"},
		{func(m *Manifest) { m.Inner.MaxSteps = 0 }, "inner.max_steps is 0, must be at least 1"},
		{func(m *Manifest) { m.Inner.BatchSamples = 0 }, "inner.batch_samples is 0"},
		{func(m *Manifest) { m.Inner.MaxTokens = 1 }, "inner.sequence_tokens is 1, must be at least 2"},
		{func(m *Manifest) { m.Outer.LearningRateQ16 = 0 }, "outer.learning_rate_q16 is 0"},
		{func(m *Manifest) { m.Outer.LearningRateQ16 = 262145 }, "outer.learning_rate_q16 is 262145, must be at most 262144"},
		{func(m *Manifest) { m.Outer.MomentumQ16 = 65536 }, "outer.momentum_q16 is 65536, must be at most 65535"},
		{func(m *Manifest) { m.CodecBits = 3 }, "codec_bits is 3, must be 1, 2, 4 or 8"},
		{func(m *Manifest) { m.PeriodMillis = 99 }, "period_millis is 99, must be at least 100"},
		{func(m *Manifest) { m.Seats = 0 }, "seats is 0, must be at least 1"},
		{func(m *Manifest) { m.Seats = 1025 }, "seats is 1025, must be at most 1024"},
		{func(m *Manifest) { m.Seats, m.MinPeers = 1000, 49 }, "min_peers is 49, must be at most 48"},
		{func(m *Manifest) { m.Seats, m.Trust = 49, Trust{Auditors: 3, AuditSamples: 8, Outsiders: 1} }, "seats is 49, must be at most 48 with trust.outsiders"},
		{func(m *Manifest) { m.Seats, m.Trust = 49, Trust{Auditors: 3, AuditSamples: 8, TakeBack: true} }, "seats is 49, must be at most 48 with trust.outsiders"},
		{func(m *Manifest) { m.Seats, m.Trust = 49, Trust{Auditors: 3, AuditSamples: 8, RetracePPM: 1} }, "seats is 49, must be at most 48 with trust.outsiders"},
		{func(m *Manifest) { m.CodecBits, m.MinCodecBits = 2, 4 }, "min_codec_bits is 4, must be at most codec_bits, 2"},
		{func(m *Manifest) { m.MinCodecBits = 3 }, "min_codec_bits is 3, must be 0, 1, 2, 4 or 8"},
		{func(m *Manifest) { m.Inner.StartSteps, m.MaxTokens = 31, 1 }, "inner.start_steps is 31, must be at most 30"},
		{func(m *Manifest) { m.Inner.StartSteps, m.Inner.MinSteps, m.MaxTokens = 4, 5, 1 }, "inner.start_steps is 4, must be 0 or at least inner.min_steps, 5"},
		{func(m *Manifest) { m.Inner.StartSteps = 30 }, "inner.start_steps is 30, must be 0 without max_tokens"},
		{func(m *Manifest) { m.Inner.StartSteps, m.MaxTokens, m.Mode, m.LoRA = 30, 1, ModeFull, LoRA{} }, "inner.start_steps is 30, must be 0 with mode full, which averages exactly"},
		{func(m *Manifest) { m.Inner.StartSteps, m.MaxTokens, m.Seats = 30, 1, 49 }, "inner.start_steps is 30, must be 0 with more than 48 seats"},
		{func(m *Manifest) { m.FollowArrivals, m.Seats = true, 49 }, "follow_arrivals is true, must be false with more than 48 seats"},
		{func(m *Manifest) { m.EvalPeers = 49 }, "eval_peers is 49, must be at most 48"},
		{func(m *Manifest) { m.RotateRounds = 1e6 + 1 }, "rotate_rounds is 1000001, must be at most 1000000"},
		{func(m *Manifest) { m.KeepRounds = 1001 }, "keep_rounds is 1001, must be at most 1000"},
		{func(m *Manifest) { m.KeepRounds = 1 }, "keep_rounds is 1, must be 0 without audits, which say who has worked"},
		{func(m *Manifest) { m.MinPeers = 0 }, "min_peers is 0, must be at least 1"},
		{func(m *Manifest) { m.MinPeers = 33 }, "min_peers is 33, must be at most 32"},
		{func(m *Manifest) { m.MaxRounds = 0 }, "rounds is 0, must be at least 1"},
		{func(m *Manifest) { m.MaxTokens = 1<<62 + 1 }, "max_tokens is 4611686018427387905"},
		{func(m *Manifest) { m.Schedule = 0 }, "inner.schedule is schedule-0, must be cosine, constant, linear or wsd"},
		{func(m *Manifest) { m.EvalSamples = 0 }, "eval_samples is 0"},
		{func(m *Manifest) { m.Trust = Trust{Auditors: 17, AuditSamples: 1} }, "trust.auditors is 17, must be at most 16"},
		{func(m *Manifest) { m.Trust = Trust{Auditors: 1, AuditSamples: 1, Probation: 1001} }, "trust.probation is 1001, must be at most 1000"},
		{func(m *Manifest) { m.Trust.TakeBack = true }, "trust.take_back is true, must be false without audits"},
		{func(m *Manifest) { m.Stop.MinImprovementPPM = 1 }, "stop.min_improvement_ppm is 1, must be 0 without patience"},
		{func(m *Manifest) { m.Stop.Patience = 1_000_001 }, "stop.patience is 1000001"},
		{func(m *Manifest) { m.Stop.TargetMicro = 1 << 41 }, "stop.target_micro is 2199023255552"},
		{func(m *Manifest) { m.Rollback.Rounds = 1 }, "rollback.worse_ppm is 0 with 1 rounds"},
		{func(m *Manifest) { m.Rollback.WorsePPM = 1 }, "rollback.worse_ppm is 1 with 0 rounds"},
		{func(m *Manifest) { m.Trust = Trust{Auditors: 1, AuditSamples: 1, Judgement: NewestJudgement + 1} }, "trust.judgement is 4, must be at most 3"},
		{func(m *Manifest) { m.Trust.Judgement = 1 }, "trust.judgement is 1, must be 0 without audits"},
		{func(m *Manifest) { m.Trust.Probation = 1 }, "trust.probation is 1, must be 0 without audits"},
		{func(m *Manifest) { m.Trust.Auditors = 1 }, "trust.audit_samples is 0 with 1 auditors"},
		{func(m *Manifest) { m.Trust.AuditSamples = 1 }, "trust.audit_samples is 1 with 0 auditors"},
		{func(m *Manifest) { m.Admission.Mode = 3 }, "admission.mode is 3, must be open, list or invite"},
		{func(m *Manifest) { m.Admission.WorkBits = 33 }, "admission.work_bits is 33, must be at most 32"},
		{func(m *Manifest) { m.Admission.Allowed = []peer.ID{m.Launcher} }, "admission.allowed has 1 peers, must have none in mode open"},
		{func(m *Manifest) { m.Admission = Admission{AdmissionList, []peer.ID{"x"}, 0} }, `admission.allowed has "x"`},
		{func(m *Manifest) { m.Admission = Admission{AdmissionList, []peer.ID{m.Launcher, m.Launcher}, 0} }, "sorted, each once"},
		{func(m *Manifest) { m.Admission = Admission{AdmissionList, make([]peer.ID, 4097), 0} }, "admission.allowed has 4097 peers"},
		{func(m *Manifest) { m.Mode = 2 }, "mode is mode-2, must be lora or full"},
		{func(m *Manifest) { m.Inner.Optimizer = 3 }, "inner.optimizer is optimizer-3, must be adamw, adamw-8bit or sgd"},
		{func(m *Manifest) { m.Inner.OverLong = 2 }, "inner.over_long is over-long-2, must be shorten or drop"},
		{func(m *Manifest) { m.Inner.MomentumPPM = 1e6 }, "inner.momentum_ppm is 1000000"},
		{func(m *Manifest) { m.Inner.MomentumPPM = 1 }, "inner.momentum_ppm is 1, must be 0 with the optimizer adamw"},
		{func(m *Manifest) { m.Inner.LoRAPlusMilli = 1e6 + 1 }, "inner.lora_plus_milli is 1000001"},
		{func(m *Manifest) { m.Inner.DecayRounds = 1 }, "inner.decay_rounds is 1, must be 0 with the schedule cosine"},
		{func(m *Manifest) { m.Schedule = ScheduleWSD }, "inner.decay_rounds is 0, must be at least 1"},
		{func(m *Manifest) { m.Schedule, m.Inner.DecayRounds = ScheduleWSD, 101 }, "inner.decay_rounds is 101, must be at most 100"},
		{func(m *Manifest) { m.LoRA.Alphas = []ModuleAlpha{{"q_proj", 4}} }, `lora.alphas have "q_proj", must be of a module that tensors adapt`},
		{func(m *Manifest) { m.LoRA.Alphas = []ModuleAlpha{{"model.layers.0.self_attn.q_proj", 8}} }, "must not have what lora.alpha says"},
		{func(m *Manifest) { m.LoRA.Alphas = []ModuleAlpha{{"model.layers.0.self_attn.q_proj", 0}} }, "lora.alphas is 0, must be at least 1"},
		{func(m *Manifest) {
			m.LoRA.Alphas = []ModuleAlpha{{"model.layers.0.self_attn.q_proj", 4}, {"model.layers.0.mlp.down_proj", 4}}
		}, "out of order or twice"},
		{func(m *Manifest) { m.Mode = ModeFull }, "lora is set, must not be with mode full"},
		{func(m *Manifest) { *m = *full(t); m.LoRA.RSLoRA = true }, "lora is set"},
		{func(m *Manifest) { *m = *full(t); m.Inner.LoRAPlusMilli = 2000 }, "inner.lora_plus_milli is 2000, must be 0 with mode full"},
		{func(m *Manifest) { *m = *full(t); m.Tensors[0].Name = "a/b" }, `tensors have "a/b", must be names of a model's parameters`},
		{func(m *Manifest) { *m = *full(t); m.Tensors = nil }, "tensors are not a layout"},
		{func(m *Manifest) { *m = *full(t); m.Tensors[0].Rows = 10_000_000 }, "tensors are not a layout"},
		{func(m *Manifest) { *m = *full(t); m.Tensors[0].Rows = 4_000_000 }, "mode is full, must be lora for a model of 192004848 parameters"},
		{func(m *Manifest) { m.Licences.Use = 3 }, "licence.use is use-3, must be unstated, research or commercial"},
		{func(m *Manifest) { m.Licences.ModelSource = strings.Repeat("x", 257) }, "licence.model_source has 257 bytes, must have 0 to 256"},
		{func(m *Manifest) { m.Licences.DataSource = "a\u202eb" }, "licence.data_source is \"a\\u202eb\", must be printable UTF-8"},
		{func(m *Manifest) { m.Licences.Data = strings.Repeat("x", 65) }, "licence.data has 65 bytes"},
		{func(m *Manifest) { m.Launcher = "x" }, `launcher is "x", must be the peer ID of an Ed25519 key`},
		{func(m *Manifest) { m.Created = -1 }, "created is -1, must be 0 to"},
		{func(m *Manifest) { m.Template = "" }, "template has 0 bytes, must have 1 to 64"},
	}
	for _, tt := range tests {
		m := sample(t)
		tt.change(m)
		err := m.Validate()
		var invalid *InvalidError
		if !errors.As(err, &invalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Validate() = %v, want %q", err, tt.want)
		}
		if _, err := m.Encode(); err == nil {
			t.Errorf("%q is encoded all the same", tt.want)
		}
	}
}

// names checks that each value has a name that is parsed again.
func names[T interface {
	~uint32
	String() string
}](t *testing.T, parse func(string) (T, error), all ...T) {
	t.Helper()
	for _, v := range all {
		if got, err := parse(v.String()); err != nil || got != v {
			t.Errorf("parse of %q = %v, %v", v.String(), got, err)
		}
	}
	for _, name := range []string{"", "x", T(99).String()} {
		if _, err := parse(name); err == nil {
			t.Errorf("%q is parsed", name)
		}
	}
}

func TestNames(t *testing.T) {
	names(t, ParseMode, ModeLoRA, ModeFull)
	names(t, ParseSchedule, ScheduleCosine, ScheduleConstant, ScheduleLinear, ScheduleWSD)
	names(t, ParseOptimizer, OptimizerAdamW, OptimizerAdamW8bit, OptimizerSGD)
	names(t, ParseOverLong, OverLongShorten, OverLongDrop)
}

// sourced is a run whose launcher says where model and data are from.
func sourced(t testing.TB) *Manifest {
	t.Helper()
	m := sample(t)
	m.Licences.ModelSource, m.Licences.DataSource = "moot/tiny at 1a2b3c", "https://example.org/rows.jsonl"
	return m
}

// options is a run with all that sample leaves at its default.
func options(t testing.TB) *Manifest {
	t.Helper()
	m := sample(t)
	m.LoRA.RSLoRA = true
	m.LoRA.Alphas = []ModuleAlpha{{"model.layers.0.mlp.down_proj", 32}}
	m.Tensors[0].Rows, m.Tensors[1].Cols = 2, 2
	m.Schedule = ScheduleWSD
	m.Inner.Optimizer, m.Inner.MomentumPPM, m.Inner.LoRAPlusMilli = OptimizerSGD, 900_000, 16_000
	m.Inner.DecayRounds, m.Inner.Unpacked, m.Inner.OverLong = 20, true, OverLongDrop
	return m
}

// watched is a run that takes back, ends early, goes back, and whose records
// link far back.
func watched(t testing.TB) *Manifest {
	t.Helper()
	m := sample(t)
	m.Trust = Trust{Auditors: 3, AuditSamples: 32, Probation: 5, TakeBack: true}
	m.Stop = Stop{Patience: 20, MinImprovementPPM: 1000, TargetMicro: 1_250_000}
	m.Rollback, m.SkipLinks = Rollback{Rounds: 5, WorsePPM: 30_000}, true
	return m
}

// full is a run of all parameters.
func full(t testing.TB) *Manifest {
	t.Helper()
	m := sample(t)
	m.Mode, m.LoRA = ModeFull, LoRA{}
	m.Tensors = []Tensor{{"model.embed_tokens.weight", 100, 48}, {"model.layers.0.mlp.down_proj.weight", 48, 100}, {"model.norm.weight", 1, 48}}
	return m
}

// TestGenesisFull: nothing is drawn, whatever a parameter is called.
func TestGenesisFull(t *testing.T) {
	m := full(t)
	m.Tensors[0].Name = "a.lora_A.weight"
	state, _, err := Genesis(m)
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(state.Theta, func(v int32) bool { return v != 0 }) {
		t.Error("the genesis state is not zero")
	}
}

// TestLargestLayout: the adapter of a very large model fits into a manifest.
func TestLargestLayout(t *testing.T) {
	m := sample(t)
	m.LoRA.Targets = []string{"down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"}
	m.Tensors = nil
	for layer := range 126 {
		for _, target := range m.LoRA.Targets {
			name := fmt.Sprintf("base_model.model.model.layers.%d.block.%s", layer, target)
			m.Tensors = append(m.Tensors, Tensor{name + suffixA, 4, 16384}, Tensor{name + suffixB, 16384, 4})
		}
	}
	slices.SortFunc(m.Tensors, func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > MaxManifestBytes/4 {
		t.Errorf("a manifest of %d tensors has %d bytes, want at most a quarter of what it may have", len(m.Tensors), len(b))
	}
}

// TestGenesis: B and momentum are zero, A is uniform within 1/sqrt(in).
func TestGenesis(t *testing.T) {
	m := sample(t)
	m.Tensors[0].Cols = 10_000
	state, record, err := Genesis(m)
	if err != nil {
		t.Fatal(err)
	}
	l := state.Layout
	for i := range l.Len() {
		tensor := l.Tensor(i)
		values := state.Theta[l.Offset(i):][:tensor.Rows*tensor.Cols]
		if strings.HasSuffix(tensor.Name, suffixB) {
			if slices.ContainsFunc(values, func(v int32) bool { return v != 0 }) {
				t.Errorf("%s is not zero", tensor.Name)
			}
			continue
		}
		bound := float64(1<<26) / math.Sqrt(float64(tensor.Cols))
		var sum, squares float64
		for _, v := range values {
			if x := float64(v); x > bound || x < -bound {
				t.Errorf("%s has %d, want at most %f", tensor.Name, v, bound)
			}
			sum += float64(v) / bound
			squares += float64(v) / bound * float64(v) / bound
		}
		n := float64(len(values))
		if mean := sum / n; math.Abs(mean) > 4/math.Sqrt(3*n) {
			t.Errorf("%s has the mean %f of the bound, want about 0", tensor.Name, mean)
		}
		// A uniform number has the square 1/3 with a deviation of 0.298.
		if square := squares / n; math.Abs(square-1.0/3) > 4*0.298/math.Sqrt(n) {
			t.Errorf("%s has the mean square %f, want about 1/3", tensor.Name, square)
		}
	}
	if slices.ContainsFunc(state.Momentum, func(v int32) bool { return v != 0 }) {
		t.Error("the momentum is not zero")
	}
	if err := record.Validate(); err != nil {
		t.Error(err)
	}
	id, err := m.ID()
	if err != nil {
		t.Fatal(err)
	}
	want := &msg.Record{Version: 1, Run: id, State: state.CID(), NextSeats: []msg.Seat{{Peer: m.Launcher, Since: 1}}}
	if diff := cmp.Diff(want, record, cmp.Comparer(func(a, b cid.Cid) bool { return a.Equals(b) })); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	m.Name = ""
	if _, _, err := Genesis(m); err == nil {
		t.Error("a manifest that is not valid has a genesis")
	}
}

// TestGenesisSeeds: another seed or name, other values; the same, the same.
func TestGenesisSeeds(t *testing.T) {
	draw := func(seed uint64, name string) []int32 {
		v := make([]int32, 20)
		drawUniform(v, seed, name, 16)
		return v
	}
	if !slices.Equal(draw(1, "a"), draw(1, "a")) {
		t.Error("the same seed and name give other values")
	}
	if slices.Equal(draw(1, "a"), draw(2, "a")) || slices.Equal(draw(1, "a"), draw(1, "b")) {
		t.Error("another seed or name gives the same values")
	}
	v := make([]int32, 1000)
	drawUniform(v, 1, "a", 1)
	for _, x := range v {
		if x < -1<<26 || x > 1<<26 {
			t.Errorf("%d is out of bounds", x)
		}
	}
}

func TestVectorsGenesis(t *testing.T) {
	type draw struct {
		Seed   uint64
		Name   string
		In     int
		Values []int32
	}
	var file struct {
		Manifest         *Manifest
		Encoded          string // hexadecimal
		RunID            string
		Draws            []draw
		StateCID         string
		FirstValues      []int32
		GenesisRecord    string // hexadecimal
		GenesisRecordCID string
	}
	file.Manifest = sample(t)
	b, err := file.Manifest.Encode()
	if err != nil {
		t.Fatal(err)
	}
	state, record, err := Genesis(file.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	r, err := record.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []draw{{1, "a", 1, nil}, {1, "a", 16, nil}, {1<<64 - 1, "b", 4096, nil}, {0, "c", fold.MaxParams, nil}} {
		d.Values = make([]int32, 11)
		drawUniform(d.Values, d.Seed, d.Name, d.In)
		file.Draws = append(file.Draws, d)
	}
	file.Encoded, file.RunID = hex.EncodeToString(b), msg.RawCID(b).String()
	file.StateCID, file.FirstValues = state.CID().String(), state.Theta[:10]
	file.GenesisRecord, file.GenesisRecordCID = hex.EncodeToString(r), msg.RawCID(r).String()
	vectors.Check(t, "genesis.json", file)
}

// crowded is of a run with cells whose seats rotate.
func crowded(t *testing.T) *Manifest {
	m := sample(t)
	m.Seats, m.MinPeers, m.RotateRounds = 256, 48, 16
	return m
}

// laddered is of a run that may go to smaller codecs.
func laddered(t *testing.T) *Manifest {
	m := sample(t)
	m.CodecBits, m.MinCodecBits = 8, 1
	return m
}

// judged is of a run whose audits are judged by the rules with that number.
func judged(t testing.TB, rules uint32) *Manifest {
	m := sample(t)
	m.Trust = Trust{Auditors: 3, AuditSamples: 32, Probation: 5, Judgement: rules}
	return m
}

// keeping is of a run that keeps seats of peers that are away.
func keeping(t testing.TB) *Manifest {
	m := judged(t, 2)
	m.KeepRounds = 8
	return m
}

// timely is of a run that finds its steps and its deadlines by itself.
func timely(t *testing.T) *Manifest {
	m := sample(t)
	m.Inner.StartSteps, m.FollowArrivals, m.MaxTokens = m.Inner.MaxSteps, true, 1_000_000
	return m
}

// measuredRun is of a run in which drawn peers measure the held-out loss.
func measuredRun(t testing.TB) *Manifest {
	t.Helper()
	m := sample(t)
	m.EvalPeers = 5
	return m
}

// pledged is of a run whose proposals have pledges.
func pledged(t testing.TB) *Manifest {
	t.Helper()
	m := sample(t)
	m.Pledges = true
	return m
}

// dated is of a run whose requests for seats say until when they have an effect.
func dated(t testing.TB) *Manifest {
	t.Helper()
	m := sample(t)
	m.DatedRequests = true
	return m
}

// overlapping is of a run whose seats train while their deltas travel.
func overlapping(t testing.TB) *Manifest {
	m := sample(t)
	m.Inner.OverlapSteps = 10
	return m
}

// TestVectorsManifest: manifests with what has been added to the first ones,
// which are as they were: see genesis.json.
func TestVectorsManifest(t *testing.T) {
	type vector struct {
		Manifest *Manifest
		Encoded  string // hexadecimal
		RunID    string
		StateCID string
	}
	var file []vector
	for _, m := range []*Manifest{options(t), full(t), watched(t), crowded(t), laddered(t), judged(t, 1), timely(t), measuredRun(t), overlapping(t), judged(t, 2), sourced(t), pledged(t), keeping(t), dated(t), judged(t, 3)} {
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		state, _, err := Genesis(m)
		if err != nil {
			t.Fatal(err)
		}
		file = append(file, vector{m, hex.EncodeToString(b), msg.RawCID(b).String(), state.CID().String()})
	}
	vectors.Check(t, "manifest.json", file)
}

func FuzzDecode(f *testing.F) {
	b, err := sample(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, m := range []*Manifest{options(f), full(f), judged(f, 2), measuredRun(f), overlapping(f), keeping(f)} {
		if b, err = m.Encode(); err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		if again, err := m.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("what was decoded is not encoded as it was: %v", err)
		}
	})
}

func BenchmarkGenesis(b *testing.B) {
	v := make([]int32, 5_000_000)
	for b.Loop() {
		drawUniform(v, 1, "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight", 4096)
	}
}
