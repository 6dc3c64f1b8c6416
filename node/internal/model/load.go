package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moot-net/moot/shard/safetensors"
)

const (
	weightsFile   = "model.safetensors"
	indexFile     = "model.safetensors.index.json"
	maxIndexBytes = 32 << 20
)

// ReadConfig reads config.json of the model in a Hugging Face folder.
func ReadConfig(dir string) (Config, error) {
	b, err := readFile(filepath.Join(dir, "config.json"), maxConfigBytes)
	if err != nil {
		return Config{}, err
	}
	return ParseConfig(b)
}

// Load reads the model in a Hugging Face folder: config.json, and
// model.safetensors or shards with an index. Weights may be F32, BF16 or F16.
func Load(dir string, o Options) (*Model, error) {
	c, err := ReadConfig(dir)
	if err != nil {
		return nil, fmt.Errorf("load model %s: %w", dir, err)
	}
	w, err := openWeights(dir)
	if err != nil {
		return nil, fmt.Errorf("load model %s: %w", dir, err)
	}
	defer w.close()
	if err := w.check(c); err != nil {
		return nil, fmt.Errorf("load model %s: %w", dir, err)
	}
	m := newModel(c, o.backend())
	m.SetRecompute(o.Recompute)
	for _, p := range m.params {
		if err := w.read(m, p); err != nil {
			return nil, fmt.Errorf("load model %s: %w", dir, err)
		}
	}
	return m, nil
}

func readFile(path string, limit int64) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes, at most %d", path, st.Size(), limit)
	}
	return os.ReadFile(path)
}

// weights are the safetensors files of a checkpoint.
type weights struct {
	files map[string]*safetensors.File // by name of a tensor
	open  []*safetensors.File
}

func (w *weights) close() {
	for _, f := range w.open {
		_ = f.Close()
	}
}

func openWeights(dir string) (*weights, error) {
	w := &weights{files: map[string]*safetensors.File{}}
	f, err := safetensors.Open(filepath.Join(dir, weightsFile))
	if err == nil {
		w.open = append(w.open, f)
		for _, t := range f.Header().Tensors {
			w.files[t.Name] = f
		}
		return w, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	index, err := readIndex(dir)
	if err != nil {
		return nil, err
	}
	byFile := map[string]*safetensors.File{}
	for tensor, name := range index {
		f := byFile[name]
		if f == nil {
			if f, err = safetensors.Open(filepath.Join(dir, name)); err != nil {
				w.close()
				return nil, err
			}
			byFile[name] = f
			w.open = append(w.open, f)
		}
		w.files[tensor] = f
	}
	return w, nil
}

// readIndex returns the file of each tensor.
func readIndex(dir string) (map[string]string, error) {
	b, err := readFile(filepath.Join(dir, indexFile), maxIndexBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: weights in another form than %s or %s: %w", ErrUnsupported, weightsFile, indexFile, err)
	}
	if err != nil {
		return nil, err
	}
	return parseIndex(b)
}

// parseIndex checks that the files are named as files beside the index.
func parseIndex(b []byte) (map[string]string, error) {
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(b, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	for tensor, name := range index.WeightMap {
		if !strings.HasSuffix(name, ".safetensors") || strings.ContainsAny(name, `/\:`) || !filepath.IsLocal(name) {
			return nil, fmt.Errorf("%s: tensor %q is in %q, which is not the name of a file beside it", indexFile, tensor, name)
		}
	}
	return index.WeightMap, nil
}

// check compares the tensors with those that the configuration asks for, so
// that a wrong checkpoint is refused before memory is allocated for it.
func (w *weights) check(c Config) error {
	want := map[string]bool{}
	for _, p := range c.params() {
		name := w.find(c, p.name)
		want[name] = true
		f := w.files[name]
		if f == nil {
			return fmt.Errorf("tensor %s is missing", p.name)
		}
		info, ok := f.Header().Lookup(name)
		if !ok {
			return fmt.Errorf("tensor %s is not in the file that the index says", name)
		}
		if fmt.Sprint(info.Shape) != fmt.Sprint(p.shape()) {
			return fmt.Errorf("tensor %s: config.json asks for %v", info, p.shape())
		}
		if t := info.DType; t != safetensors.F32 && t != safetensors.BF16 && t != safetensors.F16 {
			return fmt.Errorf("%w: tensor %s", ErrUnsupported, info)
		}
	}
	for name := range w.files {
		if !want[name] && !redundant(c, name) {
			return fmt.Errorf("%w: tensor %s is not part of a %s as config.json describes it", ErrUnsupported, name, c.Architecture)
		}
	}
	return nil
}

// find returns the name under which the checkpoint has a tensor: its own, or
// that without the base's prefix, which checkpoints of the base alone lack.
func (w *weights) find(c Config, name string) string {
	if short, ok := strings.CutPrefix(name, c.family().base); ok && w.files[name] == nil && w.files[short] != nil {
		return short
	}
	return name
}

// redundant reports whether a tensor repeats what is known: the output layer
// of a model that ties it to the embedding, stored rotary frequencies and
// causal masks.
func redundant(c Config, name string) bool {
	f := c.family()
	return c.TiedHead && name == f.head+".weight" || strings.HasSuffix(name, ".rotary_emb.inv_freq") ||
		slices.ContainsFunc(f.redundant, func(end string) bool { return strings.HasSuffix(name, end) })
}

func (w *weights) read(m *Model, p Param) error {
	name := w.find(m.cfg, p.Name)
	if p.Value.Buf.Host != nil && !p.transposed { // straight to its place
		return w.files[name].ReadFloat32(name, p.Value.Host())
	}
	values := make([]float32, p.Value.Rows*p.Value.Cols)
	if err := w.files[name].ReadFloat32(name, values); err != nil {
		return err
	}
	if p.transposed {
		values = transpose(values, p.Value.Cols, p.Value.Rows)
	}
	m.b.Upload(p.Value, values)
	return nil
}
