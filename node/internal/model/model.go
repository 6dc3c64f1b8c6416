package model

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/tensor"
)

// Options say where a model computes.
type Options struct {
	// Threads is how many goroutines compute on the host's processor.
	// Default 1.
	Threads int
	// Backend computes instead of the host's processor.
	Backend tensor.Backend
}

func (o Options) backend() tensor.Backend {
	if o.Backend != nil {
		return o.Backend
	}
	return cpu.New(cpu.Options{Threads: o.Threads})
}

// Model is a model on a backend. Its methods are called from one goroutine at
// a time.
type Model struct {
	// constant after load
	cfg    Config
	b      tensor.Backend
	params []Param
	flat   *tensor.Buffer // the values of all params
	embed  tensor.Mat     // (V,C)
	norm   tensor.Mat     // (1,C)
	head   tensor.Mat     // (V,C); embed if tied
	layers []layer

	// the derivatives, none unless all parameters are trained
	grads                *tensor.Buffer
	dEmbed, dNorm, dHead tensor.Mat

	ropes ropeTables
	ws    workspace
	trace func(i int, x tensor.Mat)
}

// Param is a parameter tensor: its name in a checkpoint, and its values and
// derivatives. A vector has Rows 1 and a Shape of one number.
type Param struct {
	Name  string
	Shape []int64
	Value tensor.Mat
	Grad  tensor.Mat // none unless EnableFullGradients
}

// layer is one transformer block.
type layer struct {
	norm1, norm2   tensor.Mat // (1,C)
	dNorm1, dNorm2 tensor.Mat
	q, k, v, o     linear
	gate, up, down linear
	window         int
}

// linears lists a layer's linear layers.
func (l *layer) linears() []*linear {
	return []*linear{&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}
}

// paramSpec is a parameter that a configuration asks for.
type paramSpec struct {
	name       string
	rows, cols int  // rows 0: a vector
	residual   bool // its layer writes to the residual stream
}

func (p paramSpec) size() int { return max(1, p.rows) * p.cols }

func (p paramSpec) shape() []int64 {
	if p.rows == 0 {
		return []int64{int64(p.cols)}
	}
	return []int64{int64(p.rows), int64(p.cols)}
}

func layerPath(i int) string { return fmt.Sprintf("model.layers.%d.", i) }

// modules lists the linear layers of layer i: path, in, out, bias.
func (c Config) modules(i int) []moduleSpec {
	p, q, kv := layerPath(i), c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	return []moduleSpec{
		{Module{p + "self_attn.q_proj", c.Hidden, q}, c.QKVBias, false},
		{Module{p + "self_attn.k_proj", c.Hidden, kv}, c.QKVBias, false},
		{Module{p + "self_attn.v_proj", c.Hidden, kv}, c.QKVBias, false},
		{Module{p + "self_attn.o_proj", q, c.Hidden}, c.OBias, true},
		{Module{p + "mlp.gate_proj", c.Hidden, c.Intermediate}, c.MLPBias, false},
		{Module{p + "mlp.up_proj", c.Hidden, c.Intermediate}, c.MLPBias, false},
		{Module{p + "mlp.down_proj", c.Intermediate, c.Hidden}, c.MLPBias, true},
	}
}

// Module is a linear layer that can carry an adapter: its path in the
// checkpoint, without ".weight", and its width.
type Module struct {
	Path    string
	In, Out int
}

type moduleSpec struct {
	Module
	bias, residual bool
}

// Modules lists the linear layers of all blocks.
func (c Config) Modules() []Module {
	var list []Module
	for i := range c.Layers {
		for _, m := range c.modules(i) {
			list = append(list, m.Module)
		}
	}
	return list
}

// Params returns the number of parameters.
func (c Config) Params() int {
	n := 0
	for _, p := range c.params() {
		n += p.size()
	}
	return n
}

// params lists all parameters, sorted bytewise by name.
func (c Config) params() []paramSpec {
	list := []paramSpec{
		{"model.embed_tokens.weight", c.Vocab, c.Hidden, false},
		{"model.norm.weight", 0, c.Hidden, false},
	}
	if !c.TiedHead {
		list = append(list, paramSpec{"lm_head.weight", c.Vocab, c.Hidden, false})
	}
	for i := range c.Layers {
		list = append(list,
			paramSpec{layerPath(i) + "input_layernorm.weight", 0, c.Hidden, false},
			paramSpec{layerPath(i) + "post_attention_layernorm.weight", 0, c.Hidden, false})
		for _, m := range c.modules(i) {
			list = append(list, paramSpec{m.Path + ".weight", m.Out, m.In, m.residual})
			if m.bias {
				list = append(list, paramSpec{m.Path + ".bias", 0, m.Out, false})
			}
		}
	}
	slices.SortFunc(list, func(a, b paramSpec) int { return strings.Compare(a.name, b.name) })
	return list
}

