package lora

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"

	"github.com/moot-net/moot/shard/safetensors"
)

// Adapter is an adapter for a model: a Spec applied to its layers, and values.
type Adapter struct {
	// constant after New
	spec   Spec
	layout []TensorInfo
	parts  []Part
	starts []int // of each tensor in values

	values []float32
}

// New returns an adapter whose values are zero.
func New(s Spec, modules []Module) (*Adapter, error) {
	layout, parts, err := s.resolve(modules)
	if err != nil {
		return nil, err
	}
	a := &Adapter{spec: s, layout: layout, parts: parts}
	n := 0
	for _, t := range layout {
		a.starts = append(a.starts, n)
		n += t.Rows * t.Cols
	}
	a.values = make([]float32, n)
	return a, nil
}

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

// MergeInto adds the adapter of p to the weight (out, in) of its layer.
func (a *Adapter) MergeInto(weight []float32, p Part) error {
	if len(weight) != p.In*p.Out {
		return fmt.Errorf("merge %s: %d weights, want (%d,%d)", p.Path, len(weight), p.Out, p.In)
	}
	ta, tb := a.Tensor(p.A), a.Tensor(p.B)
	row := make([]float64, p.In)
	for o := range p.Out {
		clear(row)
		for r, b := range tb[o*p.Rank : (o+1)*p.Rank] {
			for i, v := range ta[r*p.In : (r+1)*p.In] {
				row[i] += float64(b) * float64(v)
			}
		}
		for i, v := range row {
			w := &weight[o*p.In+i]
			*w = float32(float64(*w) + float64(p.Scale)*v)
		}
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
	return list
}
