package lora

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/moot-net/moot/node/internal/checkpoint"
	"github.com/moot-net/moot/shard/safetensors"
)

// Difference is where two tensors, or two adapters, differ first.
type Difference struct {
	Tensor string
	What   string
}

// String returns the tensor and what is different.
func (d Difference) String() string { return d.Tensor + ": " + d.What }

// Differences lists where a differs from want, layer by layer: layers that are
// missing or too many, ranks, scales and magnitudes, and then for each tensor the
// first value.
// Values are compared bit by bit.
func (a *Adapter) Differences(want *Adapter) []Difference {
	var list, values []Difference
	differ := func(tensor, format string, args ...any) {
		list = append(list, Difference{tensor, fmt.Sprintf(format, args...)})
	}
	parts := map[string]Part{}
	for _, p := range a.parts {
		parts[p.Path] = p
	}
	for _, w := range want.parts {
		p, ok := parts[w.Path]
		delete(parts, w.Path)
		switch {
		case !ok:
			differ(w.Path, "is not adapted")
			continue
		case p.Rank != w.Rank || p.In != w.In || p.Out != w.Out:
			differ(w.Path, "rank %d on %d x %d, must be rank %d on %d x %d", p.Rank, p.Out, p.In, w.Rank, w.Out, w.In)
			continue
		case p.Scale != w.Scale:
			differ(w.Path, "is scaled by %v, must be %v", p.Scale, w.Scale)
		}
		for _, x := range []struct {
			name      string
			got, want []float32
		}{{want.layout[w.A].Name, a.Tensor(p.A), want.Tensor(w.A)}, {want.layout[w.B].Name, a.Tensor(p.B), want.Tensor(w.B)}} {
			if i := firstOther(x.got, x.want); i >= 0 {
				values = append(values, Difference{x.name, fmt.Sprintf("value %d is %v, must be %v", i, x.got[i], x.want[i])})
			}
		}
		if got, magnitude := a.Magnitude(p), want.Magnitude(w); len(got) != len(magnitude) || firstOther(got, magnitude) >= 0 {
			differ(w.Path, "has other magnitudes (DoRA)")
		}
	}
	for _, p := range a.parts {
		if _, more := parts[p.Path]; more {
			differ(p.Path, "is adapted, and should not be")
		}
	}
	for _, s := range a.saved {
		differ(s.Name, "is replaced, and should not be")
	}
	return append(list, values...)
}

// firstOther is the first index at which bits differ; -1: none.
func firstOther(got, want []float32) int {
	for i, v := range want {
		if math.Float32bits(got[i]) != math.Float32bits(v) {
			return i
		}
	}
	return -1
}

// AsGGUF returns what the adapter is after it was written as GGUF and read back:
// its scales are llama.cpp's, and its values are rounded to the type.
func (a *Adapter) AsGGUF(base GGUFBase, modules []Module, dtype safetensors.DType) (*Adapter, error) {
	var b bytes.Buffer
	if err := a.WriteGGUF(&b, base, dtype); err != nil {
		return nil, err
	}
	return ReadGGUF(b.Bytes(), base, modules)
}

// CompareMerged compares the merged model in dst, tensor by tensor, with what
// MergeFolder would make of the base model in src. Nothing is written, and what
// is held in memory does not grow with the model.
func (a *Adapter) CompareMerged(ctx context.Context, src, dst string, o MergeOptions) ([]Difference, error) {
	config, err := checkpoint.ReadConfig(src)
	if err != nil {
		return nil, err
	}
	f, err := checkpoint.Open(src)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	m := &merger{a: a, f: f, o: o, into: "weights"}
	groups, err := m.groups(config)
	if err != nil {
		return nil, err
	}
	got, err := checkpoint.Open(dst)
	if err != nil {
		return nil, err
	}
	defer func() { _ = got.Close() }()
	return compareGroups(ctx, got, groups)
}

// MergedFolder is what there is in a folder of a merged model, beside its base
// model.
type MergedFolder struct {
	Tensors int
	Changed []string // tensors that are not those of the base model
	// Wrong are tensors that are missing, too many, of another shape, or not
	// finite.
	Wrong []Difference
	// Foreign are changed tensors of one dimension, which low rank cannot change.
	Foreign []string
}

