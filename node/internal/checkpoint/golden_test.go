package checkpoint

import (
	"bytes"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/goldentest"
	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/shard/safetensors"
)

// golden returns the folder of reference results.
func golden(t *testing.T) string {
	t.Helper()
	return goldentest.Dir(t)
}

// storedFolder makes a checkpoint of the tensors that the references have of a
// stored weight.
func storedFolder(t *testing.T, refs *safetensors.File, prefix string) string {
	t.Helper()
	var sources []safetensors.Source
	for _, info := range refs.Header().Tensors {
		name, ok := strings.CutPrefix(info.Name, prefix+".")
		if !ok || name == "dequant" {
			continue
		}
		b, _, err := refs.ReadRaw(info.Name)
		if err != nil {
			t.Fatal(err)
		}
		s := vector(name, info.DType, b)
		s.Shape = info.Shape
		sources = append(sources, s)
	}
	return safeFolder(t, sources...)
}

func safeFolder(t testing.TB, sources ...safetensors.Source) string {
	t.Helper()
	var b bytes.Buffer
	if err := safetensors.WriteSources(&b, sources, nil); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, weightsFile), b.Bytes())
	return dir
}

func openReferences(t *testing.T, name string) *safetensors.File {
	t.Helper()
	refs, err := safetensors.Open(filepath.Join(golden(t), "nf4", name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { refs.Close() })
	return refs
}

// TestGoldenStored reads four-bit weights as published checkpoints have them.
func TestGoldenStored(t *testing.T) {
	refs := openReferences(t, "nf4.safetensors")
	for _, prefix := range []string{"stored_single", "stored_double"} {
		t.Run(prefix, func(t *testing.T) {
			f, err := Open(storedFolder(t, refs, prefix))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			want, info, err := refs.ReadTensor(prefix + ".dequant")
			if err != nil {
				t.Fatal(err)
			}
			if len(f.Tensors()) != 1 || f.Tensors()[0].String() != "weight F16[48 160]" || !f.Tensors()[0].NF4 {
				t.Fatalf("tensors %+v", f.Tensors())
			}
			got := make([]float32, len(want))
			if err := f.ReadFloat32("weight", got); err != nil {
				t.Fatal(err)
			}
			for i, x := range got {
				_, e := math.Frexp(float64(want[i]))
				if math.Abs(float64(x-want[i])) > math.Ldexp(1, e-1-10) { // one unit in the last place of a half
					t.Fatalf("value %d of %s is %v, want %v", i, info, x, want[i])
				}
			}
			w, err := f.ReadNF4("weight")
			if err != nil {
				t.Fatal(err)
			}
			if (w.Nested != nil) != (prefix == "stored_double") {
				t.Error("double quantisation where there is none, or the other way round")
			}
			// The state written again is the same bytes.
			state, _, err := refs.ReadRaw(prefix + ".weight.quant_state.bitsandbytes__nf4")
			if err != nil {
				t.Fatal(err)
			}
			if b := f.states["weight"].marshal(); !bytes.Equal(b, state) {
				t.Errorf("state %s, want %s", b, state)
			}
		})
	}
}

// TestGoldenQuantize quantises a model as the references were, and compares
// with a weight that they dequantised.
func TestGoldenQuantize(t *testing.T) {
	names, err := filepath.Glob(filepath.Join(golden(t), "nf4", "qlora_*.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range names {
		refs := openReferences(t, filepath.Base(path))
		model := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "qlora_"), ".safetensors")
		t.Run(model, func(t *testing.T) {
			dst := t.TempDir()
			if err := Quantize(t.Context(), filepath.Join(golden(t), "models", model), dst, QuantizeOptions{}, nil); err != nil {
				t.Fatal(err)
			}
			f, err := Open(dst)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			compared := 0
			for _, info := range refs.Header().Tensors {
				name, ok := strings.CutPrefix(info.Name, "dequantised.")
				if !ok {
					continue
				}
				compared++
				want, _, err := refs.ReadTensor(info.Name)
				if err != nil {
					t.Fatal(err)
				}
				got := make([]float32, len(want))
				if err := f.ReadFloat32(name, got); err != nil {
					t.Fatal(err)
				}
				for i := range got {
					if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
						t.Fatalf("%s: value %d is %v, want %v", name, i, got[i], want[i])
					}
				}
			}
			if compared == 0 {
				t.Error("nothing was compared")
			}
		})
	}
}

// TestGoldenQuantizeBytes writes the tensors that the references store for the
// same weight.
func TestGoldenQuantizeBytes(t *testing.T) {
	refs := openReferences(t, "nf4.safetensors")
	input, info, err := refs.ReadTensor("normal.input")
	if err != nil {
		t.Fatal(err)
	}
	half := safetensors.AppendFloats(nil, input, safetensors.F16)
	const name = "model.layers.0.mlp.up_proj.weight"
	s := vector(name, safetensors.F16, half)
	s.Shape = info.Shape
	src, dst := safeFolder(t, s), t.TempDir()
	write(t, filepath.Join(src, configFile), []byte(`{"model_type":"llama"}`))
	if err := Quantize(t.Context(), src, dst, QuantizeOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	got, err := safetensors.Open(filepath.Join(dst, weightsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	compared := 0
	for _, info := range refs.Header().Tensors {
		part, ok := strings.CutPrefix(info.Name, "stored_double.weight")
		if !ok {
			continue
		}
		compared++
		want, _, err := refs.ReadRaw(info.Name)
		if err != nil {
			t.Fatal(err)
		}
		b, its, err := got.ReadRaw(name + part)
		if err != nil || its.DType != info.DType || len(its.Shape) != len(info.Shape) || !bytes.Equal(b, want) {
			t.Errorf("%s is not that of the references, %s (%v)", its, info, err)
		}
	}
	if compared != 6 || len(got.Header().Tensors) != 6 {
		t.Errorf("%d tensors compared, of %d", compared, len(got.Header().Tensors))
	}
	if nf4.BlockSize != 64 {
		t.Error("another block size than the references")
	}
}
