package app

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/proto/run"
)

func TestDecimal(t *testing.T) {
	for _, tt := range []struct {
		v, unit float64
		want    uint64
		ok      bool
	}{
		{2e-4, 1e9, 200_000, true},
		{0.003, 1e9, 3_000_000, true},
		{0.1, 1e6, 100_000, true},
		{0.9999, 1e6, 999_900, true},
		{1e-8, 1e12, 10_000, true},
		{0.01, 1e12, 10_000_000_000, true},
		{0, 1e3, 0, true},
		{1, 1e9, 1e9, true},
		{1e6, 1e3, 1e9, true},
		{0.0005, 1e3, 0, false},
		{0.12345678, 1e6, 0, false},
		{1.5e-9, 1e9, 0, false},
		{1e-10, 1e9, 0, false}, // not 0
		{-1, 1e3, 0, false},
		{1e30, 1e9, 0, false},
	} {
		if got, ok := decimal(tt.v, tt.unit); ok != tt.ok || ok && got != tt.want {
			t.Errorf("decimal(%v, %v) = %d, %v; want %d, %v", tt.v, tt.unit, got, ok, tt.want, tt.ok)
		}
	}
}

// Every decimal that has a place in a manifest is taken, and comes out as it
// was written.
func TestDecimalsAreExact(t *testing.T) {
	for _, unit := range []float64{1e3, 1e6, 1e9, 1e12} {
		for _, whole := range []uint64{1, 3, 7, 999, 12_345, 999_999, 1_000_001, 987_654_321} {
			if got, ok := decimal(float64(whole)/unit, unit); !ok || got != whole {
				t.Errorf("decimal(%v, %v) = %d, %v; want %d", float64(whole)/unit, unit, got, ok, whole)
			}
		}
	}
}

func TestManifest(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, n)
	req := &api.LaunchRequest{Name: "run.toml", TOML: runText(m, d, `
rounds = 7
max_tokens = 1000000
seats = 5
min_peers = 2
period = "1500ms"
codec_bits = 4
follow_arrivals = true
eval_samples = 9
seed = 42
[lora]
rank = 3
alpha = 7
targets = ["v_proj", "q_proj", "v_proj"]
[inner]
learning_rate = 0.0021
schedule = "constant"
beta1 = 0.85
beta2 = 0.951
epsilon = 1e-7
weight_decay = 0.01
clip = 0.5
warmup_steps = 4
min_steps = 2
overlap_steps = 5
max_steps = 11
start_steps = 5
batch_samples = 6
sequence_tokens = 100
[outer]
learning_rate = 0.7
momentum = 0.6
[admission]
mode = "list"
allowed = ["12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"]
work_bits = 3
[trust]
auditors = 2
audit_samples = 7
probation = 4
retrace = 0.5
outsiders = 4
take_back = true
[licence]
model = "mine"
model_source = "me/mine"
`)}
	got, err := n.manifest(t.Context(), req, time.Unix(1_700_000_000, 5))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Tensors) == 0 || len(got.Tensors)%4 != 0 { // A and B of two modules in each layer
		t.Errorf("%d tensors", len(got.Tensors))
	}
	friend, err := peer.Decode("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")
	if err != nil {
		t.Fatal(err)
	}
	want := &run.Manifest{
		Version: 1, Name: "test", Model: got.Model, Dataset: got.Dataset, ModelBytes: uint64(m.Bytes), DatasetBytes: uint64(d.Bytes),
		LoRA: run.LoRA{Rank: 3, Alpha: 7, Targets: []string{"q_proj", "v_proj"}}, Tensors: got.Tensors, GenesisSeed: 42,
		Inner: run.Inner{
			LearningRateNano: 2_100_000, Beta1PPM: 850_000, Beta2PPM: 951_000, EpsilonPico: 100_000, WeightDecayPPM: 10_000,
			ClipMilli: 500, WarmupSteps: 4, MinSteps: 2, MaxSteps: 11, StartSteps: 5, BatchSamples: 6, MaxTokens: 100, OverlapSteps: 5,
		},
		Outer: run.Outer{LearningRateQ16: 45875, MomentumQ16: 39322}, CodecBits: 4, PeriodMillis: 1500, Seats: 5, MinPeers: 2,
		MaxRounds: 7, MaxTokens: 1_000_000, Schedule: run.ScheduleConstant, EvalSamples: 9,
		Licences: run.Licences{Model: "mine", Data: d.Licence, ModelSource: "me/mine", DataSource: d.Source}, Launcher: n.host.ID(), Created: 1_700_000_000, Template: "alpaca",
		Trust:     run.Trust{Auditors: 2, AuditSamples: 7, Probation: 4, TakeBack: true, RetracePPM: 500_000, Outsiders: 4, Judgement: run.NewestJudgement},
		Admission: run.Admission{Mode: run.AdmissionList, Allowed: []peer.ID{friend}, WorkBits: 3}, SkipLinks: true, Pledges: true, DatedRequests: true, RotateRounds: 16, KeepRounds: 8, EvalPeers: 5, FollowArrivals: true,
	}
	if diff := cmp.Diff(want.Inner, got.Inner); diff != "" {
		t.Errorf("inner (-want +got):\n%s", diff)
	}
	wantBytes, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if gotBytes, err := got.Encode(); err != nil || string(gotBytes) != string(wantBytes) || got.Model.String() != m.ID || got.Dataset.String() != d.ID {
		t.Errorf("manifest is %+v (%v), want %+v", got, err, want)
	}
}

