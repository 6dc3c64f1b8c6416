package lora

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/moot-net/moot/node/internal/checkpoint"
	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/shard/safetensors"
)

// MergeInto puts the adapter of p into the weight (out, in) of its layer:
// W + scale B A, and with DoRA each row scaled to its magnitude. It computes in
// float64 and rounds each weight once.
func (a *Adapter) MergeInto(weight []float32, p Part) error {
	if len(weight) != p.In*p.Out {
		return fmt.Errorf("merge %s: %d weights, want (%d,%d)", p.Path, len(weight), p.Out, p.In)
	}
	a.mergeRows(weight, p, 0)
	return nil
}

// mergeRows merges into whole rows of a weight, from row first on.
func (a *Adapter) mergeRows(weight []float32, p Part, first int) {
	ta, tb, magnitude := a.Tensor(p.A), a.Tensor(p.B), a.Magnitude(p)
	row := make([]float64, p.In)
	for o := first; len(weight) > 0; o++ {
		clear(row)
		for r, b := range tb[o*p.Rank : (o+1)*p.Rank] {
			for i, v := range ta[r*p.In : (r+1)*p.In] {
				row[i] += float64(b) * float64(v)
			}
		}
		square := 0.0
		for i, v := range row {
			// Products are rounded before they are added, on every processor.
			row[i] = float64(weight[i]) + float64(float64(p.Scale)*v)
			square += float64(row[i] * row[i])
		}
		factor := 1.0
		if magnitude != nil {
			factor = float64(magnitude[o]) / math.Sqrt(square)
		}
		for i, v := range row {
			weight[i] = float32(factor * v)
		}
		weight = weight[p.In:]
	}
}

// MergeOptions say what an adapter is merged into.
type MergeOptions struct {
	// NF4 merges into the weights as they are after quantisation to four
	// bits: exactly what an adapter was trained on when its base model was
	// quantised, with the error of the quantisation. Without it the adapter
	// is merged into the base model's weights as they are stored, which is
	// what is usually published, even for adapters trained on four bits.
	// A base model that is stored in four bits is dequantised in any case.
	NF4 bool
	// MaxShardBytes and Progress are as in checkpoint.WriteOptions.
	MaxShardBytes int64
	Progress      func(done, total int64)
}

// MergeFolder writes the base model in src, with the adapter merged, to dst,
// which is empty or does not exist. Weights keep the type that they have or,
// quantised, had: results are rounded to it once, to the nearest, ties to
// even. The header of each file says in "merged_into" what was merged into. A
// result that is not finite is an error.
func (a *Adapter) MergeFolder(ctx context.Context, src, dst string, o MergeOptions) error {
	if err := a.mergeFolder(ctx, src, dst, o); err != nil {
		return fmt.Errorf("merge adapter into %s: %w", src, err)
	}
	return nil
}

func (a *Adapter) mergeFolder(ctx context.Context, src, dst string, o MergeOptions) error {
	config, err := checkpoint.ReadConfig(src)
	if err != nil {
		return err
	}
	f, err := checkpoint.Open(src)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	m := &merger{a: a, f: f, o: o, into: "weights"}
	if o.NF4 {
		m.into = "nf4"
	}
	groups, err := m.groups(config)
	if err != nil {
		return err
	}
	if err := checkpoint.NewFolder(dst); err != nil {
		return err
	}
	err = checkpoint.WriteShards(ctx, dst, groups, checkpoint.WriteOptions{
		MaxShardBytes: o.MaxShardBytes, Progress: o.Progress, Metadata: map[string]string{"merged_into": m.into},
	})
	if err != nil {
		return err
	}
	if err := checkpoint.CopyRest(dst, src); err != nil {
		return err
	}
	delete(config, "quantization_config")
	return config.Write(dst)
}

type merger struct {
	a    *Adapter
	f    *checkpoint.Folder
	o    MergeOptions
	into string
}

