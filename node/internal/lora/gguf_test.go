package lora

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/shard/safetensors"
)

// ggufFile is a GGUF file as it is read here: every field checked.
type ggufFile struct {
	strings map[string]string
	floats  map[string]float32
	tensors map[string]ggufTensor
	dims    map[string][2]uint64 // innermost first
}

// readGGUF is a strict reader: version 3, no unknown types, names once, sizes
// that agree, tensors aligned, in order, without gaps, up to the end.
func readGGUF(t *testing.T, b []byte) ggufFile {
	t.Helper()
	f := ggufFile{map[string]string{}, map[string]float32{}, map[string]ggufTensor{}, map[string][2]uint64{}}
	at := 0
	take := func(n int) []byte {
		if n < 0 || n > len(b)-at {
			t.Fatalf("GGUF ends at %d of %d", len(b), at+n)
		}
		at += n
		return b[at-n : at]
	}
	u32 := func() uint32 { return binary.LittleEndian.Uint32(take(4)) }
	u64 := func() uint64 { return binary.LittleEndian.Uint64(take(8)) }
	text := func() string { return string(take(int(u64()))) }
	if string(take(4)) != "GGUF" || u32() != 3 {
		t.Fatal("not a GGUF file of version 3")
	}
	tensors, values := u64(), u64()
	for range values {
		key := text()
		switch kind := u32(); kind {
		case 8:
			f.strings[key] = text()
		case 6:
			f.floats[key] = math.Float32frombits(u32())
		default:
			t.Fatalf("%s has type %d", key, kind)
		}
	}
	if int(values) != len(f.strings)+len(f.floats) {
		t.Fatal("a key is there twice")
	}
	type info struct {
		name   string
		dims   [2]uint64
		kind   uint32
		offset uint64
	}
	var infos []info
	for range tensors {
		i := info{name: text()}
		if n := u32(); n != 2 {
			t.Fatalf("%s has %d dimensions", i.name, n)
		}
		i.dims = [2]uint64{u64(), u64()}
		i.kind, i.offset = u32(), u64()
		if len(i.name) >= 64 {
			t.Fatalf("name %q is too long", i.name)
		}
		infos = append(infos, i)
	}
	padding := func() {
		for at%32 != 0 {
			if take(1)[0] != 0 {
				t.Fatal("padding is not zero")
			}
		}
	}
	padding()
	start := at
	for _, i := range infos {
		if uint64(at-start) != i.offset {
			t.Fatalf("%s is at %d, want %d", i.name, i.offset, at-start)
		}
		d, ok := map[uint32]safetensors.DType{0: safetensors.F32, 1: safetensors.F16}[i.kind]
		if !ok {
			t.Fatalf("%s has type %d", i.name, i.kind)
		}
		v := make([]float32, i.dims[0]*i.dims[1])
		safetensors.DecodeFloats(v, take(len(v)*int(d.Size())), d)
		padding()
		f.tensors[i.name] = ggufTensor{i.name, int(i.dims[1]), int(i.dims[0]), v}
		f.dims[i.name] = i.dims
	}
	if at != len(b) || len(f.tensors) != len(infos) {
		t.Fatalf("%d bytes too many, or a tensor twice", len(b)-at)
	}
	return f
}

// apply computes what llama.cpp adds to a layer: scale B A, with its own rule
// of the scale.
func (f ggufFile) apply(name string, out, in int) []float64 {
	a, b := f.tensors[name+".lora_a"], f.tensors[name+".lora_b"]
	scale := float64(f.floats["adapter.lora.alpha"]) / float64(b.cols)
	w := make([]float64, out*in)
	for o := range out {
		for i := range in {
			for r := range b.cols {
				w[o*in+i] += scale * float64(b.values[o*b.cols+r]) * float64(a.values[r*in+i])
			}
		}
	}
	return w
}

func delta(a *Adapter, p Part) []float64 { return expected(a, p, make([]float32, p.In*p.Out)) }

var llamaBase = GGUFBase{ModelType: "llama", Heads: 3, KVHeads: 1, Name: "org/base"}

