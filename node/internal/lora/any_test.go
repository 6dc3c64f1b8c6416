package lora

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/moot-net/moot/shard/safetensors"
)

// TestExclude: PEFT's rules of names, patterns and blocks.
func TestExclude(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    Spec
		want string // of blocks 1, 10
	}{
		{"a name", Spec{Targets: []string{"q_proj", "v_proj"}, Exclude: []string{"v_proj"}, Blocks: []int{1}}, "1.self_attn.q_proj"},
		{"a path", Spec{Targets: []string{"q_proj"}, Exclude: []string{"model.layers.1.self_attn.q_proj"}, Blocks: []int{1, 10}}, "10.self_attn.q_proj"},
		{"a part of a name is none", Spec{Targets: []string{"q_proj"}, Exclude: []string{"proj"}, Blocks: []int{1}}, "1.self_attn.q_proj"},
		{"a pattern", Spec{Targets: []string{AllLinear}, ExcludePattern: `.*\.(self_attn|mlp)\.(q|up|v)_proj`, Blocks: []int{10}}, "10.mlp.down_proj"},
		{"pattern of the whole", Spec{Targets: []string{"up_proj"}, ExcludePattern: `mlp`, Blocks: []int{10}}, "10.mlp.up_proj"},
		{"list of blocks", Spec{Targets: []string{"up_proj"}, Blocks: []int{10}, BlocksIn: []string{"h", "layers"}}, "10.mlp.up_proj"},
		{"path in another block", Spec{Targets: []string{"model.layers.1.mlp.up_proj", "q_proj"}, Blocks: []int{10}}, "1.mlp.up_proj 10.self_attn.q_proj"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.s.Rank, tt.s.Alpha = 1, 1
			if got := strings.Join(paths(t, tt.s), " "); got != tt.want {
				t.Errorf("targets are %s, want %s", got, tt.want)
			}
		})
	}
	if _, err := New(Spec{Rank: 1, Alpha: 1, Targets: []string{"q_proj"}, Blocks: []int{1}, BlocksIn: []string{"h"}}, twelve()); err == nil {
		t.Error("blocks of another list were found")
	}
}

// TestAllLinearHead: all-linear leaves out the output layer, its name does not.
func TestAllLinearHead(t *testing.T) {
	modules := append(twelve(), Module{Path: "lm_head", In: 8, Out: 20})
	for target, want := range map[string]int{AllLinear: 48, "lm_head": 1} {
		a, err := New(Spec{Rank: 1, Alpha: 1, Targets: []string{target}}, modules)
		if err != nil || len(a.Parts()) != want {
			t.Errorf("%s has %d layers, want %d (%v)", target, len(a.Parts()), want, err)
		}
	}
}

// full is an adapter with everything.
func full(t testing.TB, s Spec) *Adapter {
	a := filled(t, s)
	for i, p := range a.Parts() {
		for j := range a.Magnitude(p) {
			a.Magnitude(p)[j] = float32(i*100 + j + 1)
		}
	}
	if s.Bias != "" {
		a.saved = append(a.saved, Saved{"model.layers.0.self_attn.q_proj.bias", []int64{6}, []float32{1, 2, 3, 4, 5, 6}})
	}
	if s.Bias == biasAll {
		a.saved = append(a.saved, Saved{"model.layers.1.mlp.gate_proj.bias", []int64{2}, []float32{7, 8}})
	}
	if len(s.SaveModules) > 0 {
		a.saved = append(a.saved,
			Saved{"lm_head.weight", []int64{2, 3}, []float32{1, 2, 3, 4, 5, 6}},
			Saved{"model.layers.2.mlp.gate.weight", []int64{1}, []float32{9}})
	}
	slices.SortFunc(a.saved, func(x, y Saved) int { return strings.Compare(x.Name, y.Name) })
	return a
}

