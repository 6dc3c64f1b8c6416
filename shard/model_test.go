package shard

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/moot-net/moot/shard/safetensors"
)

// weights is a safetensors file with one float tensor of n numbers per name.
func weights(t testing.TB, n int, names ...string) string {
	t.Helper()
	var tensors []safetensors.Tensor
	for i, name := range names {
		values := make([]float32, n)
		for j := range values {
			values[j] = float32(i*n + j)
		}
		tensors = append(tensors, safetensors.Tensor{Name: name, DType: safetensors.F32, Shape: []int64{int64(n)}, Values: values})
	}
	var b bytes.Buffer
	if err := safetensors.Write(&b, tensors, nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const llamaConfig = `{"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":64}`

func TestImportModel(t *testing.T) {
	one, two := weights(t, 10, "a", "b"), weights(t, 300_000, "c")
	files := map[string]string{
		"config.json": llamaConfig, "tokenizer.json": "{}", "tokenizer_config.json": "{}", "LICENSE.txt": "free", "USE_POLICY.md": "be nice",
		"README.md":                        "---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\nlicense: none\n",
		"model-00001-of-00002.safetensors": one, "model-00002-of-00002.safetensors": two,
		"model.safetensors.index.json": `{"metadata":{},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00001-of-00002.safetensors","c":"model-00002-of-00002.safetensors"}}`,
		"extra.safetensors":            one,
		".gitattributes":               "left out", ".cache/pytorch_model.bin": "left out",
	}
	s := testStore(t)
	got, err := s.ImportModel(t.Context(), tree(t, files), ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := Model{
		Import: got.Import, Type: "llama", Architectures: []string{"LlamaForCausalLM"},
		Weights:     []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"},
		WeightBytes: int64(len(one) + len(two)), Tensors: 3, Parameters: 300_020,
		Tokenizer: []string{"tokenizer.json", "tokenizer_config.json"}, Licence: "apache-2.0", LicenceFiles: []string{"LICENSE.txt"},
		Warnings: []string{fmt.Sprintf("extra.safetensors (%d bytes) is not among the weights; without it the model is quicker to pull", len(one))},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(want.Root)); diff != "" {
		t.Errorf("model (-want +got):\n%s", diff)
	}
	checked, err := s.CheckModel(t.Context(), got.Root)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, checked, cmpopts.EquateComparable(want.Root)); diff != "" {
		t.Errorf("checked (-imported +checked):\n%s", diff)
	}
	// To check a model does not need its weights, but for their headers.
	f, err := s.Lookup(t.Context(), got.Root, "model-00002-of-00002.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	n, _, err := s.node(t.Context(), f.CID)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteBlock(t.Context(), n.links[len(n.links)-1].CID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CheckModel(t.Context(), got.Root); err != nil {
		t.Errorf("CheckModel without the last leaf = %v", err)
	}
	if err := s.DeleteBlock(t.Context(), n.links[0].CID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CheckModel(t.Context(), got.Root); !errors.Is(err, ErrIncomplete) || errors.Is(err, ErrInvalid) {
		t.Errorf("CheckModel without a header = %v, want ErrIncomplete", err)
	}
}

func TestModelRules(t *testing.T) {
	w := weights(t, 4, "a")
	index := func(m string) string { return `{"weight_map":` + m + `}` }
	for _, tt := range []struct {
		name  string
		files map[string]string // "" removes it from the good model
		want  string            // "" is valid
	}{
		{"as it should be", nil, ""},
		{"no tokenizer", map[string]string{"tokenizer.json": ""}, ""},
		{"no config", map[string]string{"config.json": ""}, "no config.json"},
		{"config is a list", map[string]string{"config.json": "[]"}, "not a JSON object"},
		{"config is broken", map[string]string{"config.json": "{"}, "config.json: invalid: bad JSON"},
		{"config of other types", map[string]string{"config.json": `{"model_type":1}`}, "bad JSON"},
		{"config not UTF-8", map[string]string{"config.json": "{\"a\":\"\xff\"}"}, "not a JSON object"},
		{"config too large", map[string]string{"config.json": "{}" + strings.Repeat(" ", maxConfigBytes)}, "too large"},
		{"no weights", map[string]string{"model.safetensors": ""}, "no .safetensors"},
		{"other name", map[string]string{"model.safetensors": "", "weights.safetensors": w}, ""},
		{"part without index", map[string]string{"model.safetensors": "", "model-00001-of-00002.safetensors": w}, "one of several"},
		{"weights cut", map[string]string{"model.safetensors": w[:len(w)-1]}, "model.safetensors: invalid: invalid safetensors"},
		{"weights grown", map[string]string{"model.safetensors": w + "x"}, "model.safetensors: invalid"},
		{"weights are none", map[string]string{"model.safetensors": "\x80\x02pickle"}, "model.safetensors: invalid"},
		{"bad weights in a folder", map[string]string{"sub/x.safetensors": "x"}, "sub/x.safetensors: invalid"},
		{"pickle", map[string]string{"pytorch_model.bin": "x"}, "pytorch_model.bin\nloading such a file runs"},
		{"pickle in a folder", map[string]string{"sub/optimizer.PT": "x"}, "sub/optimizer.PT"},
		{"checkpoint", map[string]string{"last.ckpt": "x", "a.pth": "x", "b.pkl": "x"}, "a.pth, b.pkl, last.ckpt"},
		{"index", map[string]string{"model.safetensors": "", "x.safetensors": w, "model.safetensors.index.json": index(`{"a":"x.safetensors"}`)}, ""},
		{"index of other name", map[string]string{"model.safetensors": "", "x.safetensors": w, "x.safetensors.index.json": index(`{"a":"x.safetensors"}`)}, ""},
		{"two indexes", map[string]string{"model.safetensors": "", "x.safetensors": w, "x.safetensors.index.json": "{}", "y.safetensors.index.json": "{}"}, "several indexes"},
		{"two indexes, one by its name", map[string]string{"model.safetensors": "", "x.safetensors": w, "a.safetensors.index.json": "{}", "model.safetensors.index.json": index(`{"a":"x.safetensors"}`)}, ""},
		{"index names no file", map[string]string{"model.safetensors": "", "x.safetensors": w, "model.safetensors.index.json": index(`{"a":"y.safetensors"}`)}, `"y.safetensors", which is not there`},
		{"index leads out", map[string]string{"model.safetensors": "", "x.safetensors": w, "model.safetensors.index.json": index(`{"a":"../x.safetensors"}`)}, "not there"},
		{"index names no tensor", map[string]string{"model.safetensors": "", "x.safetensors": w, "model.safetensors.index.json": index(`{"b":"x.safetensors"}`)}, `"b" is in x.safetensors`},
		{"empty index", map[string]string{"model.safetensors": "", "model.safetensors.index.json": index(`{}`)}, "weight_map is empty"},
		{"broken index", map[string]string{"model.safetensors": "", "model.safetensors.index.json": "["}, "bad JSON"},
		{"index beside one file", map[string]string{"model.safetensors.index.json": "["}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := map[string]string{"config.json": llamaConfig, "model.safetensors": w, "tokenizer.json": "{}"}
			maps.Copy(files, tt.files)
			maps.DeleteFunc(files, func(_, content string) bool { return content == "" })
			dir := tree(t, files)
			s := testStore(t)
			_, err := s.ImportModel(t.Context(), dir, ImportOptions{})
			check(t, "ImportModel", err, tt.want)
			if tt.want != "" {
				if got := keys(t, s); len(got) > 0 {
					t.Errorf("stored: %v", got)
				}
			}
			// A peer may have imported it without our checks.
			_, err = s.CheckModel(t.Context(), mustImport(t, s, dir).Root)
			check(t, "CheckModel", err, tt.want)
		})
	}
}

func check(t *testing.T, what string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s = %v", what, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want) || (!errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooLarge))):
		t.Errorf("%s = %v, want %q", what, err, want)
	}
}

func TestModelWarnings(t *testing.T) {
	dir := tree(t, map[string]string{
		"config.json": `{"auto_map":{"AutoModel":"modeling_x.X"}}`, "model.safetensors": weights(t, 1, "a"), "modeling_x.py": "import os",
	})
	m, err := testStore(t).ImportModel(t.Context(), dir, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"config.json has no model_type",
		"config.json asks for Python code of the model's author, which is never run here",
		"no tokenizer.json or tokenizer.model: text cannot be turned into tokens",
	}
	if diff := cmp.Diff(want, m.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// Two folders that are linked to often stand for thousands of files.
func TestModelOfTooManyFiles(t *testing.T) {
	s := testStore(t)
	w := putLeaf(t, s, weights(t, 1, "a"))
	sub := dirNode()
	for i := range 65 {
		sub.links = append(sub.links, named(fmt.Sprintf("%03d.safetensors", i), w))
	}
	folder := putNode(t, s, sub)
	root := dirNode()
	for i := range 64 {
		root.links = append(root.links, named(fmt.Sprintf("%03d", i), folder))
	}
	root.links = append(root.links, named("config.json", putLeaf(t, s, llamaConfig)), named("model.safetensors", w))
	if _, err := s.CheckModel(t.Context(), putNode(t, s, root).CID); !errors.Is(err, ErrTooLarge) {
		t.Errorf("CheckModel = %v, want ErrTooLarge", err)
	}
}

func TestFrontMatterLicence(t *testing.T) {
	for _, tt := range []struct{ readme, want string }{
		{"---\nlicense: mit\n---\n", "mit"},
		{"---\r\nlicense: \"cc-by-4.0\"\r\n---\r\n", "cc-by-4.0"},
		{"\ufeff---\nlanguage:\n- en\nlicense:\n- mit\n- 'apache-2.0'\ntags: [x]\n---\n", "mit, apache-2.0"},
		{"---\nlicense: [mit, gpl]\n---\n", "mit, gpl"},
		{"---\nlicense: llama2\nlicense_name: x\nlicense: second\n---\n", "llama2"},
		{"---\nbase:\n  license: nested\n---\n", ""},
		{"---\nlicense: never ends\n", ""},
		{"# Title\nlicense: mit\n", ""},
		{"---\nlicense: a\x1b[31mb\n---\n", "a[31mb"},
		{"---\nlicense: " + strings.Repeat("é", 200) + "\n---\n", strings.Repeat("é", 128)},
		{"---\n\xff\xfe\nlicense: x\n---\n", "x"},
		{"", ""},
	} {
		if got := frontMatterLicence([]byte(tt.readme)); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.readme, got, tt.want)
		}
	}
}

func FuzzFrontMatterLicence(f *testing.F) {
	f.Add([]byte("---\nlicense: [a, 'b']\n---\n"))
	f.Add([]byte("---\nlicense:\n- a\n---"))
	f.Fuzz(func(t *testing.T, readme []byte) {
		if got := frontMatterLicence(readme); !validText(got, 256) || strings.ContainsAny(got, "\n\r\x1b\x00") {
			t.Errorf("%q", got)
		}
	})
}

// The checkpoints that the reference results were made with are models.
func TestGoldenModels(t *testing.T) {
	root := os.Getenv("MOOT_GOLDEN")
	if root == "" {
		root = filepath.Join("..", "shared", "golden")
	}
	if !filepath.IsAbs(root) {
		root = filepath.Join("..", root) // of the repository
	}
	configs, err := filepath.Glob(filepath.Join(root, "models", "*", "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(configs) == 0 {
		t.Skipf("no reference models in %s (MOOT_GOLDEN)", root)
	}
	s := testStore(t)
	for _, config := range configs {
		dir := filepath.Dir(config)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			m, err := s.ImportModel(t.Context(), dir, ImportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if m.Type == "" || m.Parameters == 0 || m.Files == 0 {
				t.Errorf("model %+v", m)
			}
			out := filepath.Join(t.TempDir(), "out")
			if err := s.Materialize(t.Context(), m.Root, out, MaterializeOptions{MaxBytes: m.Bytes}); err != nil {
				t.Fatal(err)
			}
			if again := mustImport(t, s, out); again.Root != m.Root {
				t.Errorf("after writing: %s, want %s", again.Root, m.Root)
			}
		})
	}
}