// llama has three heads of four, and one of keys and values.
func llama() []Module {
	var list []Module
	for _, i := range []int{0, 11} {
		p := fmt.Sprintf("model.layers.%d.", i)
		list = append(list,
			Module{Path: p + "self_attn.q_proj", In: 8, Out: 12}, Module{Path: p + "self_attn.k_proj", In: 8, Out: 4}, Module{Path: p + "self_attn.v_proj", In: 8, Out: 4},
			Module{Path: p + "self_attn.o_proj", In: 12, Out: 8}, Module{Path: p + "mlp.gate_proj", In: 8, Out: 10}, Module{Path: p + "mlp.up_proj", In: 8, Out: 10},
			Module{Path: p + "mlp.down_proj", In: 10, Out: 8})
	}
	return append(list, Module{Path: "lm_head", In: 8, Out: 20})
}

func random(t *testing.T, s Spec, modules []Module) *Adapter {
	t.Helper()
	a, err := New(s, modules)
	if err != nil {
		t.Fatal(err)
	}
	a.Init(3)
	for i := range a.Values() {
		a.Values()[i] += float32(i%13) * 0.25
	}
	return a
}

func export(t *testing.T, a *Adapter, base GGUFBase, d safetensors.DType) ggufFile {
	t.Helper()
	var b, again bytes.Buffer
	if err := a.WriteGGUF(&b, base, d); err != nil {
		t.Fatal(err)
	}
	if err := a.WriteGGUF(&again, base, d); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Fatalf("written again it differs (%v)", err)
	}
	readBack(t, b.Bytes(), a, base, d)
	return readGGUF(t, b.Bytes())
}

// readBack checks that our own reader finds the adapter in the bytes.
func readBack(t *testing.T, b []byte, a *Adapter, base GGUFBase, d safetensors.DType) {
	t.Helper()
	var modules []Module
	for _, p := range a.Parts() {
		modules = append(modules, p.Module)
	}
	back, err := ReadGGUF(b, base, modules)
	if err != nil {
		t.Fatal(err)
	}
	tolerance := 1e-5
	if d == safetensors.F16 {
		tolerance = 0.05
	}
	for i, p := range a.Parts() {
		got, want := delta(back, back.Parts()[i]), delta(a, p)
		for j := range want {
			if math.Abs(got[j]-want[j]) > tolerance {
				t.Fatalf("read back, %s has %v at %d, want %v", p.Path, got[j], j, want[j])
			}
		}
	}
}

// TestReadGGUFRefuses: bytes that are not an adapter for the model.
func TestReadGGUFRefuses(t *testing.T) {
	a := random(t, Spec{Rank: 2, Alpha: 2, Targets: []string{"q_proj"}}, llama())
	var w bytes.Buffer
	if err := a.WriteGGUF(&w, llamaBase, safetensors.F32); err != nil {
		t.Fatal(err)
	}
	good := w.Bytes()
	change := func(at int, with string) []byte {
		b := bytes.Clone(good)
		copy(b[at:], with)
		return b
	}
	find := func(s string) int { return bytes.Index(good, []byte(s)) }
	qwen := llamaBase
	qwen.ModelType = "qwen2"
	for _, tt := range []struct {
		name    string
		b       []byte
		base    GGUFBase
		modules []Module
		want    string
	}{
		{"empty", nil, llamaBase, llama(), "does not begin with GGUF"},
		{"version", change(4, "\x02"), llamaBase, llama(), "does not begin with GGUF"},
		{"count", change(8, "\x00\x00\x01"), llamaBase, llama(), "has 0 dimensions"},
		{"counts", change(8, "\x01\x00\x01"), llamaBase, llama(), "at most 65536"},
		{"cut", good[:200], llamaBase, llama(), "cut short"},
		{"values cut", good[:len(good)-64], llamaBase, llama(), "does not lie in the file"},
		{"not an adapter", change(find("adapter.type")+24, "dora"), llamaBase, llama(), `"dora"`},
		{"scale", change(find("adapter.lora.alpha")+22, "\x00\x00\x80\x7f"), llamaBase, llama(), "alpha is +Inf"},
		{"no scale", change(find("adapter.lora.alpha")+22, "\x00\x00\xc0\x7f"), llamaBase, llama(), "alpha is NaN"},
		{"family", good, qwen, llama(), "want a lora adapter for qwen2"},
		{"no layers", good, llamaBase, llama()[1:3], "no layer of the model is a target"},
		{"fewer layers", good, llamaBase, llama()[:1], "of 4 tensors 2 are of layers"},
		{"other widths", good, llamaBase, []Module{{Path: llama()[0].Path, In: 9, Out: 12}, llama()[7]}, "want 2 x 9"},
		{"name", change(find(".lora_b")+6, "c"), llamaBase, llama(), "and 12 x 2"},
	} {
		if _, err := ReadGGUF(tt.b, tt.base, tt.modules); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: err = %v, want one with %q", tt.name, err, tt.want)
		}
	}
}

