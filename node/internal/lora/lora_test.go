package lora

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/moot-net/moot/shard/safetensors"
)

// twelve makes the layers of a model of twelve blocks: more than ten, so that
// bytewise order differs from numeric order.
func twelve() []Module {
	var list []Module
	for i := range 12 {
		p := fmt.Sprintf("model.layers.%d.", i)
		list = append(list,
			Module{Path: p + "self_attn.q_proj", In: 8, Out: 6}, Module{Path: p + "self_attn.v_proj", In: 8, Out: 4},
			Module{Path: p + "mlp.up_proj", In: 8, Out: 10}, Module{Path: p + "mlp.down_proj", In: 10, Out: 8})
	}
	return list
}

func TestLayout(t *testing.T) {
	s := Spec{Rank: 3, Alpha: 6, Targets: []string{"q_proj", "down_proj"}}
	layout, err := s.Layout(twelve())
	if err != nil {
		t.Fatal(err)
	}
	want := []TensorInfo{
		{"base_model.model.model.layers.0.mlp.down_proj.lora_A.weight", 3, 10},
		{"base_model.model.model.layers.0.mlp.down_proj.lora_B.weight", 8, 3},
		{"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", 3, 8},
		{"base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", 6, 3},
		{"base_model.model.model.layers.1.mlp.down_proj.lora_A.weight", 3, 10},
	}
	if diff := cmp.Diff(want, layout[:5]); diff != "" {
		t.Error(diff)
	}
	if len(layout) != 48 || layout[8].Name != "base_model.model.model.layers.10.mlp.down_proj.lora_A.weight" {
		t.Errorf("%d tensors, the ninth is %s", len(layout), layout[8].Name)
	}
	if n := Params(layout); n != 12*(3*10+8*3+3*8+6*3) {
		t.Errorf("Params() = %d", n)
	}
	// The order of modules and targets does not matter.
	modules := twelve()
	slices.Reverse(modules)
	slices.Reverse(s.Targets)
	again, err := s.Layout(modules)
	if err != nil || !slices.Equal(again, layout) {
		t.Errorf("another order of modules gives another layout (%v)", err)
	}
}

func paths(t *testing.T, s Spec) []string {
	t.Helper()
	a, err := New(s, twelve())
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, p := range a.Parts() {
		list = append(list, strings.TrimPrefix(p.Path, "model.layers."))
	}
	return list
}