// Without targets, all linear layers get an adapter, and are named.
func TestManifestAllLinear(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, n)
	got, err := n.manifest(t.Context(), &api.LaunchRequest{TOML: runText(m, d, "inner.sequence_tokens = 64")}, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"}
	if diff := cmp.Diff(want, got.LoRA.Targets); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What patterns choose is resolved: the manifest names modules and has their
// ranks and alphas.
func TestManifestOptions(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, n)
	got, err := n.manifest(t.Context(), &api.LaunchRequest{TOML: runText(m, d, `
[lora]
rank = 8
targets = '.*\.(q_proj|v_proj|down_proj)'
exclude_modules = ["layers.1.self_attn.v_proj"]
layers_to_transform = [0, 1]
rslora = true
rank_pattern = {v_proj = 1, q_proj = 4, "layers.1.self_attn.q_proj" = 2, "mlp.down_proj" = 8}
alpha_pattern = {"layers.0.mlp.down_proj" = 5, v_proj = 16}
[inner]
sequence_tokens = 64
optimizer = "sgd"
momentum = 0.85
schedule = "wsd"
decay_rounds = 7
lora_plus_ratio = 2.5
packing = false
over_long = "drop"
`)}, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	const p = "model.layers."
	wantTargets := []string{p + "0.mlp.down_proj", p + "0.self_attn.q_proj", p + "0.self_attn.v_proj", p + "1.mlp.down_proj", p + "1.self_attn.q_proj"}
	if diff := cmp.Diff(run.LoRA{
		Rank: 8, Alpha: 16, Targets: wantTargets, RSLoRA: true, Alphas: []run.ModuleAlpha{{Module: p + "0.mlp.down_proj", Alpha: 5}},
	}, got.LoRA); diff != "" {
		t.Errorf("lora (-want +got):\n%s", diff)
	}
	var ranks []uint32
	for i := 0; i < len(got.Tensors); i += 2 {
		ranks = append(ranks, got.Tensors[i].Rows)
	}
	if diff := cmp.Diff([]uint32{8, 4, 1, 8, 2}, ranks); diff != "" {
		t.Errorf("ranks (-want +got):\n%s", diff)
	}
	in := got.Inner
	if in.Optimizer != run.OptimizerSGD || in.MomentumPPM != 850_000 || in.LoRAPlusMilli != 2500 || got.Schedule != run.ScheduleWSD ||
		in.DecayRounds != 7 || !in.Unpacked || in.OverLong != run.OverLongDrop {
		t.Errorf("inner %+v, schedule %v", in, got.Schedule)
	}
	// The adapter that is made of it is the one that was asked for.
	s := runner.Spec(got)
	a, err := lora.New(s, modulesOf(got))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []float64{5 / math.Sqrt(8), 16 / math.Sqrt(4), 16, 16 / math.Sqrt(8), 16 / math.Sqrt(2)} {
		if part := a.Parts()[i]; part.Path != wantTargets[i] || part.Scale != float32(want) {
			t.Errorf("scale of %s is %v, want %v of %s", part.Path, part.Scale, want, wantTargets[i])
		}
	}
}

// Who does not say how long samples are gets what the model was made for.
func TestManifestShortContext(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, n)
	got, err := n.manifest(t.Context(), &api.LaunchRequest{TOML: runText(m, d, "")}, time.Unix(1, 0))
	if err != nil || got.Inner.MaxTokens != 256 {
		t.Errorf("%v, %+v, want samples of 256 tokens", err, got)
	}
}