func FuzzReadGGUF(f *testing.F) {
	a, err := New(Spec{Rank: 2, Alpha: 3, Targets: []string{"q_proj", "down_proj"}, RSLoRA: true, Ranks: []Override{{"11.*", 1}}}, llama())
	if err != nil {
		f.Fatal(err)
	}
	a.Init(1)
	for _, d := range []safetensors.DType{safetensors.F32, safetensors.F16} {
		var w bytes.Buffer
		if err := a.WriteGGUF(&w, llamaBase, d); err != nil {
			f.Fatal(err)
		}
		f.Add(w.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ReadGGUF(b, llamaBase, llama())
		if err != nil {
			return
		}
		for _, p := range a.Parts() {
			if len(a.Tensor(p.A)) != p.Rank*p.In || len(a.Tensor(p.B)) != p.Rank*p.Out {
				t.Errorf("%s has tensors of other sizes", p.Path)
			}
		}
	})
}

// TestGGUF checks every field, and that llama.cpp's arithmetic gives the
// adapter, for scales of every kind.
func TestGGUF(t *testing.T) {
	all := []string{AllLinear, "lm_head"}
	for _, tt := range []struct {
		name  string
		s     Spec
		alpha float64
	}{
		{"plain", Spec{Rank: 4, Alpha: 6, Targets: all}, 6},
		{"rsLoRA", Spec{Rank: 4, Alpha: 6, Targets: all, RSLoRA: true}, 12},
		{"ranks", Spec{Rank: 4, Alpha: 6, Targets: all, Ranks: []Override{{"v_proj", 2}}}, 6},
		{"ranks of rsLoRA", Spec{Rank: 4, Alpha: 6, Targets: all, RSLoRA: true, Ranks: []Override{{"v_proj", 2}}}, 12},
		{"alphas", Spec{Rank: 4, Alpha: 6, Targets: all, Alphas: []Override{{"layers.11.*", 7}}}, 6},
	} {
		for _, d := range []safetensors.DType{safetensors.F32, safetensors.F16} {
			t.Run(tt.name+" "+string(d), func(t *testing.T) {
				a := random(t, tt.s, llama())
				f := export(t, a, llamaBase, d)
				for key, want := range map[string]string{
					"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora", "general.base_model.0.name": "org/base",
				} {
					if f.strings[key] != want {
						t.Errorf("%s is %q, want %q", key, f.strings[key], want)
					}
				}
				if got := float64(f.floats["adapter.lora.alpha"]); math.Abs(got-tt.alpha) > 1e-6 || len(f.floats) != 1 || len(f.strings) != 4 {
					t.Errorf("alpha is %v, want %v; values %v %v", got, tt.alpha, f.floats, f.strings)
				}
				if len(f.tensors) != 2*len(a.Parts()) {
					t.Errorf("%d tensors for %d layers", len(f.tensors), len(a.Parts()))
				}
				for _, p := range a.Parts() {
					checkLayer(t, f, a, p, d)
				}
			})
		}
	}
}

func checkLayer(t *testing.T, f ggufFile, a *Adapter, p Part, d safetensors.DType) {
	t.Helper()
	name := strings.NewReplacer("model.layers.", "blk.", "self_attn.q_proj", "attn_q", "self_attn.k_proj", "attn_k", "self_attn.v_proj", "attn_v",
		"self_attn.o_proj", "attn_output", "mlp.gate_proj", "ffn_gate", "mlp.up_proj", "ffn_up", "mlp.down_proj", "ffn_down", "lm_head", "output").Replace(p.Path) + ".weight"
	if f.dims[name+".lora_a"] != [2]uint64{uint64(p.In), uint64(p.Rank)} || f.dims[name+".lora_b"] != [2]uint64{uint64(p.Rank), uint64(p.Out)} {
		t.Fatalf("%s: tensors of %v and %v", name, f.dims[name+".lora_a"], f.dims[name+".lora_b"])
	}
	got, want := f.apply(name, p.Out, p.In), delta(a, p)
	heads := 0
	switch {
	case strings.HasSuffix(p.Path, "q_proj"):
		heads = 3
	case strings.HasSuffix(p.Path, "k_proj"):
		heads = 1
	}
	if heads > 0 {
		want = permuted(want, heads, p)
	}
	tolerance := 1e-5
	if d == safetensors.F16 {
		tolerance = 0.05
	}
	for i := range got {
		if math.Abs(got[i]-want[i]) > tolerance {
			t.Fatalf("%s: weight %d is %v, want %v", name, i, got[i], want[i])
		}
	}
}

