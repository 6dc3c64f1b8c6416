package model

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moot-net/moot/node/internal/checkpoint"
	"github.com/moot-net/moot/node/internal/tensor"
	"github.com/moot-net/moot/shard/safetensors"
)

const weightsFile = "model.safetensors"

// ReadConfig reads config.json of the model in a Hugging Face folder.
func ReadConfig(dir string) (Config, error) {
	b, err := readFile(filepath.Join(dir, "config.json"), maxConfigBytes)
	if err != nil {
		return Config{}, err
	}
	return ParseConfig(b)
}

// Load reads the model in a Hugging Face folder: config.json, and weights in
// any form that package checkpoint reads. Matrices that are stored as BF16 or
// in four bits stay so in memory, until EnableFullGradients; the model computes
// the same, to the bit, as if they were expanded, unless Options say otherwise.
func Load(dir string, o Options) (*Model, error) {
	m, err := load(dir, o)
	if errors.Is(err, checkpoint.ErrUnsupported) && !errors.Is(err, ErrUnsupported) {
		err = fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if err != nil {
		return nil, fmt.Errorf("load model %s: %w", dir, err)
	}
	return m, nil
}

func load(dir string, o Options) (*Model, error) {
	c, err := ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	f, err := checkpoint.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	w := &weights{folder: f, c: c}
	if err := w.check(); err != nil {
		return nil, err
	}
	packed := map[string]bool{}
	for _, p := range c.params() {
		packed[p.name] = w.packable(p)
	}
	m := newPacked(c, o.backend(), packed)
	for i, p := range c.params() {
		err := m.b.Err()
		switch {
		case err != nil: // out of memory
		case packed[p.name]: // one after the other: the backend may keep none of them in the host's memory
			var v tensor.Packed
			if v, err = w.pack(p); err == nil {
				m.setPacked(i, p, v)
			}
		default:
			err = w.read(m, m.params[i])
		}
		if err != nil {
			return nil, err
		}
	}
	m.bind()
	m.SetRecompute(o.Recompute)
	return m, m.b.Err()
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

// weights are the tensors of a checkpoint.
type weights struct {
	folder *checkpoint.Folder
	c      Config
}

// check compares the tensors with those that the configuration asks for, so
// that a wrong checkpoint is refused before memory is allocated for it.
func (w *weights) check() error {
	want := map[string]bool{}
	for _, p := range w.c.params() {
		name := w.find(p.name)
		want[name] = true
		t, ok := w.folder.Lookup(name)
		switch {
		case !ok:
			return fmt.Errorf("tensor %s is missing", p.name)
		case fmt.Sprint(t.Shape) != fmt.Sprint(p.shape()):
			return fmt.Errorf("tensor %s: config.json asks for %v", t, p.shape())
		case t.DType != safetensors.F32 && t.DType != safetensors.BF16 && t.DType != safetensors.F16:
			return fmt.Errorf("%w: tensor %s", ErrUnsupported, t)
		}
	}
	for _, t := range w.folder.Tensors() {
		if !want[t.Name] && !redundant(w.c, t.Name) {
			return fmt.Errorf("%w: tensor %s is not part of a %s as config.json describes it", ErrUnsupported, t.Name, w.c.Architecture)
		}
	}
	return nil
}

// find returns the name under which the checkpoint has a tensor: its own, or
// that without the base's prefix, which checkpoints of the base alone lack.
func (w *weights) find(name string) string {
	if short, ok := strings.CutPrefix(name, w.c.family().base); ok && !w.has(name) && w.has(short) {
		return short
	}
	return name
}

func (w *weights) has(name string) bool {
	_, ok := w.folder.Lookup(name)
	return ok
}

// redundant reports whether a tensor repeats what is known: the output layer
// of a model that ties it to the embedding, stored rotary frequencies and
// causal masks.
func redundant(c Config, name string) bool {
	f := c.family()
	return c.TiedHead && name == f.head+".weight" || strings.HasSuffix(name, ".rotary_emb.inv_freq") ||
		slices.ContainsFunc(f.redundant, func(end string) bool { return strings.HasSuffix(name, end) })
}

// packable reports whether a tensor is to stay as small as it is stored.
// Norms and biases, which are few, are expanded, and so are transposed matrices
// of four bits: their blocks lie along rows.
func (w *weights) packable(p paramSpec) bool {
	t, _ := w.folder.Lookup(w.find(p.name))
	return p.rows > 0 && (t.NF4 && !p.transposed || !t.NF4 && t.DType == safetensors.BF16)
}

// pack reads a matrix that packable holds for.
func (w *weights) pack(p paramSpec) (tensor.Packed, error) {
	name := w.find(p.name)
	if t, _ := w.folder.Lookup(name); t.NF4 {
		return w.folder.ReadNF4(name)
	}
	v, err := w.readBF16(name, p.size())
	if err == nil && p.transposed {
		v = transpose(v, p.cols, p.rows)
	}
	return tensor.BF16(v), err
}

// readBF16 reads n values of a BF16 tensor.
func (w *weights) readBF16(name string, n int) ([]uint16, error) {
	r, err := w.folder.Values(name)
	if err != nil {
		return nil, err
	}
	out, part := make([]uint16, n), make([]float32, min(n, 1<<16))
	for at := 0; at < n; at += len(part) {
		part = part[:min(len(part), n-at)]
		if err := r.Read(part); err != nil {
			return nil, err
		}
		for i, v := range part {
			out[at+i] = uint16(math.Float32bits(v) >> 16)
		}
	}
	return out, nil
}

func (w *weights) read(m *Model, p Param) error {
	name := w.find(p.Name)
	if p.Value.Buf.Host != nil && !p.transposed { // straight to its place
		return w.folder.ReadFloat32(name, p.Value.Host())
	}
	values := make([]float32, p.Value.Rows*p.Value.Cols)
	if err := w.folder.ReadFloat32(name, values); err != nil {
		return err
	}
	if p.transposed {
		values = transpose(values, p.Value.Cols, p.Value.Rows)
	}
	m.b.Upload(p.Value, values)
	return nil
}