func TestReadAny(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := Spec{
			Rank: 2, Alpha: 3, Targets: []string{"q_proj"}, DoRA: rapid.Bool().Draw(rt, "DoRA"),
			Bias: rapid.SampledFrom([]string{"", biasLoRA, biasAll}).Draw(rt, "bias"), FanInFanOut: rapid.Bool().Draw(rt, "transposed"),
		}
		if rapid.Bool().Draw(rt, "saved") {
			s.SaveModules = []string{"layers.2.mlp", "lm_head"}
		}
		if rapid.Bool().Draw(rt, "excluded") {
			s.Exclude = []string{"layers.3.self_attn.q_proj"}
		} else if rapid.Bool().Draw(rt, "excluded by pattern") {
			s.ExcludePattern = `.*\.[45]\..*`
		}
		if rapid.Bool().Draw(rt, "blocks") {
			s.Blocks, s.BlocksIn = []int{0, 1, 7}, []string{"layers"}
		}
		a := full(t, s)
		dir, again := t.TempDir(), t.TempDir()
		if err := a.Write(dir, "org/base"); err != nil {
			rt.Fatal(err)
		}
		b, err := ReadAny(dir, twelve())
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(a.Spec(), b.Spec()); diff != "" {
			rt.Fatal(diff)
		}
		if !slices.Equal(a.Values(), b.Values()) || !cmp.Equal(a.Saved(), b.Saved()) || !cmp.Equal(a.magnitudes, b.magnitudes) {
			rt.Fatal("an adapter read back is another one")
		}
		if err := b.Write(again, "org/base"); err != nil {
			rt.Fatal(err)
		}
		for _, name := range []string{ConfigFile, WeightsFile} {
			x, errX := os.ReadFile(filepath.Join(dir, name))
			y, errY := os.ReadFile(filepath.Join(again, name))
			if errX != nil || errY != nil || !bytes.Equal(x, y) {
				rt.Fatalf("%s written again differs (%v, %v)", name, errX, errY)
			}
		}
		// Who applies plain LoRA only gets nothing else.
		_, err = Read(dir, twelve())
		plain := !s.DoRA && s.Bias == "" && s.SaveModules == nil
		if plain != (err == nil) || plain != (a.Plain() == nil) || !plain && !errors.Is(err, ErrUnsupported) {
			rt.Fatalf("Read() = %v, Plain() = %v", err, a.Plain())
		}
	})
}

func TestReadAnyRefuses(t *testing.T) {
	one := func(name string, shape ...int64) safetensors.Tensor {
		n := int64(1)
		for _, d := range shape {
			n *= d
		}
		return safetensors.Tensor{Name: namePrefix + name, DType: safetensors.F32, Shape: shape, Values: make([]float32, n)}
	}
	for _, tt := range []struct {
		name string
		s    Spec
		more safetensors.Tensor
		want string
	}{
		{"a bias too many", Spec{}, one("model.layers.0.self_attn.q_proj.bias", 6), "belongs to no target"},
		{"a bias of another", Spec{Bias: biasLoRA}, one("model.layers.0.mlp.up_proj.bias", 6), "belongs to no target"},
		{"a base layer of another", Spec{Bias: biasAll}, one("model.layers.0.mlp.up_proj.base_layer.bias", 6), "belongs to no target"},
		{"a module too many", Spec{SaveModules: []string{"norm"}}, one("model.layers.0.mlp.gate.weight", 6), "belongs to no target"},
		{"a module's end", Spec{SaveModules: []string{"ate"}}, one("model.layers.0.mlp.gate.weight", 6), "belongs to no target"},
		{"another prefix", Spec{SaveModules: []string{"norm"}}, safetensors.Tensor{Name: "model.norm.weight", DType: safetensors.F32, Shape: []int64{1}, Values: []float32{1}}, "belongs to no target"},
		{"nameless", Spec{}, one("weight", 1), "belongs to no target"},
		{"a magnitude without DoRA", Spec{}, one("model.layers.0.self_attn.q_proj.lora_magnitude_vector", 6), "belongs to no target"},
		{"a bias of LoRA", Spec{}, one("model.layers.0.self_attn.q_proj.lora_B.bias", 6), "belongs to no target"},
		{"no number", Spec{SaveModules: []string{"norm"}}, safetensors.Tensor{Name: namePrefix + "model.norm.weight", DType: safetensors.F32, Shape: []int64{2}, Values: []float32{1, float32(math.NaN())}}, "value 1 is NaN, not finite"},
		{"twice", Spec{Bias: biasAll}, one("model.layers.0.self_attn.q_proj.bias", 6), "twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.s.Rank, tt.s.Alpha, tt.s.Targets = 2, 2, []string{"q_proj"}
			dir := t.TempDir()
			a := full(t, tt.s)
			if len(tt.s.SaveModules) > 0 {
				a.saved = nil
			}
			if err := a.Write(dir, ""); err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := safetensors.Write(&b, append(a.tensors(), tt.more), nil); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, WeightsFile), b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := ReadAny(dir, twelve()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want one with %q", err, tt.want)
			}
		})
	}
	// A magnitude of another size, and none.
	for _, edit := range []func(l []safetensors.Tensor) []safetensors.Tensor{
		func(l []safetensors.Tensor) []safetensors.Tensor {
			last := &l[len(l)-1]
			last.Shape, last.Values = []int64{5}, last.Values[:5]
			return l
		},
		func(l []safetensors.Tensor) []safetensors.Tensor { return l[:len(l)-1] },
	} {
		dir := t.TempDir()
		a := full(t, Spec{Rank: 2, Alpha: 2, Targets: []string{"q_proj"}, DoRA: true})
		if err := a.Write(dir, ""); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := safetensors.Write(&b, edit(a.tensors()), nil); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, WeightsFile), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadAny(dir, twelve()); err == nil || !strings.Contains(err.Error(), suffixMagnitude) {
			t.Errorf("err = %v", err)
		}
	}
}