func TestTargets(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    Spec
		want []string // nil: all
	}{
		{"suffix at a dot", Spec{Targets: []string{"1.mlp.up_proj"}}, []string{"1.mlp.up_proj"}},
		{"whole path", Spec{Targets: []string{"model.layers.3.mlp.up_proj"}}, []string{"3.mlp.up_proj"}},
		{"blocks", Spec{Targets: []string{"q_proj"}, Blocks: []int{11, 2}}, []string{"2.self_attn.q_proj", "11.self_attn.q_proj"}},
		{"pattern", Spec{Pattern: `.*\.layers\.[02]\..*\.(q|v)_proj`}, []string{
			"0.self_attn.q_proj", "0.self_attn.v_proj", "2.self_attn.q_proj", "2.self_attn.v_proj",
		}},
		{"pattern matches the whole path", Spec{Pattern: `model\.layers\.1\.mlp\.up_proj|q`}, []string{"1.mlp.up_proj"}},
		{"all", Spec{Targets: []string{AllLinear}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.s.Rank, tt.s.Alpha = 1, 1
			got := paths(t, tt.s)
			if tt.want == nil && len(got) != len(twelve()) || tt.want != nil && !slices.Equal(got, tt.want) {
				t.Errorf("targets are %v, want %v", got, tt.want)
			}
		})
	}
	for name, s := range map[string]Spec{
		"part of a name":  {Rank: 1, Targets: []string{"proj"}},
		"one is unknown":  {Rank: 1, Targets: []string{"q_proj", "x_proj"}},
		"none":            {Rank: 1},
		"no such block":   {Rank: 1, Targets: []string{"q_proj"}, Blocks: []int{99}},
		"rank 0":          {Targets: []string{"q_proj"}},
		"huge rank":       {Rank: MaxRank + 1, Targets: []string{"q_proj"}},
		"broken pattern":  {Rank: 1, Pattern: "("},
		"broken override": {Rank: 1, Targets: []string{"q_proj"}, Ranks: []Override{{"(", 2}}},
		"rank overridden": {Rank: 1, Targets: []string{"q_proj"}, Ranks: []Override{{"q_proj", 0}}},
	} {
		if _, err := New(s, twelve()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestScale(t *testing.T) {
	s := Spec{
		Rank: 4, Alpha: 8, Targets: []string{"q_proj", "down_proj"},
		Ranks:  []Override{{"layers.0.self_attn.q_proj", 16}, {"down_proj", 2}},
		Alphas: []Override{{"down_proj", 10}},
	}
	for _, rs := range []bool{false, true} {
		s.RSLoRA = rs
		a, err := New(s, twelve())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range a.Parts() {
			rank, alpha := 4, 8.0
			switch {
			case strings.HasSuffix(p.Path, "down_proj"):
				rank, alpha = 2, 10
			case p.Path == "model.layers.0.self_attn.q_proj":
				rank = 16
			}
			want := alpha / float64(rank)
			if rs {
				want = alpha / math.Sqrt(float64(rank))
			}
			if p.Rank != rank || math.Abs(float64(p.Scale)-want) > 1e-6 {
				t.Errorf("%s has rank %d and scale %v, want %d and %v", p.Path, p.Rank, p.Scale, rank, want)
			}
			if a.Layout()[p.A].Rows != rank || a.Layout()[p.B].Cols != rank {
				t.Errorf("%s: tensors do not have its rank", p.Path)
			}
		}
	}
}

func filled(t testing.TB, s Spec) *Adapter {
	t.Helper()
	a, err := New(s, twelve())
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range a.Values() {
		a.Values()[i] = float32(r.NormFloat64())
	}
	return a
}

func TestInit(t *testing.T) {
	a := filled(t, Spec{Rank: 50, Alpha: 3, Targets: []string{"up_proj"}})
	a.Init(1)
	for _, p := range a.Parts() {
		sum, most := 0.0, 0.0
		for _, v := range a.Tensor(p.A) {
			sum += float64(v)
			most = max(most, math.Abs(float64(v)))
		}
		bound := 1 / math.Sqrt(8)
		if most > bound || most < 0.95*bound || math.Abs(sum) > 30*bound {
			t.Errorf("%s: A has a maximum of %v and a sum of %v, the bound is %v", p.Path, most, sum, bound)
		}
		if slices.Max(a.Tensor(p.B)) != 0 || slices.Min(a.Tensor(p.B)) != 0 {
			t.Errorf("%s: B is not zero", p.Path)
		}
	}
	first := slices.Clone(a.Values())
	if slices.Equal(a.Tensor(a.Parts()[0].A), a.Tensor(a.Parts()[1].A)) {
		t.Error("two layers start with the same values")
	}
	if a.Init(2); slices.Equal(a.Values(), first) {
		t.Error("another seed gives the same values")
	}
	if a.Init(1); !slices.Equal(a.Values(), first) {
		t.Error("the same seed gives other values")
	}
}

func TestMerge(t *testing.T) {
	a := filled(t, Spec{Rank: 2, Alpha: 3, Targets: []string{"up_proj"}})
	p := a.Parts()[4]
	weight := make([]float32, p.In*p.Out)
	for i := range weight {
		weight[i] = float32(i)
	}
	if err := a.MergeInto(weight, p); err != nil {
		t.Fatal(err)
	}
	ta, tb := a.Tensor(p.A), a.Tensor(p.B)
	for o := range p.Out {
		for i := range p.In {
			want := float64(o*p.In + i)
			for r := range 2 {
				want += 1.5 * float64(tb[o*2+r]) * float64(ta[r*p.In+i])
			}
			if got := weight[o*p.In+i]; math.Abs(float64(got)-want) > 1e-5 {
				t.Fatalf("merged weight (%d,%d) is %v, want %v", o, i, got, want)
			}
		}
	}
	if err := a.MergeInto(weight[1:], p); err == nil {
		t.Error("a weight of the wrong size was merged into")
	}
}

func TestFolderRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := Spec{Rank: rapid.IntRange(1, 9).Draw(rt, "rank"), Alpha: rapid.IntRange(1, 64).Draw(rt, "alpha"), RSLoRA: rapid.Bool().Draw(rt, "rslora")}
		if rapid.Bool().Draw(rt, "pattern") {
			s.Pattern = `.*\.(q|v)_proj`
		} else {
			s.Targets = rapid.Permutation([]string{"down_proj", "layers.3.self_attn.v_proj", "q_proj"}).Draw(rt, "targets")
		}
		if rapid.Bool().Draw(rt, "blocks") {
			s.Blocks = []int{3, 10}
		}
		if rapid.Bool().Draw(rt, "overrides") {
			s.Ranks = []Override{{"q_proj", 5}, {".*", 2}}
			s.Alphas = []Override{{"layers.3.*", 7}}
		}
		a := filled(t, s)
		dir, again := t.TempDir(), t.TempDir()
		if err := a.Write(dir, "org/base"); err != nil {
			rt.Fatal(err)
		}
		b, err := Read(dir, twelve())
		if err != nil {
			rt.Fatal(err)
		}
		if !slices.Equal(a.Values(), b.Values()) || !slices.Equal(a.Layout(), b.Layout()) || !slices.Equal(a.Parts(), b.Parts()) {
			rt.Fatal("an adapter read back is another one")
		}
		if err := b.Write(again, "org/base"); err != nil {
			rt.Fatal(err)
		}
		for _, name := range []string{ConfigFile, WeightsFile} {
			x, errX := os.ReadFile(filepath.Join(dir, name))
			y, errY := os.ReadFile(filepath.Join(again, name))
			if errX != nil || errY != nil || !bytes.Equal(x, y) {
				rt.Fatalf("%s written again differs (%v, %v)\n%s\n%s", name, errX, errY, x[:min(len(x), 900)], y[:min(len(y), 900)])
			}
		}
	})
}