// groups lists what to write. It changes the configuration when the output
// layer becomes one of its own.
func (m *merger) groups(config checkpoint.Config) ([]checkpoint.Group, error) {
	parts, saved := map[string]Part{}, map[string]Saved{}
	for _, p := range m.a.parts {
		parts[m.nameOf(p.Path+".weight")] = p
	}
	for _, s := range m.a.saved {
		saved[m.nameOf(s.Name)] = s
	}
	var groups []checkpoint.Group
	var dtype safetensors.DType
	for _, t := range m.f.Tensors() {
		if _, ok := saved[t.Name]; m.a.whole && !ok && heads(t.Name) {
			continue // a copy of the embedding, as it was
		}
		p, adapted := parts[t.Name]
		s, replaced := saved[t.Name]
		delete(parts, t.Name)
		delete(saved, t.Name)
		if t.NF4 {
			m.into = "nf4"
		}
		if replaced {
			if !slices.Equal(s.Shape, t.Shape) {
				return nil, fmt.Errorf("%s has shape %v in the adapter, %v in the base model", t.Name, s.Shape, t.Shape)
			}
			if adapted && !m.sameBase(s, t) {
				return nil, fmt.Errorf("%w: the adapter has its own %s and adapts it", ErrUnsupported, t.Name)
			}
		}
		switch {
		case adapted:
			if dtype == "" {
				dtype = t.DType
			}
			if err := m.checkOrder(config, p); err != nil {
				return nil, err
			}
			if want := m.shape(p); !slices.Equal(t.Shape, want) {
				return nil, fmt.Errorf("tensor %s: the adapter is for one of %v", t, want)
			}
			groups = append(groups, stream(t, func(w io.Writer) error { return m.merge(w, t, p) }))
		case replaced:
			groups = append(groups, stream(t, func(w io.Writer) error { return write(w, t, s.Values) }))
		case t.NF4, m.o.NF4 && checkpoint.Quantizable(t):
			groups = append(groups, stream(t, func(w io.Writer) error { return m.copyValues(w, t) }))
		default:
			groups = append(groups, m.f.Plain(t))
		}
	}
	for _, p := range m.a.parts {
		if _, left := parts[m.nameOf(p.Path+".weight")]; left {
			if g, ok := m.untied(config, p, saved); ok {
				groups = append(groups, g)
				continue
			}
			return nil, fmt.Errorf("%w: the base model has no %s of its own to merge into", ErrUnsupported, p.Path+".weight")
		}
	}
	for _, s := range m.a.saved {
		if _, left := saved[m.nameOf(s.Name)]; !left {
			continue
		}
		if s.Name != "lm_head.weight" {
			return nil, fmt.Errorf("%w: the base model has no %s to replace", ErrUnsupported, s.Name)
		}
		// The base model has its embedding there.
		t := checkpoint.Tensor{Name: s.Name, DType: dtype, Shape: s.Shape}
		groups = append(groups, stream(t, func(w io.Writer) error { return write(w, t, s.Values) }))
		config["tie_word_embeddings"] = json.RawMessage("false")
	}
	return groups, m.checkTied(config)
}

// nameOf is the name that a tensor has in the base model's files.
func (m *merger) nameOf(name string) string {
	if t, ok := m.f.Find(name); ok {
		return t.Name
	}
	return name
}

// untied merges into the output layer of a model that has its embedding there:
// what comes out is an output layer of its own. A copy of the embedding that
// PEFT saved beside the adapter is used up; another tensor is not.
func (m *merger) untied(config checkpoint.Config, p Part, saved map[string]Saved) (checkpoint.Group, bool) {
	if p.Path != "lm_head" || string(config["tie_word_embeddings"]) == "false" {
		return checkpoint.Group{}, false
	}
	for _, t := range m.f.Tensors() {
		if !embeds(t.Name) || !slices.Equal(t.Shape, []int64{int64(p.Out), int64(p.In)}) {
			continue
		}
		name := p.Path + ".weight"
		if s, ok := saved[name]; ok && !m.sameBase(s, t) {
			return checkpoint.Group{}, false
		}
		delete(saved, name)
		config["tie_word_embeddings"] = json.RawMessage("false")
		own := t
		own.Name = name
		return stream(own, func(w io.Writer) error { return m.merge(w, t, p) }), true
	}
	return checkpoint.Group{}, false
}

// embeds reports whether a tensor is the table that tokens are looked up in.
func embeds(name string) bool {
	return named(name[:max(0, lastDot(name))], []string{"embed_tokens", "wte", "word_embeddings"})
}

// heads reports whether a tensor is an output layer.
func heads(name string) bool { return name == "lm_head.weight" || name == "embed_out.weight" }

// checkTied refuses an adapter with an embedding of its own for a model that
// uses the embedding as its output layer too: the output layer stays what it
// was, which no file of a tied model can say.
func (m *merger) checkTied(config checkpoint.Config) error {
	if m.a.whole {
		return nil // which is replaced as well
	}
	if _, own := m.f.Lookup("lm_head.weight"); own || string(config["tie_word_embeddings"]) == "false" {
		return nil
	}
	for _, s := range m.a.saved {
		if embeds(s.Name) {
			return fmt.Errorf("%w: the adapter replaces %s, which is also the base model's output layer", ErrUnsupported, s.Name)
		}
	}
	return nil
}

// sameBase reports whether a tensor that PEFT saved beside its adapter is the
// base model's.
func (m *merger) sameBase(s Saved, t checkpoint.Tensor) bool {
	v := make([]float32, len(s.Values))
	return m.f.ReadFloat32(t.Name, v) == nil && slices.Equal(v, s.Values)
}

