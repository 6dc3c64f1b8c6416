package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/shard/safetensors"
)

func matrix(name string, d safetensors.DType, rows, cols int) safetensors.Source {
	r := rand.New(rand.NewPCG(uint64(len(name)), uint64(name[len(name)-8])))
	v := make([]float32, rows*cols)
	for i := range v {
		v[i] = float32(r.NormFloat64() * 0.02)
	}
	s := vector(name, d, safetensors.AppendFloats(nil, v, d))
	s.Shape = []int64{int64(rows), int64(cols)}
	return s
}

// model is a folder with what a published one has.
func model(t testing.TB) string {
	t.Helper()
	sources := []safetensors.Source{
		matrix("model.embed_tokens.weight", safetensors.BF16, 50, 64),
		matrix("lm_head.weight", safetensors.BF16, 50, 64),
		vector("model.norm.weight", safetensors.BF16, make([]byte, 128)),
		vector("model.position_ids", safetensors.I64, make([]byte, 8)),
	}
	for i := range 12 {
		p := fmt.Sprintf("model.layers.%d.", i)
		sources = append(sources,
			matrix(p+"mlp.up_proj.weight", safetensors.BF16, 96, 64), matrix(p+"mlp.down_proj.weight", safetensors.BF16, 64, 96),
			vector(p+"mlp.up_proj.bias", safetensors.BF16, make([]byte, 192)), vector(p+"input_layernorm.weight", safetensors.BF16, make([]byte, 128)))
	}
	dir := safeFolder(t, sources...)
	write(t, filepath.Join(dir, configFile), []byte(`{"vocab_size": 50, "rms_norm_eps": 1e-05, "model_type": "llama", "note": "<&>"}`))
	write(t, filepath.Join(dir, "tokenizer.json"), []byte("{}"))
	write(t, filepath.Join(dir, ".hidden"), []byte("x"))
	write(t, filepath.Join(dir, "old.gguf"), []byte("x"))
	return dir
}

func listFolder(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestQuantize(t *testing.T) {
	src := model(t)
	one, many := filepath.Join(t.TempDir(), "one"), t.TempDir()
	var last, total int64
	if err := Quantize(t.Context(), src, one, QuantizeOptions{}, func(done, all int64) {
		if done < last || done > all {
			t.Errorf("%d of %d bytes after %d", done, all, last)
		}
		last, total = done, all
	}); err != nil {
		t.Fatal(err)
	}
	if last != total || total == 0 {
		t.Errorf("progress ends at %d of %d", last, total)
	}
	if diff := cmp.Diff([]string{configFile, weightsFile, "tokenizer.json"}, listFolder(t, one)); diff != "" {
		t.Error(diff)
	}
	if err := Quantize(t.Context(), src, many, QuantizeOptions{MaxShardBytes: 20_000}, nil); err != nil {
		t.Fatal(err)
	}
	if n := len(listFolder(t, many)); n < 5 || slices.Contains(listFolder(t, many), weightsFile) {
		t.Errorf("shards are %v", listFolder(t, many))
	}
	checkIndex(t, many)
	a, errA := Open(one)
	b, errB := Open(many)
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	defer a.Close()
	defer b.Close()
	if diff := cmp.Diff(a.Tensors(), b.Tensors()); diff != "" {
		t.Error(diff)
	}
	from, err := Open(src)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if len(from.Tensors()) != len(a.Tensors()) {
		t.Errorf("%d tensors became %d", len(from.Tensors()), len(a.Tensors()))
	}
	for _, info := range a.Tensors() {
		if info.NF4 != strings.Contains(info.Name, "_proj.weight") {
			t.Errorf("%s: four bits: %v", info, info.NF4)
		}
		if before, ok := from.Lookup(info.Name); !ok || before.String() != info.String() {
			t.Errorf("%s was %s", info, before)
		}
		if !isFloat(info.DType) {
			continue
		}
		x, y, z := values(t, a, info), values(t, b, info), values(t, from, info)
		if info.NF4 {
			w, err := nf4.New(z, int(info.Shape[0]), int(info.Shape[1]))
			if err != nil {
				t.Fatal(err)
			}
			if again, err := from.AsNF4(info.Name); err != nil || !cmp.Equal(w, again) {
				t.Errorf("%s: AsNF4 is another weight (%v)", info, err)
			}
			w.Dequant(z)
		}
		if !slices.Equal(x, y) || !slices.Equal(x, z) {
			t.Errorf("%s: values differ", info)
		}
	}
	checkConfig(t, one)
}

func values(t *testing.T, f *Folder, info Tensor) []float32 {
	t.Helper()
	v := make([]float32, info.Elements())
	if err := f.ReadFloat32(info.Name, v); err != nil {
		t.Fatal(err)
	}
	return v
}

// checkIndex compares the index with the files, and that the parts of a weight
// are in one file.
func checkIndex(t *testing.T, dir string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, weightsFile+indexSuffix))
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Metadata struct {
			Total int64 `json:"total_size"`
		}
		Map map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(b, &index); err != nil {
		t.Fatal(err)
	}
	total, seen := int64(0), 0
	for _, name := range listFolder(t, dir) {
		if filepath.Ext(name) != ".safetensors" {
			continue
		}
		f, err := safetensors.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		total += f.Header().DataBytes
		for _, info := range f.Header().Tensors {
			seen++
			if index.Map[info.Name] != name {
				t.Errorf("%s is in %s, the index says %s", info, name, index.Map[info.Name])
			}
			if i := strings.Index(info.Name, ".weight."); i > 0 && index.Map[info.Name[:i+7]] != name {
				t.Errorf("%s is in another file than its weight", info)
			}
		}
		f.Close()
	}
	if total != index.Metadata.Total || seen != len(index.Map) {
		t.Errorf("files have %d bytes and %d tensors, the index says %d and %d", total, seen, index.Metadata.Total, len(index.Map))
	}
}