// permuted is numpy's reshape(heads, 2, half, in).swapaxes(1, 2).
func permuted(w []float64, heads int, p Part) []float64 {
	half := p.Out / heads / 2
	var out []float64
	for h := range heads {
		for i := range half {
			for two := range 2 {
				row := (h*2+two)*half + i
				out = append(out, w[row*p.In:(row+1)*p.In]...)
			}
		}
	}
	return out
}

// TestGGUFFused: rows of a fused layer become q, then k, then v.
func TestGGUFFused(t *testing.T) {
	for _, tt := range []struct {
		base   GGUFBase
		prefix string
		layer  string
		out    int
		groups int // each with queries, a key and a value
		size   int
	}{
		{GGUFBase{ModelType: "gpt_neox", Heads: 2, KVHeads: 2}, "gpt_neox.layers.1.", "attention.query_key_value", 12, 2, 2},
		{GGUFBase{ModelType: "falcon", Heads: 6, KVHeads: 1}, "transformer.h.1.", "self_attention.query_key_value", 16, 1, 2},
		{GGUFBase{ModelType: "falcon", Heads: 6, KVHeads: 3}, "transformer.h.1.", "self_attention.query_key_value", 24, 3, 2},
		{GGUFBase{ModelType: "falcon", Heads: 2, KVHeads: 2}, "transformer.h.1.", "self_attention.query_key_value", 12, 2, 2},
	} {
		a := random(t, Spec{Rank: 2, Alpha: 2, Targets: []string{AllLinear}}, []Module{{Path: tt.prefix + tt.layer, In: 5, Out: tt.out}})
		f := export(t, a, tt.base, safetensors.F32)
		got := f.tensors["blk.1.attn_qkv.weight.lora_b"]
		ours := a.Tensor(a.Parts()[0].B)
		queries := tt.out/tt.size/tt.groups - 2
		// Where row r of llama.cpp's is here, head by head.
		for r := range tt.out {
			head, in := r/tt.size, r%tt.size
			var group, part int
			switch {
			case head < tt.groups*queries:
				group, part = head/queries, head%queries
			case head < tt.groups*(queries+1):
				group, part = head-tt.groups*queries, queries
			default:
				group, part = head-tt.groups*(queries+1), queries+1
			}
			row := (group*(queries+2)+part)*tt.size + in
			if !slices.Equal(got.values[r*2:r*2+2], ours[row*2:row*2+2]) {
				t.Errorf("%+v: row %d is not row %d of ours", tt.base, r, row)
			}
		}
	}
}