// LookAtMerged compares the model in dst with its base model in src without
// knowing what was merged.
func LookAtMerged(ctx context.Context, src, dst string) (*MergedFolder, error) {
	base, err := checkpoint.Open(src)
	if err != nil {
		return nil, err
	}
	defer func() { _ = base.Close() }()
	got, err := checkpoint.Open(dst)
	if err != nil {
		return nil, err
	}
	defer func() { _ = got.Close() }()
	v := &MergedFolder{Tensors: len(got.Tensors())}
	for _, t := range base.Tensors() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		g, ok := got.Lookup(t.Name)
		switch {
		case !ok:
			v.Wrong = append(v.Wrong, Difference{t.Name, "is missing"})
			continue
		case !slices.Equal(g.Shape, t.Shape):
			v.Wrong = append(v.Wrong, Difference{t.Name, fmt.Sprintf("is %s, the base model's is %s", g, t)})
			continue
		}
		d, err := compareSources(dequantised(got, g, t), base, t)
		if err != nil {
			return nil, err
		}
		if d.broken != "" {
			v.Wrong = append(v.Wrong, Difference{t.Name, d.broken})
		}
		if d.changed {
			v.Changed = append(v.Changed, t.Name)
			if len(t.Shape) < 2 {
				v.Foreign = append(v.Foreign, t.Name)
			}
		}
	}
	for _, t := range got.Tensors() {
		if _, ok := base.Lookup(t.Name); ok {
			continue
		}
		if t.Name != "lm_head.weight" { // an output layer may become one of its own
			v.Wrong = append(v.Wrong, Difference{t.Name, "is not in the base model"})
			continue
		}
		d, err := compareSources(dequantised(got, t, t), got, t)
		if err != nil {
			return nil, err
		}
		if d.broken != "" {
			v.Wrong = append(v.Wrong, Difference{t.Name, d.broken})
		}
	}
	return v, nil
}

// dequantised is a group of one tensor as it is stored, or dequantised, to be
// compared with other. Two in four bits are compared as what they come to, which
// may be more than the type that they were made from can hold.
func dequantised(f *checkpoint.Folder, t, other checkpoint.Tensor) checkpoint.Group {
	if !t.NF4 {
		return f.Plain(t)
	}
	if other.NF4 {
		t.DType = safetensors.F32
	}
	return stream(t, func(w io.Writer) error {
		values, err := f.Values(t.Name)
		if err != nil {
			return err
		}
		left := t.Elements()
		buf := make([]float32, min(left, mergeBlock))
		for left > 0 {
			part := buf[:min(left, mergeBlock)]
			if err := values.Read(part); err != nil {
				return err
			}
			if _, err := w.Write(safetensors.AppendFloats(nil, part, t.DType)); err != nil {
				return err
			}
			left -= int64(len(part))
		}
		return nil
	})
}

// compared is how a tensor is beside another.
type compared struct {
	changed bool
	broken  string
}

// compareSources compares a tensor with that of a base model, whose values may be
// in four bits.
func compareSources(got checkpoint.Group, base *checkpoint.Folder, t checkpoint.Tensor) (compared, error) {
	sources, err := got.Prepare()
	if err != nil {
		return compared{}, err
	}
	s := sources[0]
	if !floats[s.DType] {
		var want, have bytes.Buffer
		if err := errors.Join(writeGroup(base.Plain(t), &want), s.Write(&have)); err != nil {
			return compared{}, err
		}
		return compared{changed: !bytes.Equal(want.Bytes(), have.Bytes())}, nil
	}
	values, err := base.Values(t.Name)
	if err != nil {
		return compared{}, err
	}
	c := newComparer(values, s.DType)
	if err := s.Write(c); err != nil {
		return compared{}, err
	}
	v := compared{changed: c.first >= 0}
	if c.strange >= 0 {
		v.broken = fmt.Sprintf("value %d is %v as %s, %v", c.strange, c.strangeValue, s.DType, ErrNotFinite)
	}
	return v, nil
}

// comparer is written a tensor's bytes, and compares them with values.
type comparer struct {
	values *checkpoint.Values
	dtype  safetensors.DType
	rest   []byte // the beginning of a value
	at     int
	// first is the index of the first value that differs, -1: none. written is
	// the one that was written, read the other.
	first         int
	written, read float32
	// strange is the index of the first written value that is not finite.
	strange      int
	strangeValue float32
}

func newComparer(v *checkpoint.Values, d safetensors.DType) *comparer {
	return &comparer{values: v, dtype: d, first: -1, strange: -1}
}