// newModel allocates a model whose parameters are zero.
func newModel(c Config, b tensor.Backend) *Model {
	m := &Model{cfg: c, b: b, flat: b.Alloc(c.Params()), layers: make([]layer, c.Layers)}
	at := 0
	for _, p := range c.params() {
		m.params = append(m.params, Param{Name: p.name, Shape: p.shape(), Value: m.flat.Mat(at, max(1, p.rows), p.cols)})
		at += p.size()
	}
	m.bind()
	return m
}

// bind points the parts of the model at its parameters.
func (m *Model) bind() {
	values, grads := map[string]tensor.Mat{}, map[string]tensor.Mat{}
	for _, p := range m.params {
		values[p.Name], grads[p.Name] = p.Value, p.Grad
	}
	m.embed, m.dEmbed = values["model.embed_tokens.weight"], grads["model.embed_tokens.weight"]
	m.norm, m.dNorm = values["model.norm.weight"], grads["model.norm.weight"]
	m.head, m.dHead = values["lm_head.weight"], grads["lm_head.weight"]
	if m.cfg.TiedHead {
		m.head, m.dHead = m.embed, m.dEmbed
	}
	for i := range m.layers {
		l, p := &m.layers[i], layerPath(i)
		l.norm1, l.dNorm1 = values[p+"input_layernorm.weight"], grads[p+"input_layernorm.weight"]
		l.norm2, l.dNorm2 = values[p+"post_attention_layernorm.weight"], grads[p+"post_attention_layernorm.weight"]
		l.window = m.cfg.window(i)
		specs := m.cfg.modules(i)
		for j, lin := range l.linears() {
			lin.Module = specs[j].Module
			lin.w, lin.dw = values[lin.Path+".weight"], grads[lin.Path+".weight"]
			lin.bias, lin.dBias = values[lin.Path+".bias"], grads[lin.Path+".bias"]
		}
	}
}

// Config returns the model's configuration.
func (m *Model) Config() Config { return m.cfg }

// Backend returns where the model computes.
func (m *Model) Backend() tensor.Backend { return m.b }

// Params lists the parameters, sorted bytewise by name. They lie one after the
// other in the buffers that Flat returns.
func (m *Model) Params() []Param { return m.params }

// Flat returns the values of all parameters, and their derivatives if
// EnableFullGradients was called.
func (m *Model) Flat() (values, grads *tensor.Buffer) { return m.flat, m.grads }

// Trace makes fn see the residual stream (T,C) of each later forward pass,
// after the embedding (i is 0) and after each layer.
func (m *Model) Trace(fn func(i int, x tensor.Mat)) { m.trace = fn }

// EnableFullGradients makes Accumulate add the derivatives by all parameters
// to the buffer that Flat returns.
func (m *Model) EnableFullGradients() {
	if m.grads != nil {
		return
	}
	m.grads = m.b.Alloc(m.flat.Len)
	for i := range m.params {
		v := m.params[i].Value
		m.params[i].Grad = m.grads.Mat(v.Off, v.Rows, v.Cols)
	}
	m.bind()
}

// LowRank is an adapter on one linear layer: it adds Scale * B A x to its
// output. Accumulate adds the derivatives to DA and DB, unless they are none.
type LowRank struct {
	A, B   tensor.Mat // (R,in), (out,R)
	DA, DB tensor.Mat
	Scale  float32
}

// Attach puts adapters on the linear layers with the given paths, and takes
// them off all others.
func (m *Model) Attach(adapters map[string]LowRank) error {
	found := 0
	for i := range m.layers {
		for _, lin := range m.layers[i].linears() {
			a, ok := adapters[lin.Path]
			if !ok {
				continue
			}
			found++
			if a.A.Cols != lin.In || a.B.Rows != lin.Out || a.A.Rows != a.B.Cols {
				return fmt.Errorf("adapter of %s is (%d,%d) and (%d,%d), the layer is (%d,%d)",
					lin.Path, a.A.Rows, a.A.Cols, a.B.Rows, a.B.Cols, lin.Out, lin.In)
			}
		}
	}
	if found != len(adapters) {
		for path := range adapters {
			if !slices.ContainsFunc(m.cfg.Modules(), func(mod Module) bool { return mod.Path == path }) {
				return fmt.Errorf("adapter of %s: the model has no such layer", path)
			}
		}
	}
	for i := range m.layers {
		for _, lin := range m.layers[i].linears() {
			lin.lora = nil
			if a, ok := adapters[lin.Path]; ok {
				lin.lora = &a
			}
		}
	}
	m.ws = workspace{} // its size depends on the adapters
	return nil
}

// lowestTrained returns the first layer with something to train, and Layers if
// there is none; -1 when the embedding is trained too.
func (m *Model) lowestTrained() int {
	if m.grads != nil {
		return -1
	}
	for i := range m.layers {
		for _, lin := range m.layers[i].linears() {
			if lin.lora != nil && !lin.lora.DA.None() {
				return i
			}
		}
	}
	return len(m.layers)
}
