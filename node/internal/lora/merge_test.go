package lora

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/checkpoint"
	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/shard/safetensors"
)

// base writes a base model of the layers of twelve, with an embedding and an
// output layer.
func base(t *testing.T, d safetensors.DType, transposed bool, more ...safetensors.Tensor) string {
	t.Helper()
	r := rand.New(rand.NewPCG(7, 7))
	random := func(name string, shape ...int64) safetensors.Tensor {
		n := int64(1)
		for _, s := range shape {
			n *= s
		}
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return safetensors.Tensor{Name: name, DType: d, Shape: shape, Values: v}
	}
	list := append([]safetensors.Tensor{random("model.embed_tokens.weight", 5, 8), random("model.layers.0.self_attn.q_proj.bias", 6)}, more...)
	for _, m := range twelve() {
		if transposed {
			list = append(list, random(m.Path+".weight", int64(m.In), int64(m.Out)))
		} else {
			list = append(list, random(m.Path+".weight", int64(m.Out), int64(m.In)))
		}
	}
	var b bytes.Buffer
	if err := safetensors.Write(&b, list, nil); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"model.safetensors": b.Bytes(), "config.json": []byte(`{"model_type":"llama"}`), "tokenizer.json": []byte("{}")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func values(t *testing.T, dir, name string) []float32 {
	t.Helper()
	f, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, ok := f.Lookup(name)
	if !ok {
		t.Fatalf("no tensor %s", name)
	}
	v := make([]float32, info.Elements())
	if err := f.ReadFloat32(name, v); err != nil {
		t.Fatal(err)
	}
	return v
}

// expected merges naively: every weight by the definition.
func expected(a *Adapter, p Part, weight []float32) []float64 {
	out := make([]float64, len(weight))
	for o := range p.Out {
		square := 0.0
		for i := range p.In {
			sum := 0.0
			for r := range p.Rank {
				sum += float64(a.Tensor(p.B)[o*p.Rank+r]) * float64(a.Tensor(p.A)[r*p.In+i])
			}
			v := float64(weight[o*p.In+i]) + float64(p.Scale)*sum
			out[o*p.In+i] = v
			square += v * v
		}
		if a.Spec().DoRA {
			for i := range p.In {
				out[o*p.In+i] *= float64(a.Magnitude(p)[o]) / math.Sqrt(square)
			}
		}
	}
	return out
}

func round(v []float64, d safetensors.DType) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(x)
	}
	safetensors.DecodeFloats(out, safetensors.AppendFloats(nil, out, d), d)
	return out
}

func TestMergeFolder(t *testing.T) {
	for _, d := range []safetensors.DType{safetensors.F32, safetensors.BF16, safetensors.F16} {
		for _, dora := range []bool{false, true} {
			for _, four := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s DoRA %v NF4 %v", d, dora, four), func(t *testing.T) {
					src, dst := base(t, d, false), t.TempDir()
					a := full(t, Spec{Rank: 2, Alpha: 3, Targets: []string{"q_proj", "down_proj"}, DoRA: dora})
					if err := a.MergeFolder(t.Context(), src, dst, MergeOptions{NF4: four, MaxShardBytes: 2000}); err != nil {
						t.Fatal(err)
					}
					parts := map[string]Part{}
					for _, p := range a.Parts() {
						parts[p.Path] = p
					}
					for _, m := range twelve() {
						before := values(t, src, m.Path+".weight")
						if four {
							w, err := nf4.New(before, m.Out, m.In)
							if err != nil {
								t.Fatal(err)
							}
							w.Dequant(before)
						}
						want := make([]float64, len(before))
						for i, x := range before {
							want[i] = float64(x)
						}
						if p, ok := parts[m.Path]; ok {
							want = expected(a, p, before)
						}
						if got := values(t, dst, m.Path+".weight"); !slices.Equal(got, round(want, d)) {
							t.Fatalf("%s is\n%v, want\n%v", m.Path, got, round(want, d))
						}
					}
					if !slices.Equal(values(t, src, "model.embed_tokens.weight"), values(t, dst, "model.embed_tokens.weight")) {
						t.Error("the embedding changed")
					}
					checkInto(t, dst, four)
				})
			}
		}
	}
}