// Write implements io.Writer.
func (c *comparer) Write(p []byte) (int, error) {
	b := append(c.rest, p...)
	n := len(b) / int(c.dtype.Size())
	whole := n * int(c.dtype.Size())
	written, read := make([]float32, n), make([]float32, n)
	safetensors.DecodeFloats(written, b[:whole], c.dtype)
	if err := c.values.Read(read); err != nil {
		return 0, err
	}
	// The other may be of a wider type.
	safetensors.DecodeFloats(read, safetensors.AppendFloats(nil, read, c.dtype), c.dtype)
	if i := firstOther(written, read); i >= 0 && c.first < 0 {
		c.first, c.written, c.read = c.at+i, written[i], read[i]
	}
	for i, v := range written {
		if f := float64(v); c.strange < 0 && (math.IsNaN(f) || math.IsInf(f, 0)) {
			c.strange, c.strangeValue = c.at+i, v
		}
	}
	c.at += n
	c.rest = append(c.rest[:0], b[whole:]...)
	return len(p), nil
}

// floats are the types whose values can be read.
var floats = map[safetensors.DType]bool{safetensors.F32: true, safetensors.F16: true, safetensors.BF16: true}

func writeGroup(g checkpoint.Group, w io.Writer) error {
	sources, err := g.Prepare()
	for _, s := range sources {
		err = errors.Join(err, s.Write(w))
	}
	return err
}

// compareGroups compares the tensors of a folder with what would be written.
func compareGroups(ctx context.Context, got *checkpoint.Folder, groups []checkpoint.Group) ([]Difference, error) {
	var list []Difference
	seen := map[string]bool{}
	for _, g := range groups {
		sources, err := g.Prepare()
		if err != nil {
			return nil, err
		}
		for _, s := range sources {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			seen[s.Name] = true
			what, err := compareSource(got, s)
			if err != nil {
				return nil, err
			}
			if what != "" {
				list = append(list, Difference{s.Name, what})
			}
		}
	}
	for _, t := range got.Tensors() {
		if !seen[t.Name] {
			list = append(list, Difference{t.Name, "should not be there"})
		}
	}
	return list, nil
}

// compareSource says how a tensor of a folder is not what would be written.
func compareSource(got *checkpoint.Folder, s safetensors.Source) (string, error) {
	t, ok := got.Lookup(s.Name)
	switch {
	case !ok:
		return "is missing", nil
	case t.DType != s.DType || !slices.Equal(t.Shape, s.Shape):
		return fmt.Sprintf("is %s, must be %s of %v", t, s.DType, s.Shape), nil
	case !floats[s.DType]:
		var want, have bytes.Buffer
		if err := errors.Join(s.Write(&want), writeGroup(got.Plain(t), &have)); err != nil {
			return "", err
		}
		if !bytes.Equal(want.Bytes(), have.Bytes()) {
			return "has other bytes", nil
		}
		return "", nil
	}
	values, err := got.Values(s.Name)
	if err != nil {
		return "", err
	}
	c := newComparer(values, s.DType)
	if err := s.Write(c); err != nil {
		return "", err
	}
	if c.first >= 0 {
		return fmt.Sprintf("value %d is %v, must be %v", c.first, c.read, c.written), nil
	}
	return "", nil
}

// BaseOf returns what adapter_config.json calls the base model, or "".
func BaseOf(config []byte) string {
	var c struct {
		Base string `json:"base_model_name_or_path"`
	}
	if json.Unmarshal(config, &c) != nil {
		return ""
	}
	return c.Base
}

// Gaps lists layers that an adapter has in most blocks of a model and not in
// others between or beside them: they may have been lost.
func Gaps(a *Adapter) []string {
	blocks, kinds := map[string]bool{}, map[string]map[string]bool{}
	for _, p := range a.parts {
		block, kind, ok := splitBlock(p.Path)
		if !ok {
			continue
		}
		blocks[block] = true
		if kinds[kind] == nil {
			kinds[kind] = map[string]bool{}
		}
		kinds[kind][block] = true
	}
	var list []string
	for kind, in := range kinds {
		for block := range blocks {
			if !in[block] && 2*len(in) > len(blocks) {
				list = append(list, fmt.Sprintf("%s%s is adapted in other blocks and not in this one", block, kind))
			}
		}
	}
	slices.Sort(list)
	return list
}

// splitBlock splits the path of a layer behind the number of its block.
func splitBlock(path string) (block, kind string, ok bool) {
	at := 0
	for part := range strings.SplitSeq(path, ".") {
		at += len(part) + 1
		if _, err := strconv.Atoi(part); err == nil && at < len(path) {
			return path[:at], path[at:], true
		}
	}
	return "", "", false
}