// TestConfigBytes pins adapter_config.json.
func TestConfigBytes(t *testing.T) {
	dir := t.TempDir()
	if err := filled(t, Spec{Rank: 4, Alpha: 8, Targets: []string{"q_proj", "down_proj"}}).Write(dir, "org/base"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "alpha_pattern": {},
  "base_model_name_or_path": "org/base",
  "bias": "none",
  "fan_in_fan_out": false,
  "inference_mode": true,
  "init_lora_weights": true,
  "layers_pattern": null,
  "layers_to_transform": null,
  "lora_alpha": 8,
  "lora_dropout": 0.0,
  "modules_to_save": null,
  "peft_type": "LORA",
  "r": 4,
  "rank_pattern": {},
  "revision": null,
  "target_modules": [
    "down_proj",
    "q_proj"
  ],
  "task_type": "CAUSAL_LM",
  "use_dora": false,
  "use_rslora": false
}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestReadRefuses(t *testing.T) {
	s := Spec{Rank: 2, Alpha: 2, Targets: []string{"q_proj"}}
	for _, tt := range []struct {
		name   string
		config map[string]any
		edit   func(list []safetensors.Tensor) []safetensors.Tensor
		want   string
	}{
		{"another kind", map[string]any{"peft_type": "IA3"}, nil, `peft_type is "IA3"`},
		{"DoRA", map[string]any{"use_dora": true}, nil, "use_dora is true"},
		{"biases", map[string]any{"bias": "some"}, nil, `bias is "some"`},
		{"saved modules", map[string]any{"modules_to_save": []string{"lm_head"}}, nil, "modules_to_save"},
		{"changed base", map[string]any{"init_lora_weights": "pissa"}, nil, "init_lora_weights is pissa"},
		{"unknown", map[string]any{"lora_gamma": 3}, nil, "lora_gamma is 3"},
		{"excluded", map[string]any{"exclude_modules": []string{"q_proj"}}, nil, "all targets of the adapter (q_proj) are excluded"},
		{"broken exclusion", map[string]any{"exclude_modules": "("}, nil, "exclude pattern"},
		{"broken layers", map[string]any{"layers_pattern": "(", "layers_to_transform": 1}, nil, "layers pattern"},
		{"LoRA biases", map[string]any{"lora_bias": true}, nil, "lora_bias is true"},
		{"no targets", map[string]any{"target_modules": nil}, nil, "target_modules is missing"},
		{"targets of another model", map[string]any{"target_modules": []string{"c_attn"}}, nil, "c_attn"},
		{"rank of another", map[string]any{"r": 3}, nil, "want (3,8)"},
		{"broken alpha", map[string]any{"lora_alpha": 1.5}, nil, "lora_alpha is 1.5"},
		{"rank is text", map[string]any{"r": "3"}, nil, "r is"},
		{"tensor missing", nil, func(l []safetensors.Tensor) []safetensors.Tensor { return l[1:] }, "is missing"},
		{"tensor too many", nil, func(l []safetensors.Tensor) []safetensors.Tensor {
			return append(l, safetensors.Tensor{Name: "base_model.model.lm_head.weight", DType: safetensors.F32, Shape: []int64{1}, Values: []float32{1}})
		}, "lm_head"},
		{"one dimension", nil, func(l []safetensors.Tensor) []safetensors.Tensor {
			l[0].Shape = []int64{int64(len(l[0].Values))}
			return l
		}, "want (2,8)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			a := filled(t, s)
			if err := a.Write(dir, ""); err != nil {
				t.Fatal(err)
			}
			editConfig(t, dir, tt.config)
			if tt.edit != nil {
				var buf bytes.Buffer
				if err := safetensors.Write(&buf, tt.edit(a.tensors()), nil); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, WeightsFile), buf.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := Read(dir, twelve()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want one with %q", err, tt.want)
			}
		})
	}
	if _, err := Read(t.TempDir(), twelve()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty folder gave %v", err)
	}
}