// checkOrder refuses a square weight that would be merged transposed: the shape
// of others tells.
func (m *merger) checkOrder(config checkpoint.Config, p Part) error {
	kind := config.Text("model_type")
	if stored := kind == "gpt2" && numbered(p.Path); p.In == p.Out && stored != m.transposed(p) {
		return fmt.Errorf("%w: fan_in_fan_out of the adapter is %v, but %s of a %s is stored as %s: set it to %v in %s",
			ErrUnsupported, m.a.spec.FanInFanOut, p.Path, kind, map[bool]string{true: "(in,out)", false: "(out,in)"}[stored], stored, ConfigFile)
	}
	return nil
}

// transposed reports whether a weight is (in,out). The output layer never is.
func (m *merger) transposed(p Part) bool { return m.a.spec.FanInFanOut && numbered(p.Path) }

func (m *merger) shape(p Part) []int64 {
	if m.transposed(p) {
		return []int64{int64(p.In), int64(p.Out)}
	}
	return []int64{int64(p.Out), int64(p.In)}
}

// stream is a group of one tensor in its own type.
func stream(t checkpoint.Tensor, fn func(w io.Writer) error) checkpoint.Group {
	return checkpoint.Group{Bytes: t.Bytes(), Prepare: func() ([]safetensors.Source, error) {
		return []safetensors.Source{{Name: t.Name, DType: t.DType, Shape: t.Shape, Write: fn}}, nil
	}}
}

// mergeBlock is how many weights are merged at a time.
const mergeBlock = 1 << 20

// merge writes the merged weight of a layer.
func (m *merger) merge(w io.Writer, t checkpoint.Tensor, p Part) error {
	if m.transposed(p) {
		return m.mergeTransposed(w, t, p)
	}
	read, err := m.reader(t)
	if err != nil {
		return err
	}
	rows := max(1, mergeBlock/p.In)
	buf := make([]float32, min(rows, p.Out)*p.In)
	for first := 0; first < p.Out; first += rows {
		part := buf[:min(rows, p.Out-first)*p.In]
		if err := read(part); err != nil {
			return err
		}
		m.a.mergeRows(part, p, first)
		if err := write(w, t, part); err != nil {
			return err
		}
	}
	return nil
}

func (m *merger) mergeTransposed(w io.Writer, t checkpoint.Tensor, p Part) error {
	read, err := m.reader(t)
	if err != nil {
		return err
	}
	weight, turned := make([]float32, p.In*p.Out), make([]float32, p.In*p.Out)
	if err := read(weight); err != nil {
		return err
	}
	transpose(turned, weight, p.In, p.Out)
	m.a.mergeRows(turned, p, 0)
	transpose(weight, turned, p.Out, p.In)
	return write(w, t, weight)
}

func transpose(dst, src []float32, rows, cols int) {
	for r := range rows {
		for c := range cols {
			dst[c*rows+r] = src[r*cols+c]
		}
	}
}

// reader returns a function that reads the weights to merge into, in order.
func (m *merger) reader(t checkpoint.Tensor) (func(dst []float32) error, error) {
	if !m.o.NF4 || t.NF4 || !checkpoint.Quantizable(t) {
		v, err := m.f.Values(t.Name)
		if err != nil {
			return nil, err
		}
		return v.Read, nil
	}
	weight, err := m.f.AsNF4(t.Name)
	if err != nil {
		return nil, err
	}
	return ranges(weight), nil
}

func ranges(w *nf4.Weight) func(dst []float32) error {
	at := 0
	return func(dst []float32) error {
		w.DequantRange(dst, at, at+len(dst))
		at += len(dst)
		return nil
	}
}

// copyValues writes a tensor that is or was quantised, dequantised.
func (m *merger) copyValues(w io.Writer, t checkpoint.Tensor) error {
	read, err := m.reader(t)
	if err != nil {
		return err
	}
	left := t.Elements()
	buf := make([]float32, min(left, mergeBlock))
	for left > 0 {
		part := buf[:min(left, mergeBlock)]
		if err := read(part); err != nil {
			return err
		}
		if err := write(w, t, part); err != nil {
			return err
		}
		left -= int64(len(part))
	}
	return nil
}

// write writes values in the type of t.
func write(w io.Writer, t checkpoint.Tensor, values []float32) error {
	var b []byte
	var again []float32
	for part := range slices.Chunk(values, mergeBlock) {
		b = safetensors.AppendFloats(b[:0], part, t.DType)
		again = slices.Grow(again[:0], len(part))[:len(part)]
		safetensors.DecodeFloats(again, b, t.DType)
		for i, x := range again {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				return fmt.Errorf("tensor %s: the value %v is %v as %s, %w", t.Name, part[i], x, t.DType, ErrNotFinite)
			}
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}
