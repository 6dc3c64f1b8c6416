package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/shard/safetensors"
)

// gpt2 is a model with square weights, stored (in,out).
func gpt2() model.Config {
	c := model.Llama(24, 24, 2, 4, 50, 64)
	c.Architecture = "GPT2LMHeadModel"
	c.Norm, c.Activation, c.Position, c.TiedHead = model.LayerNorm, model.GELUTanh, model.Learned, true
	c.QKVBias, c.OBias, c.MLPBias, c.Rope, c.InitRange = true, true, true, model.Rope{}, 0.3
	return c
}

// folder writes a model, and a PEFT folder of an adapter with random values
// for it: what PEFT would have written, made by hand where lora does not write
// it. It returns the adapter as it is read.
func folder(t *testing.T, c model.Config, d safetensors.DType, s lora.Spec, whole ...lora.Saved) (dir string, a *lora.Adapter) {
	t.Helper()
	dir = t.TempDir()
	m, err := model.New(c, 5, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Save(dir, d); err != nil {
		t.Fatal(err)
	}
	if a, err = lora.New(s, Modules(c)); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(8, 8))
	for i := range a.Values() {
		a.Values()[i] = float32(0.3 * r.NormFloat64())
	}
	var list []safetensors.Tensor
	for _, p := range a.Parts() {
		for i := range a.Magnitude(p) {
			a.Magnitude(p)[i] = float32(1.2 + 0.2*r.NormFloat64())
		}
	}
	adapter := filepath.Join(dir, "adapter")
	if err := a.Write(adapter, "base"); err != nil {
		t.Fatal(err)
	}
	// Add whole tensors.
	f, err := safetensors.Open(filepath.Join(adapter, lora.WeightsFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range f.Header().Tensors {
		v, _, err := f.ReadTensor(info.Name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, safetensors.Tensor{Name: info.Name, DType: safetensors.F32, Shape: info.Shape, Values: v})
	}
	f.Close()
	for _, s := range whole {
		for s.Values == nil || int64(len(s.Values)) < s.Shape[0]*append(s.Shape, 1)[1] {
			s.Values = append(s.Values, float32(0.3*r.NormFloat64()))
		}
		list = append(list, safetensors.Tensor{Name: "base_model.model." + s.Name, DType: safetensors.F32, Shape: s.Shape, Values: s.Values})
	}
	slices.SortFunc(list, func(x, y safetensors.Tensor) int { return strings.Compare(x.Name, y.Name) })
	w, err := os.Create(filepath.Join(adapter, lora.WeightsFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(safetensors.Write(w, list, nil), w.Close()); err != nil {
		t.Fatal(err)
	}
	if a, err = lora.ReadAny(adapter, Modules(c)); err != nil {
		t.Fatal(err)
	}
	return dir, a
}

// TestMerged: every kind of adapter computes the same applied and merged, and
// a wrong merge is found.
func TestMerged(t *testing.T) {
	llama, tied, biased := tinyConfig(), tinyConfig(), tinyConfig()
	tied.TiedHead = true
	biased.Architecture, biased.QKVBias = "Qwen2ForCausalLM", true
	all := []string{lora.AllLinear}
	m, err := model.New(tied, 5, model.Options{}) // as folder does
	if err != nil {
		t.Fatal(err)
	}
	embedding := lora.Saved{Name: "lm_head.base_layer.weight", Shape: []int64{50, 24}, Values: m.Stored(m.Params()[0])}
	for _, tt := range []struct {
		name  string
		c     model.Config
		s     lora.Spec
		whole []lora.Saved
	}{
		{"plain", llama, lora.Spec{Targets: all}, nil},
		{"rslora", llama, lora.Spec{Targets: all, RSLoRA: true}, nil},
		{"dora", llama, lora.Spec{Targets: all, DoRA: true}, nil},
		{"dora, biases", biased, lora.Spec{Targets: []string{"q_proj", "down_proj"}, DoRA: true, Bias: "lora_only"}, []lora.Saved{
			{Name: "model.layers.1.self_attn.q_proj.base_layer.bias", Shape: []int64{24}},
		}},
		{"other biases", biased, lora.Spec{Targets: []string{"down_proj"}, Bias: "all"}, []lora.Saved{
			{Name: "model.layers.0.self_attn.v_proj.bias", Shape: []int64{12}},
		}},
		{"head", llama, lora.Spec{Targets: []string{"q_proj", "lm_head"}}, nil},
		{"head, dora", llama, lora.Spec{Targets: []string{"q_proj", "lm_head"}, DoRA: true}, nil},
		{"head of a tied model", tied, lora.Spec{Targets: []string{"q_proj", "lm_head"}}, nil},
		{"head of a tied model, dora", tied, lora.Spec{Targets: []string{"lm_head"}, DoRA: true}, nil},
		{"head of a tied model, embedding saved", tied, lora.Spec{Targets: []string{"up_proj", "lm_head"}}, []lora.Saved{embedding}},
		{"whole", llama, lora.Spec{Targets: all, SaveModules: []string{"lm_head", "embed_tokens", "norm", "input_layernorm"}}, []lora.Saved{
			{Name: "lm_head.weight", Shape: []int64{50, 24}},
			{Name: "model.embed_tokens.weight", Shape: []int64{50, 24}},
			{Name: "model.norm.weight", Shape: []int64{24}},
			{Name: "model.layers.1.input_layernorm.weight", Shape: []int64{24}},
		}},
		{"whole head of a tied model", tied, lora.Spec{Targets: all, SaveModules: []string{"lm_head"}}, []lora.Saved{
			{Name: "lm_head.weight", Shape: []int64{50, 24}},
		}},
		{"gpt2", gpt2(), lora.Spec{Targets: all}, nil},
		{"gpt2, dora", gpt2(), lora.Spec{Targets: []string{"attn.c_proj", "c_fc"}, DoRA: true}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.s.Rank, tt.s.Alpha = 3, 6
			dir, a := folder(t, tt.c, safetensors.F32, tt.s, tt.whole...)
			if got, want := a.Spec().FanInFanOut, tt.c.Architecture == "GPT2LMHeadModel"; got != want {
				t.Errorf("fan_in_fan_out is %v, want %v", got, want)
			}
			check := MergeCheck{BaseDir: dir, Adapter: a, MergedDir: filepath.Join(dir, "merged")}
			if err := a.MergeFolder(t.Context(), dir, check.MergedDir, lora.MergeOptions{}); err != nil {
				t.Fatal(err)
			}
			r, err := CheckMerged(t.Context(), check)
			if err != nil || r.Difference > exact || r.Effect < 0.05 || r.Tolerance != 1e-4 {
				t.Errorf("CheckMerged() = %+v, %v", r, err)
			}
			// Not merged, and merged twice.
			if len(tt.whole) == 0 {
				check.MergedDir = dir
				if r, err := CheckMerged(t.Context(), check); !errors.Is(err, ErrMerge) {
					t.Errorf("unmerged: %+v, %v", r, err)
				}
			}
			twice := filepath.Join(dir, "twice")
			err = a.MergeFolder(t.Context(), filepath.Join(dir, "merged"), twice, lora.MergeOptions{})
			if embedding.Name == append(tt.whole, lora.Saved{})[0].Name { // the copy of the embedding tells
				if !errors.Is(err, lora.ErrUnsupported) {
					t.Errorf("merged twice: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			check.MergedDir = twice
			if r, err := CheckMerged(t.Context(), check); !errors.Is(err, ErrMerge) && !tt.s.DoRA {
				t.Errorf("merged twice: %+v, %v", r, err)
			}
		})
	}
}

// TestMergedTypes: rounding to the type of the weights is within its
// tolerance, and an adapter that it takes away is found.
func TestMergedTypes(t *testing.T) {
	for d, least := range map[safetensors.DType]float64{safetensors.F16: 1e-5, safetensors.BF16: 1e-4} {
		dir, a := folder(t, tinyConfig(), d, lora.Spec{Rank: 3, Alpha: 6, Targets: []string{lora.AllLinear}})
		check := MergeCheck{BaseDir: dir, Adapter: a, MergedDir: filepath.Join(dir, "merged")}
		if err := a.MergeFolder(t.Context(), dir, check.MergedDir, lora.MergeOptions{}); err != nil {
			t.Fatal(err)
		}
		r, err := CheckMerged(t.Context(), check)
		t.Logf("%s: %+v", d, r)
		if err != nil || r.Difference < least {
			t.Errorf("%s: CheckMerged() = %+v, %v", d, r, err)
		}
		for i := range a.Values() {
			a.Values()[i] *= 1e-2
		}
		check.MergedDir = filepath.Join(dir, "little")
		if err := a.MergeFolder(t.Context(), dir, check.MergedDir, lora.MergeOptions{}); err != nil {
			t.Fatal(err)
		}
		if r, err := CheckMerged(t.Context(), check); !errors.Is(err, ErrMerge) || !strings.Contains(fmt.Sprint(err), "float32") {
			t.Errorf("%s: a little adapter: %+v, %v", d, r, err)
		}
		clear(a.Values())
		check.MergedDir = dir
		if r, err := CheckMerged(t.Context(), check); err != nil || r.Difference != 0 || r.Effect != 0 {
			t.Errorf("%s: an adapter of zeros: %+v, %v", d, r, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := CheckMerged(ctx, check); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		check.Adapter, err = lora.New(lora.Spec{Rank: 1, Alpha: 1, Targets: []string{"other"}}, []lora.Module{{Path: "x.other", In: 1, Out: 1}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := CheckMerged(t.Context(), check); !errors.Is(err, ErrMerge) {
			t.Errorf("an adapter of another model: %v", err)
		}
	}
	if d := distance([]float32{float32(math.NaN()), 1}, []float32{1, 2}); !math.IsInf(d, 1) {
		t.Errorf("distance of what is no number is %v", d)
	}
}

// TestOwnAdapterOfGPT2: what a run trains on GPT-2 says how its weights lie.
func TestOwnAdapterOfGPT2(t *testing.T) {
	m, err := model.New(gpt2(), 1, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := New(m, Options{Spec: lora.Spec{Rank: 2, Alpha: 4, Targets: []string{"c_attn", "c_proj", "c_fc"}}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := tr.ExportAdapter(dir); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(dir, lora.ConfigFile))
	if err != nil || !strings.Contains(string(config), `"fan_in_fan_out": true`) {
		t.Errorf("%s (%v)", config, err)
	}
	if err := tr.LoadAdapter(dir); err != nil {
		t.Error(err)
	}
}