func checkConfig(t *testing.T, dir string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "model_type": "llama",
  "note": "<&>",
  "quantization_config": {
    "_load_in_4bit": true,
    "_load_in_8bit": false,
    "bnb_4bit_compute_dtype": "bfloat16",
    "bnb_4bit_quant_storage": "uint8",
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": true,
    "llm_int8_enable_fp32_cpu_offload": false,
    "llm_int8_has_fp16_weight": false,
    "llm_int8_skip_modules": null,
    "llm_int8_threshold": 6.0,
    "load_in_4bit": true,
    "load_in_8bit": false,
    "quant_method": "bitsandbytes"
  },
  "rms_norm_eps": 1e-05,
  "vocab_size": 50
}
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestQuantizeRefuses(t *testing.T) {
	done, cancel := context.WithCancel(t.Context())
	cancel()
	twice := t.TempDir()
	if err := Quantize(t.Context(), model(t), twice, QuantizeOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	with := func(config string, sources ...safetensors.Source) string {
		dir := safeFolder(t, sources...)
		write(t, filepath.Join(dir, configFile), []byte(config))
		return dir
	}
	nan := vector("a.0.weight", safetensors.BF16, []byte{0xc0, 0x7f, 0, 0})
	nan.Shape = []int64{1, 2}
	for name, tt := range map[string]struct {
		ctx      context.Context
		src, dst string
		want     string
	}{
		"twice":         {t.Context(), twice, t.TempDir(), "quantised already"},
		"not empty":     {t.Context(), model(t), twice, "is not empty"},
		"cancelled":     {done, model(t), t.TempDir(), "canceled"},
		"gpt2":          {t.Context(), with(`{"model_type":"gpt2"}`, matrix("h.0.attn.c_attn.weight", safetensors.F32, 2, 2)), t.TempDir(), "gpt2"},
		"no weights":    {t.Context(), with(`{}`, matrix("lm_head.weight", safetensors.F32, 2, 2)), t.TempDir(), "no linear layers"},
		"no config":     {t.Context(), safeFolder(t, nan), t.TempDir(), "config.json"},
		"broken config": {t.Context(), with(`[]`, nan), t.TempDir(), "config.json"},
		"null config":   {t.Context(), with(`null`, nan), t.TempDir(), "no settings"},
		"not finite":    {t.Context(), with(`{}`, nan), t.TempDir(), "a.0.weight BF16[1 2]: a weight is not finite"},
		"nothing":       {t.Context(), t.TempDir(), t.TempDir(), "config.json"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Quantize(tt.ctx, tt.src, tt.dst, QuantizeOptions{}, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want one with %q", err, tt.want)
			}
			if name != "not empty" && len(listFolder(t, tt.dst)) > 0 {
				t.Errorf("left %v", listFolder(t, tt.dst))
			}
		})
	}
}