// TestReadAlphaFloat: some programs write alpha with a point.
func TestReadAlphaFloat(t *testing.T) {
	s, err := ParseConfig([]byte(`{"peft_type":"LORA","lora_alpha":16.0,"target_modules":["q_proj"]}`))
	if err != nil || s.Alpha != 16 || s.Rank != 8 {
		t.Errorf("ParseConfig() = %+v, %v", s, err)
	}
}

func editConfig(t *testing.T, dir string, change map[string]any) {
	t.Helper()
	path := filepath.Join(dir, ConfigFile)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(b, &config); err != nil {
		t.Fatal(err)
	}
	for k, v := range change {
		config[k] = v
	}
	if b, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"peft_type":"LORA","r":4,"lora_alpha":8,"target_modules":["q_proj"],"rank_pattern":{"q":2},"layers_to_transform":1}`))
	f.Add([]byte(`{"peft_type":"LORA","target_modules":"all-linear","alpha_pattern":{"a":1,"a":2},"init_lora_weights":null}`))
	f.Add([]byte(`{"peft_type":"LORA","target_modules":".*[qv]_proj","layers_to_transform":[1,-2],"use_rslora":true}`))
	f.Add([]byte(`{"peft_type":"LORA","target_modules":["q_proj"],"exclude_modules":["layers.1.q"],"layers_pattern":"layers","layers_to_transform":[1],"use_dora":true,"bias":"all"}`))
	f.Add([]byte(`{"peft_type":"LORA","target_modules":["q_proj"],"exclude_modules":".*1.*","layers_pattern":["h","layers"],"layers_to_transform":3,"modules_to_save":["lm_head"],"fan_in_fan_out":true}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseConfig(b)
		if err != nil {
			return
		}
		a, err := New(s, twelve())
		if err != nil {
			return
		}
		if len(a.Values()) != Params(a.Layout()) || !slices.IsSortedFunc(a.Layout(), func(x, y TensorInfo) int { return strings.Compare(x.Name, y.Name) }) {
			t.Fatalf("%+v: %d values, layout %v", s, len(a.Values()), a.Layout())
		}
	})
}
