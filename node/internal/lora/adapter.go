package lora

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/moot-net/moot/shard/safetensors"
)

// Adapter is an adapter for a model: a Spec applied to its layers, and values.
type Adapter struct {
	// constant after New
	spec   Spec
	layout []TensorInfo
	parts  []Part
	starts []int // of each tensor in values

	values     []float32
	magnitudes map[string][]float32 // of adapted layers, by path; with DoRA
	saved      []Saved
	whole      bool // saved is all of the base model
}

// Saved is a tensor of the base model that was trained as a whole: the adapter
// replaces it. Name and shape are those in the base model's checkpoint.
type Saved struct {
	Name   string
	Shape  []int64
	Values []float32
}

// New returns an adapter whose values are zero.
func New(s Spec, modules []Module) (*Adapter, error) {
	layout, parts, err := s.resolve(modules)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(parts, func(p Part) bool { return p.Transposed }) {
		s.FanInFanOut = true // PEFT corrects a configuration that says otherwise, too
	}
	a := &Adapter{spec: s, layout: layout, parts: parts}
	n := 0
	for _, t := range layout {
		a.starts = append(a.starts, n)
		n += t.Rows * t.Cols
	}
	a.values = make([]float32, n)
	if s.DoRA {
		a.magnitudes = make(map[string][]float32, len(parts))
		for _, p := range parts {
			a.magnitudes[p.Path] = make([]float32, p.Out)
		}
	}
	return a, nil
}

// NewWhole returns what replaces all parameters of a base model, as an adapter:
// it can be applied and merged.
func NewWhole(saved []Saved) *Adapter { return &Adapter{saved: saved, whole: true} }

// Whole reports whether it was made by NewWhole.
func (a *Adapter) Whole() bool { return a.whole }

// Spec returns what the adapter was made from.
func (a *Adapter) Spec() Spec { return a.spec }

// Layout lists the tensors, sorted bytewise by name. The caller must not
// change it.
func (a *Adapter) Layout() []TensorInfo { return a.layout }

// Parts lists the adapted layers. The caller must not change it.
func (a *Adapter) Parts() []Part { return a.parts }

// Values returns all values in the order of the layout: the adapter's own
// memory.
func (a *Adapter) Values() []float32 { return a.values }

// Start returns where tensor i of the layout begins in Values.
func (a *Adapter) Start(i int) int { return a.starts[i] }

// Tensor returns the values of tensor i of the layout.
func (a *Adapter) Tensor(i int) []float32 {
	t := a.layout[i]
	return a.values[a.starts[i] : a.starts[i]+t.Rows*t.Cols]
}

// Init sets the values with which training starts, as PEFT does: B zero, A
// uniform in ±1/sqrt(in). They depend on seed and the names of the tensors
// alone. (A run starts from its genesis state instead, which is made without
// floating-point numbers.)
func (a *Adapter) Init(seed uint64) {
	for _, p := range a.parts {
		clear(a.Tensor(p.B))
		h := fnv.New64a()
		h.Write([]byte(a.layout[p.A].Name))
		r := rand.New(rand.NewPCG(seed, h.Sum64()))
		bound := 1 / math.Sqrt(float64(p.In))
		for i := range a.Tensor(p.A) {
			a.Tensor(p.A)[i] = float32((2*r.Float64() - 1) * bound)
		}
	}
}

// Magnitude returns the magnitudes of a layer, one for each output, and nil
// without DoRA: the layer's output is m / |W + scale B A| times what it is with
// plain LoRA, where |.| is the length of each row, plus the bias.
func (a *Adapter) Magnitude(p Part) []float32 { return a.magnitudes[p.Path] }

// Saved lists the tensors that replace some of the base model, by name.
func (a *Adapter) Saved() []Saved { return a.saved }

// Plain returns nil for an adapter that only adds B A to layers, and else an
// error that wraps ErrUnsupported and says what more it does.
func (a *Adapter) Plain() error {
	switch {
	case a.whole:
		return fmt.Errorf("%w: all parameters of the model were trained, there is no adapter", ErrUnsupported)
	case a.spec.DoRA:
		return fmt.Errorf("%w: use_dora is true", ErrUnsupported)
	case len(a.saved) > 0:
		return fmt.Errorf("%w: it replaces %s of the base model (modules_to_save or bias)", ErrUnsupported, a.saved[0].Name)
	}
	return nil
}

// tensors returns the adapter for writing.
func (a *Adapter) tensors() []safetensors.Tensor {
	list := make([]safetensors.Tensor, len(a.layout))
	for i, t := range a.layout {
		list[i] = safetensors.Tensor{
			Name: t.Name, DType: safetensors.F32, Shape: []int64{int64(t.Rows), int64(t.Cols)}, Values: a.Tensor(i),
		}
	}
	adapted := map[string]bool{}
	for _, p := range a.parts {
		adapted[p.Path] = true
		if m := a.Magnitude(p); m != nil {
			list = append(list, safetensors.Tensor{
				Name: namePrefix + p.Path + suffixMagnitude, DType: safetensors.F32, Shape: []int64{int64(p.Out)}, Values: m,
			})
		}
	}
	for _, s := range a.saved {
		path, leaf := s.Name[:lastDot(s.Name)], s.Name[lastDot(s.Name):]
		if adapted[path] {
			path += infixBase
		}
		list = append(list, safetensors.Tensor{Name: namePrefix + path + leaf, DType: safetensors.F32, Shape: s.Shape, Values: s.Values})
	}
	return list
}
