package model

import (
	"fmt"
	"slices"

	"github.com/moot-net/moot/node/internal/tensor"
)

// Replacement takes the place of a parameter: name, shape and values are those
// in the checkpoint. A model that ties its output layer to the embedding can
// be given an output layer of its own.
type Replacement struct {
	Name   string
	Shape  []int64
	Values []float32
}

// Replace computes with these instead of the parameters of the same names, and
// with all other parameters as they were loaded. Params and Flat keep those.
// Adapters stay, but not magnitudes, which are for the weights that they were
// attached to: attach after replacing.
func (m *Model) Replace(list []Replacement) error {
	if m.grads != nil {
		return fmt.Errorf("replace parameters: %w while all of them are trained", ErrUnsupported)
	}
	replaced := make(map[string]tensor.Mat, len(list))
	for _, r := range list {
		p, ok := m.replaceable(r.Name)
		switch {
		case !ok:
			return fmt.Errorf("replace %s: %w: the model has no such parameter", r.Name, ErrUnsupported)
		case !slices.Equal(r.Shape, p.shape()) || len(r.Values) != p.size():
			return fmt.Errorf("replace %s: shape is %v, want %v", r.Name, r.Shape, p.shape())
		}
		values := r.Values
		if p.transposed {
			values = transpose(values, p.cols, p.rows)
		}
		v := m.b.Alloc(p.size()).Mat(0, max(1, p.rows), p.cols)
		m.b.Upload(v, values)
		replaced[r.Name] = v
	}
	m.replaced = replaced
	m.bind()
	return nil
}

// replaceable looks up a parameter, or the output layer that a model with a
// tied one lacks.
func (m *Model) replaceable(name string) (paramSpec, bool) {
	c := m.cfg
	c.TiedHead = false
	for _, p := range c.params() {
		if p.name == name {
			return p, true
		}
	}
	return paramSpec{}, false
}
