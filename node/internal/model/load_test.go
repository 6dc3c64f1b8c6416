package model

import (
	"bytes"
	"encoding/json"
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

func TestSaveLoad(t *testing.T) {
	c := testConfigs()["gqa"]
	c.BOS, c.EOS = 1, []int32{2, 3}
	m, err := New(c, 42, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		dtype safetensors.DType
		round func(float32) float32
	}{
		{safetensors.F32, func(f float32) float32 { return f }},
		{safetensors.BF16, func(f float32) float32 { return safetensors.BF16ToFloat32(safetensors.Float32ToBF16(f)) }},
		{safetensors.F16, func(f float32) float32 { return safetensors.F16ToFloat32(safetensors.Float32ToF16(f)) }},
	} {
		dir := t.TempDir()
		if err := m.Save(dir, tt.dtype); err != nil {
			t.Fatal(err)
		}
		got, err := Load(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range m.Params() {
			q := got.Params()[i]
			have := got.Stored(q)
			for j, v := range p.Value.Host() {
				if q.Name != p.Name || have[j] != tt.round(v) {
					t.Fatalf("%s: %s[%d] is %v, want %v", tt.dtype, q.Name, j, have[j], tt.round(v))
				}
			}
		}
		again := t.TempDir()
		if err := got.Save(again, tt.dtype); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"config.json", "generation_config.json", "model.safetensors"} {
			a, errA := os.ReadFile(filepath.Join(dir, name))
			b, errB := os.ReadFile(filepath.Join(again, name))
			if errA != nil || errB != nil || !bytes.Equal(a, b) {
				t.Errorf("%s: %s saved again differs (%v, %v)", tt.dtype, name, errA, errB)
			}
		}
	}
	if err := m.Save(t.TempDir(), safetensors.I64); !errors.Is(err, ErrUnsupported) {
		t.Errorf("saving integers gave %v", err)
	}
	odd, err := New(testConfigs()["window"], 1, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := odd.Save(t.TempDir(), safetensors.F32); !errors.Is(err, ErrUnsupported) {
		t.Errorf("saving what a Llama does not have gave %v", err)
	}
}

func TestNewIsSeeded(t *testing.T) {
	c := testConfigs()["mha"]
	flat := func(seed uint64) []float32 {
		m, err := New(c, seed, Options{})
		if err != nil {
			t.Fatal(err)
		}
		values, _ := m.Flat()
		return values.Host
	}
	a := flat(1)
	if !slices.Equal(a, flat(1)) || slices.Equal(a, flat(2)) {
		t.Error("weights are not a function of the seed")
	}
	big := Llama(64, 64, 2, 2, 500, 16)
	m, err := New(big, 1, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Params() {
		sum, squares := 0.0, 0.0
		for _, v := range p.Value.Host() {
			sum += float64(v)
			squares += float64(v) * float64(v)
		}
		n := float64(len(p.Value.Host()))
		want := 0.02
		switch {
		case strings.HasSuffix(p.Name, "norm.weight"):
			if sum != n {
				t.Errorf("%s: norms do not start at one", p.Name)
			}
			continue
		case strings.Contains(p.Name, "o_proj"), strings.Contains(p.Name, "down_proj"):
			want = 0.02 / 2 // two layers
		}
		if d := math.Sqrt(squares / n); math.Abs(sum/n) > 0.1*want || math.Abs(d-want) > 0.05*want {
			t.Errorf("%s: mean %v, deviation %v, want 0 and %v", p.Name, sum/n, d, want)
		}
	}
	if _, err := New(Config{}, 1, Options{}); err == nil {
		t.Error("an empty configuration made a model")
	}
}

const indexFile = "model.safetensors.index.json"

// sharded writes a model in two files with an index, changed by edit.
func sharded(t *testing.T, edit func(files map[string][]safetensors.Tensor, index map[string]string)) string {
	t.Helper()
	dir := t.TempDir()
	m, err := New(testConfigs()["gqa"], 1, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Save(dir, safetensors.F32); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, weightsFile)); err != nil {
		t.Fatal(err)
	}
	files, index := map[string][]safetensors.Tensor{}, map[string]string{}
	for i, p := range m.Params() {
		name := fmt.Sprintf("model-%d.safetensors", i%2)
		files[name] = append(files[name], safetensors.Tensor{Name: p.Name, DType: safetensors.BF16, Shape: p.Shape, Values: p.Value.Host()})
		index[p.Name] = name
	}
	if edit != nil {
		edit(files, index)
	}
	for name, tensors := range files {
		if err := writeTensors(filepath.Join(dir, name), tensors); err != nil {
			t.Fatal(err)
		}
	}
	b, err := json.Marshal(map[string]any{"metadata": map[string]any{"total_size": 1}, "weight_map": index})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, indexFile), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestLoadSharded(t *testing.T) {
	const layer = "model.layers.0.self_attn.q_proj.weight"
	type edit = func(files map[string][]safetensors.Tensor, index map[string]string)
	extra := func(name string, rows, cols int64) edit {
		return func(files map[string][]safetensors.Tensor, index map[string]string) {
			files["model-0.safetensors"] = append(files["model-0.safetensors"],
				safetensors.Tensor{Name: name, DType: safetensors.F32, Shape: []int64{rows, cols}, Values: make([]float32, rows*cols)})
			index[name] = "model-0.safetensors"
		}
	}
	for _, tt := range []struct {
		name string
		edit edit
		want string // in the error; empty: none
	}{
		{"as it is", nil, ""},
		{"tied head stored", extra("lm_head.weight", 11, 12), ""},
		{"stored frequencies", extra("model.layers.0.self_attn.rotary_emb.inv_freq", 1, 1), ""},
		{"foreign tensor", extra("model.layers.0.self_attn.q_norm.weight", 1, 2), "q_norm"},
		{"foreign bias", extra("model.layers.0.self_attn.q_proj.bias", 1, 12), "q_proj.bias"},
		{"not in the index", func(_ map[string][]safetensors.Tensor, index map[string]string) { delete(index, layer) }, layer + " is missing"},
		{"in the other file", func(_ map[string][]safetensors.Tensor, index map[string]string) {
			index[layer] = map[string]string{"model-0.safetensors": "model-1.safetensors", "model-1.safetensors": "model-0.safetensors"}[index[layer]]
		}, "is not in model-"},
		{"no such file", func(_ map[string][]safetensors.Tensor, index map[string]string) { index[layer] = "model-9.safetensors" }, "model-9"},
		{"outside", func(_ map[string][]safetensors.Tensor, index map[string]string) { index[layer] = "../x.safetensors" }, "not the name of a file"},
		{"absolute", func(_ map[string][]safetensors.Tensor, index map[string]string) { index[layer] = "/x.safetensors" }, "not the name of a file"},
		{"windows path", func(_ map[string][]safetensors.Tensor, index map[string]string) { index[layer] = `c:\x.safetensors` }, "not the name of a file"},
		{"another format", func(_ map[string][]safetensors.Tensor, index map[string]string) { index[layer] = "model.bin" }, "not the name of a file"},
		{"wrong shape", func(files map[string][]safetensors.Tensor, _ map[string]string) {
			for _, list := range files {
				for i := range list {
					if list[i].Name == layer {
						list[i].Shape = []int64{144}
					}
				}
			}
		}, "asks for [12 12]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Load(sharded(t, tt.edit), Options{})
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				want, err := New(testConfigs()["gqa"], 1, Options{})
				if err != nil {
					t.Fatal(err)
				}
				for i, p := range m.Params() {
					have := m.Stored(p)
					for j, v := range want.Params()[i].Value.Host() {
						if have[j] != safetensors.BF16ToFloat32(safetensors.Float32ToBF16(v)) {
							t.Fatalf("%s[%d] is %v, want %v", p.Name, j, have[j], v)
						}
					}
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	if _, err := Load(t.TempDir(), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty folder gave %v", err)
	}
	dir := sharded(t, nil)
	if err := os.Remove(filepath.Join(dir, indexFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, Options{}); err == nil || !strings.Contains(err.Error(), weightsFile) {
		t.Errorf("a folder without weights gave %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, weightsFile), []byte("pickle!!"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, Options{}); !errors.Is(err, safetensors.ErrFormat) {
		t.Errorf("broken weights gave %v", err)
	}
}