// TestReadForms: half types, and the magnitude's other name.
func TestReadForms(t *testing.T) {
	for _, d := range []safetensors.DType{safetensors.BF16, safetensors.F16} {
		dir := t.TempDir()
		a := full(t, Spec{Rank: 2, Alpha: 2, Targets: []string{"q_proj"}, DoRA: true})
		if err := a.Write(dir, ""); err != nil {
			t.Fatal(err)
		}
		list := a.tensors()
		for i := range list {
			list[i].DType = d
			if strings.HasSuffix(list[i].Name, suffixMagnitude) {
				list[i].Name += ".weight"
			}
		}
		var b bytes.Buffer
		if err := safetensors.Write(&b, list, nil); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, WeightsFile), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadAny(dir, twelve())
		if err != nil {
			t.Fatal(err)
		}
		want := make([]float32, len(a.Values()))
		safetensors.DecodeFloats(want, safetensors.AppendFloats(nil, a.Values(), d), d)
		if !slices.Equal(got.Values(), want) || len(got.Magnitude(got.Parts()[1])) != 6 || got.Magnitude(got.Parts()[1])[0] == 0 {
			t.Errorf("%s: other values", d)
		}
	}
}

// TestReadLegacy reads adapter_model.bin: two tensors as torch.save wrote them
// before 2020, made here by hand.
func TestReadLegacy(t *testing.T) {
	text := func(s string) string {
		return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
	}
	a := filled(t, Spec{Rank: 2, Alpha: 2, Targets: []string{"model.layers.3.self_attn.q_proj"}})
	pickle, data, keys := "\x80\x02}(", "", ""
	for i, info := range a.Layout() {
		n := byte(info.Rows * info.Cols)
		key := string(rune('a' + i))
		pickle += text(info.Name) + "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\nFloatStorage\n" + text(key) + text("cpu") +
			"K" + string([]byte{n}) + "NtQK\x00" + "K" + string([]byte{byte(info.Rows)}) + "K" + string([]byte{byte(info.Cols)}) + "\x86" +
			"K" + string([]byte{byte(info.Cols)}) + "K\x01\x86\x89ccollections\nOrderedDict\n)RtR"
		keys += text(key)
		data += string(binary.LittleEndian.AppendUint64(nil, uint64(n))) + string(safetensors.AppendFloats(nil, a.Tensor(i), safetensors.F32))
	}
	file := "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}" + text("little_endian") + "\x88s." +
		pickle + "u.\x80\x02](" + keys + "e." + data
	dir := t.TempDir()
	if err := a.Write(dir, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, WeightsFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir, twelve()); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a folder without weights gave %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, LegacyFile), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := Read(dir, twelve())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a.Values(), b.Values()) {
		t.Error("other values than were written")
	}
}