// TestQuantizeMemory: what is allocated does not grow with a tensor's size,
// except for its scales.
func TestQuantizeMemory(t *testing.T) {
	const rows, cols = 4096, 2048 // 16 MiB
	s := safetensors.Source{Name: "a.0.weight", DType: safetensors.BF16, Shape: []int64{rows, cols}, Write: func(w io.Writer) error {
		b := safetensors.AppendFloats(nil, make([]float32, cols), safetensors.BF16)
		for i := range rows {
			b[2*(i%cols)+1] = 0x3f
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
		return nil
	}}
	var groups []Group
	for i := range 4 { // the same again and again
		s := s
		s.Name = fmt.Sprintf("a.%d.weight", i)
		groups = append(groups, Group{2 * rows * cols, func() ([]safetensors.Source, error) { return []safetensors.Source{s}, nil }})
	}
	src := t.TempDir()
	if err := WriteShards(t.Context(), src, groups, WriteOptions{MaxShardBytes: 20 << 20}); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(src, configFile), []byte("{}"))
	dst := t.TempDir()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := Quantize(t.Context(), src, dst, QuantizeOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	// All allocations of the whole work: per pass over a tensor 4 MiB of
	// values and 1 MiB of bytes, and a sixteenth of a float per weight.
	if n := after.TotalAlloc - before.TotalAlloc; n > 80<<20 {
		t.Errorf("%d MiB allocated for four tensors of 16 MiB", n>>20)
	}
}

func TestConvert(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	tensors, storages := sample()
	write(t, filepath.Join(src, "pytorch_model-00001-of-00002.bin"), zipFile(tensors[:3], map[string]string{"0": storages["0"]}))
	write(t, filepath.Join(src, "pytorch_model-00002-of-00002.bin"), zipFile(tensors[3:], storages))
	write(t, filepath.Join(src, torchFile+indexSuffix), []byte(`{"weight_map":{
		"layers.10.w":"pytorch_model-00001-of-00002.bin","layers.9.t":"pytorch_model-00001-of-00002.bin","part":"pytorch_model-00001-of-00002.bin",
		"one":"pytorch_model-00002-of-00002.bin","half":"pytorch_model-00002-of-00002.bin"}}`))
	write(t, filepath.Join(src, configFile), []byte(`{}`))
	write(t, filepath.Join(src, "tokenizer.model"), []byte(`x`))
	if err := Convert(t.Context(), src, dst, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{configFile, weightsFile, "tokenizer.model"}, listFolder(t, dst)); diff != "" {
		t.Error(diff)
	}
	a, errA := Open(src)
	b, errB := Open(dst)
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	defer a.Close()
	defer b.Close()
	if len(a.Tensors()) != 5 || len(b.Tensors()) != 5 {
		t.Errorf("%v became %v", a.Tensors(), b.Tensors())
	}
	for _, info := range a.Tensors() {
		if !slices.Equal(values(t, a, info), values(t, b, info)) {
			t.Errorf("%s: values differ", info)
		}
	}
}

// TestConvertNF4: a four-bit checkpoint stays what it is.
func TestConvertNF4(t *testing.T) {
	quantised, again := t.TempDir(), t.TempDir()
	if err := Quantize(t.Context(), model(t), quantised, QuantizeOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := Convert(t.Context(), quantised, again, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range listFolder(t, quantised) {
		x, errX := os.ReadFile(filepath.Join(quantised, name))
		y, errY := os.ReadFile(filepath.Join(again, name))
		if errX != nil || errY != nil || !bytes.Equal(x, y) {
			t.Errorf("%s differs (%v, %v)", name, errX, errY)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	if _, err := Open(t.TempDir()); !errors.Is(err, ErrUnsupported) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty folder gave %v", err)
	}
	shard := func(index string) string {
		dir := safeFolder(t, matrix("a.0.weight", safetensors.F32, 2, 2))
		if err := os.Rename(filepath.Join(dir, weightsFile), filepath.Join(dir, "m-1.safetensors")); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, weightsFile+indexSuffix), []byte(index))
		return dir
	}
	for name, tt := range map[string]struct{ index, want string }{
		"outside":      {`{"weight_map":{"a":"../m.safetensors"}}`, "not the name of a file"},
		"device":       {`{"weight_map":{"a":"C:m.safetensors"}}`, "not the name of a file"},
		"another kind": {`{"weight_map":{"a":"m-1.bin"}}`, "not the name of a file"},
		"empty":        {`{}`, "no tensors"},
		"text":         {`text`, "invalid"},
		"no file":      {`{"weight_map":{"a":"m-2.safetensors"}}`, "m-2.safetensors"},
		"no tensor":    {`{"weight_map":{"a":"m-1.safetensors"}}`, `"a" is not in m-1.safetensors`},
	} {
		if _, err := Open(shard(tt.index)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: err = %v, want one with %q", name, err, tt.want)
		}
	}
	f, err := Open(shard(`{"weight_map":{"a.0.weight":"m-1.safetensors"}}`))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestStateRefuses breaks four-bit tensors.
func TestStateRefuses(t *testing.T) {
	src := safeFolder(t, matrix("a.0.weight", safetensors.F32, 8, 64))
	f, err := Open(src)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parts, err := f.quantizeTensor(f.Tensors()[0])
	if err != nil {
		t.Fatal(err)
	}
	state := string(quantState{safetensors.F32, 8, 64, 64, true, 256, 0.5}.marshal())
	for name, tt := range map[string]struct {
		part int
		with safetensors.Source
		want string
	}{
		"fp4":            {5, vector("a.0.weight.quant_state.bitsandbytes__fp4", safetensors.U8, []byte(state)), `"fp4"`},
		"type":           {5, vector("", safetensors.U8, []byte(strings.Replace(state, `"nf4"`, `"fp4"`, 1))), "only nf4"},
		"dtype":          {5, vector("", safetensors.U8, []byte(strings.Replace(state, `"dtype": "float32"`, `"dtype": "int8"`, 1))), `"int8"`},
		"no JSON":        {5, vector("", safetensors.U8, []byte(state[1:])), "quantisation state"},
		"too long":       {5, vector("", safetensors.U8, make([]byte, maxStateBytes+1)), "no quantisation state"},
		"shape":          {5, vector("", safetensors.U8, []byte(strings.Replace(state, "[8, 64]", "[8, 66]", 1))), "want 264 bytes"},
		"huge shape":     {5, vector("", safetensors.U8, []byte(strings.Replace(state, "[8, 64]", "[4000000000, 4000000000]", 1))), "of shape"},
		"negative shape": {5, vector("", safetensors.U8, []byte(strings.Replace(state, "[8, 64]", "[-8, -64]", 1))), "of shape"},
		"vector":         {5, vector("", safetensors.U8, []byte(strings.Replace(state, "[8, 64]", "[512]", 1))), "only matrices"},
		"block size":     {5, vector("", safetensors.U8, []byte(strings.Replace(state, `"blocksize": 64`, `"blocksize": 0`, 1))), "blocks of 0"},
		"nested block":   {5, vector("", safetensors.U8, []byte(strings.Replace(state, "256", "0", 1))), "blocks of 0"},
		"half nested":    {5, vector("", safetensors.U8, []byte(strings.Replace(state, "nested_offset", "other", 1))), "a part of double"},
		"packed":         {0, vector("", safetensors.U8, make([]byte, 255)), "want 256 bytes"},
		"scales":         {1, vector("", safetensors.U8, make([]byte, 7)), "want 8 of type U8"},
		"scale type":     {1, vector("", safetensors.F32, make([]byte, 32)), "want 8 of type U8"},
		"map":            {2, vector("", safetensors.F32, make([]byte, 60)), "want 16 of type F32"},
		"nested scales":  {3, vector("", safetensors.F32, make([]byte, 8)), "want 1 of type F32"},
		"not finite":     {3, vector("", safetensors.F32, []byte{0, 0, 0xc0, 0x7f}), "not finite"},
		"nested map":     {4, vector("x", safetensors.F32, make([]byte, 8)), "nested_quant_map is missing"},
		"no weight":      {0, vector("x", safetensors.F32, make([]byte, 8)), "weight is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			list := slices.Clone(parts)
			if tt.with.Name == "" {
				tt.with.Name = list[tt.part].Name
			}
			list[tt.part] = tt.with
			f, err := Open(safeFolder(t, list...))
			if err == nil {
				defer f.Close()
				_, err = f.ReadNF4("a.0.weight")
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) {
				t.Errorf("err = %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestPythonFloat(t *testing.T) {
	for want, x := range map[string]float64{
		"0.0": 0, "1.0": 1, "-0.5": -0.5, "0.0001": 1e-4, "9.999999747378752e-05": float64(float32(1e-4)), "1e-05": 1e-5,
		"1234567.0": 1234567, "1e+16": 1e16, "1000000000000000.0": 1e15, "0.05274251475930214": float64(float32(0.052742515)),
	} {
		if got := pythonFloat(x); got != want {
			t.Errorf("pythonFloat(%v) = %s, want %s", x, got, want)
		}
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [48, 160], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.05274251475930214}`))
	f.Add([]byte(`{"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [48, 160]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseState(b)
		if err != nil {
			return
		}
		again, err := parseState(s.marshal())
		if err != nil || again != s {
			t.Fatalf("%+v became %+v, %v", s, again, err)
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"weight_map":{"a":"m-1.safetensors"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		index, err := parseIndex(b, ".safetensors")
		if err != nil {
			return
		}
		for _, name := range index {
			if filepath.Base(name) != name || !filepath.IsLocal(name) {
				t.Fatalf("accepted %q", name)
			}
		}
	})
}
