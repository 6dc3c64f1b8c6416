package lora_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/checkpoint"
	"github.com/moot-net/moot/node/internal/goldentest"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/shard/safetensors"
)

// Tolerances from the README of the reference results.
const (
	logitsTolerance = 5e-4
	mergedTolerance = 2e-4
)

// golden returns the folder of reference results.
func golden(t *testing.T) string {
	t.Helper()
	return goldentest.Dir(t)
}

// modules lists the linear layers of a model's folder, the output layer too.
func modules(t *testing.T, dir string) []lora.Module {
	t.Helper()
	f, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []lora.Module
	for _, info := range f.Tensors() {
		if path, ok := strings.CutSuffix(info.Name, ".weight"); ok && (checkpoint.Quantizable(info) || path == "lm_head") {
			list = append(list, lora.Module{Path: path, In: int(info.Shape[1]), Out: int(info.Shape[0])})
		}
	}
	return list
}

func open(t *testing.T, path ...string) *safetensors.File {
	t.Helper()
	f, err := safetensors.Open(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func floats(t *testing.T, f *safetensors.File, name string) []float32 {
	t.Helper()
	v, _, err := f.ReadTensor(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func near(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range got {
		if e := math.Abs(float64(got[i]) - float64(want[i])); e > tolerance || e != e {
			t.Fatalf("%s: value %d is %v, want %v within %g", what, i, got[i], want[i], tolerance)
		}
	}
}

// logits computes those of the first row of ids with the model in a folder.
func logits(t *testing.T, dir string, refs *safetensors.File, ids string) []float32 {
	t.Helper()
	m, err := model.Load(dir, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b, info, err := refs.ReadRaw(ids)
	if err != nil {
		t.Fatal(err)
	}
	var row []int32
	for i := range info.Shape[1] {
		row = append(row, int32(binary.LittleEndian.Uint64(b[8*i:])))
	}
	var batch model.Batch
	if err := batch.Add(row, row); err != nil {
		t.Fatal(err)
	}
	v, err := m.Logits(&batch)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestGoldenAdapters reads PEFT's adapters in all forms, merges each, and
// compares the logits of the merged model.
func TestGoldenAdapters(t *testing.T) {
	dir := filepath.Join(golden(t), "adapters")
	var index struct {
		Model    string
		Adapters map[string]json.RawMessage
	}
	b, err := os.ReadFile(filepath.Join(dir, "golden.json"))
	if err == nil {
		err = json.Unmarshal(b, &index)
	}
	if err != nil {
		t.Fatal(err)
	}
	src, refs := filepath.Join(golden(t), "models", index.Model), open(t, dir, "golden.safetensors")
	for _, name := range slices.Sorted(maps.Keys(index.Adapters)) {
		t.Run(name, func(t *testing.T) {
			a, err := lora.ReadAny(filepath.Join(dir, name), modules(t, src))
			if err != nil {
				t.Fatal(err)
			}
			dst := t.TempDir()
			if err := a.MergeFolder(t.Context(), src, dst, lora.MergeOptions{}); err != nil {
				t.Fatal(err)
			}
			near(t, "logits", logits(t, dst, refs, "input_ids"), floats(t, refs, name+".logits_row0"), logitsTolerance)
		})
	}
}

// TestGoldenMerged compares a merged weight.
func TestGoldenMerged(t *testing.T) {
	dirs, err := filepath.Glob(filepath.Join(golden(t), "models", "*", "adapter_trained"))
	if err != nil {
		t.Fatal(err)
	}
	for _, adapter := range dirs {
		src := filepath.Dir(adapter)
		t.Run(filepath.Base(src), func(t *testing.T) {
			a, err := lora.Read(adapter, modules(t, src))
			if err != nil {
				t.Fatal(err)
			}
			dst := t.TempDir()
			if err := a.MergeFolder(t.Context(), src, dst, lora.MergeOptions{}); err != nil {
				t.Fatal(err)
			}
			f, err := checkpoint.Open(dst)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			refs := open(t, src, "golden.safetensors")
			compared := 0
			for _, info := range refs.Header().Tensors {
				name, ok := strings.CutPrefix(info.Name, "merged.")
				if !ok {
					continue
				}
				compared++
				got := make([]float32, info.Elements())
				if err := f.ReadFloat32(name, got); err != nil {
					t.Fatal(err)
				}
				near(t, name, got, floats(t, refs, info.Name), mergedTolerance)
			}
			if compared == 0 {
				t.Error("nothing was compared")
			}
		})
	}
}

// TestGoldenMergedNF4 merges into a model's weights as they are in four bits,
// and compares the logits with those of the adapter on them.
func TestGoldenMergedNF4(t *testing.T) {
	names, err := filepath.Glob(filepath.Join(golden(t), "nf4", "qlora_*.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range names {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "qlora_"), ".safetensors")
		t.Run(name, func(t *testing.T) {
			src := filepath.Join(golden(t), "models", name)
			a, err := lora.Read(filepath.Join(src, "adapter_init"), modules(t, src))
			if err != nil {
				t.Fatal(err)
			}
			dst := t.TempDir()
			if err := a.MergeFolder(t.Context(), src, dst, lora.MergeOptions{NF4: true}); err != nil {
				t.Fatal(err)
			}
			got := logits(t, dst, open(t, src, "golden.safetensors"), "main.input_ids")
			near(t, "logits", got, floats(t, open(t, path), "main.logits")[:len(got)], logitsTolerance)
		})
	}
}

// TestGoldenWritten: what PEFT wrote, read and written again, has the same
// bytes of weights, and says the same of the adapter; what PEFT says besides is
// what it takes for granted where it is not there.
func TestGoldenWritten(t *testing.T) {
	dirs, err := filepath.Glob(filepath.Join(golden(t), "adapters", "*", lora.ConfigFile))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no adapters: %v", err)
	}
	var index struct{ Model string }
	readJSON(t, filepath.Join(golden(t), "adapters", "golden.json"), &index)
	src := filepath.Join(golden(t), "models", index.Model)
	granted := map[string]any{"megatron_core": "megatron.core", "qalora_group_size": 16.0}
	for _, path := range dirs {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			a, err := lora.ReadAny(dir, modules(t, src))
			if err != nil {
				t.Fatal(err)
			}
			out := t.TempDir()
			if err := a.Write(out, index.Model); err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join(dir, lora.WeightsFile))
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(out, lora.WeightsFile))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes of weights differ from the %d of PEFT", len(got), len(want))
			}
			var theirs, ours map[string]any
			readJSON(t, path, &theirs)
			readJSON(t, filepath.Join(out, lora.ConfigFile), &ours)
			for key, v := range theirs {
				if list, ok := v.([]any); ok && key == "target_modules" { // a set
					slices.SortFunc(list, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
				}
				mine, told := ours[key]
				if told && !reflect.DeepEqual(mine, v) {
					t.Errorf("%s is %v, PEFT wrote %v", key, mine, v)
				}
				empty := v == nil || v == false || v == granted[key] || reflect.DeepEqual(v, map[string]any{})
				if !told && !empty && key != "peft_version" {
					t.Errorf("%s is not there, PEFT wrote %v", key, v)
				}
			}
			for key := range ours {
				if _, ok := theirs[key]; !ok {
					t.Errorf("%s is nothing that PEFT writes", key)
				}
			}
		})
	}
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}