// TestGGUFNames: every layer of every family has its name.
func TestGGUFNames(t *testing.T) {
	for model, want := range map[string]string{
		"qwen2": "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down", "qwen3": "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down",
		"gemma": "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down", "gemma2": "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down",
		"mistral": "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down",
	} {
		a := random(t, Spec{Rank: 2, Alpha: 2, Targets: []string{AllLinear}}, llama())
		base := llamaBase
		base.ModelType = model
		f := export(t, a, base, safetensors.F32)
		for _, name := range strings.Fields(want) {
			for _, end := range []string{"a", "b"} {
				if _, ok := f.tensors["blk.11."+name+".weight.lora_"+end]; !ok {
					t.Errorf("%s: %s is missing", model, name)
				}
			}
		}
		if arch := map[bool]string{true: "llama", false: model}[model == "mistral"]; f.strings["general.architecture"] != arch {
			t.Errorf("%s: architecture %q", model, f.strings["general.architecture"])
		}
		// Only Llama's own rows are reordered.
		q := f.tensors["blk.0.attn_q.weight.lora_b"].values
		if same := slices.Equal(q, a.Tensor(a.Parts()[0].B)); same == (model == "mistral") {
			t.Errorf("%s: rows of q in the same order: %v", model, same)
		}
	}
	for model, layers := range map[string]map[string]string{
		"phi":  {"self_attn.dense": "attn_output", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down", "self_attn.q_proj": "attn_q"},
		"phi3": {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "self_attn.o_proj": "attn_output"},
		"mpt":  {"attn.Wqkv": "attn_qkv", "attn.out_proj": "attn_output", "ffn.up_proj": "ffn_up", "ffn.down_proj": "ffn_down"},
	} {
		for layer, name := range layers {
			a := random(t, Spec{Rank: 2, Alpha: 2, Targets: []string{AllLinear}}, []Module{{Path: "x.blocks.7." + layer, In: 4, Out: 6}})
			f := export(t, a, GGUFBase{ModelType: model}, safetensors.F32)
			if b, ok := f.tensors["blk.7."+name+".weight.lora_b"]; !ok || !slices.Equal(b.values, a.Tensor(a.Parts()[0].B)) {
				t.Errorf("%s: %s is not %s", model, layer, name)
			}
		}
	}
}

func TestGGUFRefuses(t *testing.T) {
	plain := Spec{Rank: 2, Alpha: 2, Targets: []string{"q_proj"}}
	head := Spec{Rank: 2, Alpha: 2, Targets: []string{"lm_head"}}
	dora, saved, zero := plain, full(t, Spec{Rank: 2, Alpha: 2, Targets: []string{"q_proj"}, SaveModules: []string{"lm_head"}}), plain
	dora.DoRA, zero.Alpha = true, 0
	large := random(t, plain, llama())
	large.Values()[0] = 1e6
	tied, unknown, fused, heads := llamaBase, llamaBase, llamaBase, llamaBase
	tied.Tied, unknown.ModelType, fused.ModelType, heads.Heads = true, "mamba", "phi3", 5
	for _, tt := range []struct {
		name string
		a    *Adapter
		base GGUFBase
		d    safetensors.DType
		want string
	}{
		{"DoRA", random(t, dora, llama()), llamaBase, safetensors.F32, "use_dora"},
		{"saved modules", saved, llamaBase, safetensors.F32, "replaces lm_head.weight"},
		{"tied output", random(t, head, llama()), tied, safetensors.F32, "uses its embedding"},
		{"another family", random(t, plain, llama()), unknown, safetensors.F32, `"mamba"`},
		{"layers of another family", random(t, plain, llama()), fused, safetensors.F32, "no such layer"},
		{"no block", random(t, plain, []Module{{Path: "model.q_proj", In: 8, Out: 12}}), llamaBase, safetensors.F32, "no such layer"},
		{"heads", random(t, plain, llama()), heads, safetensors.F32, "5 heads"},
		{"no scale", random(t, zero, llama()), llamaBase, safetensors.F32, "is 0"},
		{"too large", large, llamaBase, safetensors.F16, "too large"},
		{"type", random(t, plain, llama()), llamaBase, safetensors.BF16, "BF16"},
		{"long", random(t, plain, []Module{{Path: "model.layers." + strings.Repeat("1", 60) + ".self_attn.q_proj", In: 8, Out: 12}}), llamaBase, safetensors.F32, "too long"},
	} {
		err := tt.a.WriteGGUF(&bytes.Buffer{}, tt.base, tt.d)
		if err == nil || !strings.Contains(err.Error(), tt.want) || tt.name != "heads" && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: err = %v, want one with %q", tt.name, err, tt.want)
		}
	}
}

func TestReadGGUFBase(t *testing.T) {
	for config, want := range map[string]GGUFBase{
		`{"model_type":"llama","num_attention_heads":32,"num_key_value_heads":8}`:                                                 {"llama", 32, 8, false, ""},
		`{"model_type":"llama","num_attention_heads":32,"num_key_value_heads":null}`:                                              {"llama", 32, 32, false, ""},
		`{"model_type":"qwen2","num_attention_heads":4,"tie_word_embeddings":true}`:                                               {"qwen2", 4, 4, true, ""},
		`{"model_type":"falcon","num_attention_heads":71,"num_kv_heads":71,"multi_query":true}`:                                   {"falcon", 71, 1, true, ""},
		`{"model_type":"falcon","num_attention_heads":128,"num_kv_heads":8,"multi_query":true,"new_decoder_architecture":true}`:   {"falcon", 128, 8, true, ""},
		`{"model_type":"falcon","num_attention_heads":16,"multi_query":false,"tie_word_embeddings":false,"new_decoder_a":"none"}`: {"falcon", 16, 16, false, ""},
		`{"model_type":"gemma2","num_attention_heads":8}`:                                                                         {"gemma2", 8, 8, true, ""},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadGGUFBase(dir); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", config, got, err, want)
		}
	}
	if _, err := ReadGGUFBase(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty folder gave %v", err)
	}
}