func checkInto(t *testing.T, dir string, four bool) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	if err != nil || len(files) < 2 {
		t.Fatalf("files %v, %v", files, err)
	}
	f, err := safetensors.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := map[bool]string{false: "weights", true: "nf4"}[four]
	if f.Header().Metadata["merged_into"] != want {
		t.Errorf("merged into %q, want %q", f.Header().Metadata["merged_into"], want)
	}
	if _, err := os.Stat(filepath.Join(dir, "tokenizer.json")); err != nil {
		t.Error(err)
	}
}

// TestMergeQuantised: a base model stored in four bits gives what quantising
// on the way gives, and is no longer called quantised.
func TestMergeQuantised(t *testing.T) {
	src, quantised := base(t, safetensors.BF16, false), t.TempDir()
	if err := checkpoint.Quantize(t.Context(), src, quantised, checkpoint.QuantizeOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	a := full(t, Spec{Rank: 2, Alpha: 3, Targets: []string{"up_proj"}})
	x, y := t.TempDir(), t.TempDir()
	if err := a.MergeFolder(t.Context(), src, x, MergeOptions{NF4: true}); err != nil {
		t.Fatal(err)
	}
	if err := a.MergeFolder(t.Context(), quantised, y, MergeOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"model.safetensors", "config.json"} {
		p, errP := os.ReadFile(filepath.Join(x, name))
		q, errQ := os.ReadFile(filepath.Join(y, name))
		if errP != nil || errQ != nil || !bytes.Equal(p, q) {
			t.Errorf("%s differs (%v, %v)", name, errP, errQ)
		}
	}
}

func TestMergeTransposed(t *testing.T) {
	src, dst := base(t, safetensors.F32, true), t.TempDir()
	a := full(t, Spec{Rank: 2, Alpha: 3, Targets: []string{"q_proj", "down_proj"}, DoRA: true, FanInFanOut: true})
	if err := a.MergeFolder(t.Context(), src, dst, MergeOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, p := range a.Parts() {
		before, got := values(t, src, p.Path+".weight"), values(t, dst, p.Path+".weight")
		turned := make([]float32, len(before))
		for i := range p.In {
			for o := range p.Out {
				turned[o*p.In+i] = before[i*p.Out+o]
			}
		}
		want := round(expected(a, p, turned), safetensors.F32)
		for i := range p.In {
			for o := range p.Out {
				if got[i*p.Out+o] != want[o*p.In+i] {
					t.Fatalf("%s: weight (%d,%d) is %v, want %v", p.Path, i, o, got[i*p.Out+o], want[o*p.In+i])
				}
			}
		}
	}
}

// TestMergeSquare: what a square weight does not tell by its shape is told by
// the kind of model.
func TestMergeSquare(t *testing.T) {
	modules := []Module{{Path: "transformer.h.0.attn.c_proj", In: 4, Out: 4}}
	for _, tt := range []struct {
		kind                    string
		transposed, fanInFanOut bool // as the modules say, as the adapter says
		want                    string
	}{
		{"gpt2", true, false, ""}, // New corrects it
		{"gpt2", true, true, ""},
		{"gpt2", false, true, ""},
		{"gpt2", false, false, "set it to true"},
		{"falcon", false, true, "set it to false"},
		{"falcon", false, false, ""},
	} {
		modules[0].Transposed = tt.transposed
		a, err := New(Spec{Rank: 2, Alpha: 2, Targets: []string{"c_proj"}, FanInFanOut: tt.fanInFanOut}, modules)
		if err != nil {
			t.Fatal(err)
		}
		a.Tensor(a.Parts()[0].A)[1], a.Tensor(a.Parts()[0].B)[0] = 3, 5 // in 1, out 0
		if a.Spec().FanInFanOut != (tt.fanInFanOut || tt.transposed) {
			t.Errorf("FanInFanOut is %v", a.Spec().FanInFanOut)
		}
		src, dst := t.TempDir(), t.TempDir()
		var b bytes.Buffer
		weight := safetensors.Tensor{Name: "transformer.h.0.attn.c_proj.weight", DType: safetensors.F32, Shape: []int64{4, 4}, Values: make([]float32, 16)}
		if err := safetensors.Write(&b, []safetensors.Tensor{weight}, nil); err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string][]byte{"model.safetensors": b.Bytes(), "config.json": fmt.Appendf(nil, `{"model_type":%q}`, tt.kind)} {
			if err := os.WriteFile(filepath.Join(src, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err = a.MergeFolder(t.Context(), src, dst, MergeOptions{})
		if tt.want != "" {
			if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v: err = %v", tt, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		at := 1 // (out 0, in 1)
		if tt.kind == "gpt2" {
			at = 4 // (in 1, out 0)
		}
		if got := values(t, dst, weight.Name); got[at] != 15 || got[5-at] != 0 {
			t.Errorf("%+v: merged weight is %v", tt, got)
		}
	}
}

func TestMergeSaved(t *testing.T) {
	head := safetensors.Tensor{Name: "lm_head.weight", DType: safetensors.BF16, Shape: []int64{2, 3}, Values: make([]float32, 6)}
	gate := safetensors.Tensor{Name: "model.layers.2.mlp.gate.weight", DType: safetensors.BF16, Shape: []int64{1}, Values: make([]float32, 1)}
	s := Spec{Rank: 2, Alpha: 3, Targets: []string{"q_proj"}, SaveModules: []string{"lm_head", "gate"}, Bias: biasLoRA}
	for _, own := range []bool{true, false} {
		more := []safetensors.Tensor{gate}
		if own {
			more = append(more, head)
		}
		a, dst := full(t, s), t.TempDir()
		if err := a.MergeFolder(t.Context(), base(t, safetensors.BF16, false, more...), dst, MergeOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, saved := range a.Saved() {
			if got := values(t, dst, saved.Name); !slices.Equal(got, saved.Values) {
				t.Errorf("%s is %v, want %v", saved.Name, got, saved.Values)
			}
		}
		config, err := os.ReadFile(filepath.Join(dst, "config.json"))
		if err != nil || own == bytes.Contains(config, []byte(`"tie_word_embeddings": false`)) {
			t.Errorf("config is %s (%v)", config, err)
		}
	}
}

func TestMergeRefuses(t *testing.T) {
	plain := Spec{Rank: 2, Alpha: 3, Targets: []string{"q_proj"}}
	with := func(edit func(s *Spec), fn func(a *Adapter)) *Adapter {
		s := plain
		edit(&s)
		a := full(t, s)
		fn(a)
		return a
	}
	none := func(*Spec) {}
	for _, tt := range []struct {
		name string
		a    *Adapter
		want string
	}{
		{"another shape", with(func(s *Spec) { s.FanInFanOut = true }, func(*Adapter) {}), "the adapter is for one of [8 6]"},
		{"no such layer", with(none, func(a *Adapter) { a.parts[3].Path = "lm_head" }), "no lm_head.weight of its own"},
		{"no such module", with(func(s *Spec) { s.SaveModules = []string{"lm_head"} }, func(*Adapter) {}), "no model.layers.2.mlp.gate.weight to replace"},
		{"tied embedding", with(none, func(a *Adapter) {
			a.saved = []Saved{{"model.embed_tokens.weight", []int64{5, 8}, make([]float32, 40)}}
		}), "also the base model's output layer"},
		{"another vocabulary", with(none, func(a *Adapter) {
			a.saved = []Saved{{"model.embed_tokens.weight", []int64{6, 8}, make([]float32, 48)}}
		}), "shape [6 8]"},
		{"two of one", with(none, func(a *Adapter) {
			a.saved = []Saved{{a.parts[0].Path + ".weight", []int64{6, 8}, make([]float32, 48)}}
		}), "has its own"},
		{"too large", with(none, func(a *Adapter) { a.values[0], a.Tensor(a.parts[0].B)[0] = 1e30, 1e30 }), "not finite"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.a.MergeFolder(t.Context(), base(t, safetensors.F16, false), t.TempDir(), MergeOptions{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want one with %q", err, tt.want)
			}
		})
	}
	if err := full(t, plain).MergeFolder(t.Context(), t.TempDir(), t.TempDir(), MergeOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty folder gave %v", err)
	}
}