func TestManifestFull(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, n)
	got, err := n.manifest(t.Context(), &api.LaunchRequest{TOML: runText(m, d, "mode = \"full\"\ninner.sequence_tokens = 64")}, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	layout, err := got.Layout()
	if err != nil || got.Mode != run.ModeFull || len(got.LoRA.Targets) > 0 || uint64(layout.Params()) != uint64(m.Parameters) {
		t.Errorf("%v, mode %v, %+v, %d parameters, want %d", err, got.Mode, got.LoRA, layout.Params(), m.Parameters)
	}
	// A model that is too large is refused by its configuration alone.
	large := model.Llama(1024, 4096, 24, 16, 32000, 2048)
	if err := describeFull(&large, got); err == nil || !strings.Contains(err.Error(), "at most 150 million parameters; this one has") {
		t.Errorf("a large model: %v", err)
	}
}

func TestManifestErrors(t *testing.T) {
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	m, d := imported(t, n)
	swapped := runText(api.Model{ID: d.ID}, api.Dataset{ID: m.ID}, "")
	for _, tt := range []struct {
		name, text string
		code       api.Code
		want       string
	}{
		{"toml", "name = ", api.CodeConfig, "run.toml:1: "},
		{"bound", runText(m, d, "seats = 2000"), api.CodeConfig, "run.toml:4: seats is 2000, must be at most 1024"},
		{"model", runText(api.Model{ID: "llama"}, d, ""), api.CodeConfig, `run.toml:2: model is "llama", must be a CID`},
		{"data", runText(m, api.Dataset{ID: "alpaca"}, "inner.sequence_tokens = 64"), api.CodeConfig, `run.toml:3: data is "alpaca", must be a CID`},
		{"no such model", swapped, api.CodeNotFound, "model " + d.ID + " is not here"},
		{"no such data", runText(m, api.Dataset{ID: m.ID}, "inner.sequence_tokens = 64"), api.CodeNotFound, "data set " + m.ID + " is not here"},
		{"too fine", runText(m, d, "[inner]\nweight_decay = 0.00000012"), api.CodeConfig, "run.toml:5: inner.weight_decay is 1.2e-07, must be a multiple of 1e-06"},
		{"long", runText(m, d, "[inner]\nsequence_tokens = 100000"), api.CodeConfig, "run.toml:5: inner.sequence_tokens is 100000, must be at most"},
		{"targets", runText(m, d, "inner.sequence_tokens = 64\n[lora]\ntargets = [\"c_attn\"]"), api.CodeConfig, "run.toml:6: lora.targets cannot be used"},
		{"all excluded", runText(m, d, "[lora]\nexclude_modules = '.*'"), api.CodeConfig, "all targets of the adapter (all-linear) are excluded"},
		{"pattern", runText(m, d, "inner.sequence_tokens = 64\n[lora]\ntargets = 'x_proj'"), api.CodeConfig, "run.toml:6: lora.targets cannot be used: no layer"},
		{"block", runText(m, d, "inner.sequence_tokens = 64\n[lora]\nlayers_to_transform = [0, 99]"), api.CodeConfig, "run.toml:6: lora.layers_to_transform has 99"},
		{"rank pattern", runText(m, d, "inner.sequence_tokens = 64\n[lora]\ntargets = ['q_proj']\nrank_pattern = {v_proj = 2}"), api.CodeConfig, `run.toml:7: lora.rank_pattern has "v_proj"`},
		{"template", runText(m, d, "template = \"chatml\"\ninner.sequence_tokens = 64"), api.CodeConfig, `run.toml:4: template is "chatml"`},
		{"licence", runText(m, d, "inner.sequence_tokens = 64\nlicence.model = \"a\\u0001\""), api.CodeConfig, "run.toml:5: licence.model is"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := n.manifest(t.Context(), &api.LaunchRequest{Name: "run.toml", TOML: tt.text}, time.Unix(1, 0))
			wantCode(t, err, tt.code, tt.want)
		})
	}
}

func TestClip(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"MIT", "MIT"},
		{strings.Repeat("x", 65), strings.Repeat("x", 64)},
		{strings.Repeat("x", 63) + "é", strings.Repeat("x", 63)},
		{strings.Repeat("é", 40), strings.Repeat("é", 32)},
	} {
		if got := clip(tt.in); got != tt.want {
			t.Errorf("clip(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}
