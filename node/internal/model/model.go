package model

import (
	"fmt"
	"iter"
	"maps"

	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/tensor"
)

// Options say where a model computes.
type Options struct {
	// Threads is how many goroutines compute on the host's processor.
	// Default 1.
	Threads int
	// Precision is how the host's processor multiplies with weights that are
	// kept in 16 or 4 bits, in training; losses, logits and texts are always
	// computed in float32. Default float32.
	Precision cpu.Precision
	// Backend computes instead of the host's processor.
	Backend tensor.Backend
	// Recompute is how many layers, the lowest ones, do not keep their
	// activations for the backward pass, which computes them again: less
	// memory for more time, and the same results to the bit. Config.Plan
	// tells how many a memory needs. Default 0.
	Recompute int
}

func (o Options) backend() tensor.Backend {
	if o.Backend != nil {
		return o.Backend
	}
	return cpu.New(cpu.Options{Threads: o.Threads, Precision: o.Precision})
}

// Model is a model on a backend. Its methods are called from one goroutine at
// a time.
type Model struct {
	// constant after load
	cfg       Config
	family    *family
	b         tensor.Backend
	params    []Param
	flat      *tensor.Buffer // the values of all params
	embed     tensor.Mat     // (V,C)
	positions tensor.Mat     // (positions,C), or none
	norm      norm
	head      linear // (V,C); embed if tied
	layers    []layer
	slopes    []float32 // of ALiBi

	// the derivatives, none unless all parameters are trained
	grads              *tensor.Buffer
	dEmbed, dPositions tensor.Mat
	again              int // layers that do not keep their activations
	offload            bool

	replaced map[string]tensor.Mat // parameters that others take the place of
	fixed    string                // path of an adapter that cannot be trained
	doraOut  tensor.Mat            // memory for all layers with magnitudes

	ropes ropeTables
	turns []int32 // rows of the tables for the tokens of a batch
	// longTurns is memory for turns.
	longTurns []int32
	ws        workspace
	trace     func(i int, x tensor.Mat)
}

// Param is a parameter tensor: its name and shape in a checkpoint, and its
// values and derivatives. A vector has Rows 1 and a Shape of one number. The
// weight of a linear layer is (out,in), also where the checkpoint has it
// transposed.
type Param struct {
	Name  string
	Shape []int64
	Value tensor.Mat // may be packed
	Grad  tensor.Mat // none unless EnableFullGradients

	transposed bool // in the checkpoint
}

// layer is one transformer block. What its architecture lacks is zero.
type layer struct {
	norm1, norm2 norm // before attention and MLP
	post1, post2 norm // behind them
	qNorm, kNorm norm
	linears      [slots]linear
	window       int
}

// norm holds the parameters of a norm.
type norm struct {
	w, bias   tensor.Mat // (1,C)
	dw, dBias tensor.Mat
}

// SetRecompute changes Options.Recompute.
func (m *Model) SetRecompute(layers int) {
	m.again = max(0, min(layers, len(m.layers)))
	m.dropWorkspace()
}

// SetOffload leaves the inputs of layers that compute their activations again
// in the host's memory until the backward pass, where the backend can: the same
// results, a little slower, in less memory of the device.
func (m *Model) SetOffload(on bool) {
	_, can := m.b.(tensor.Offloader)
	m.offload = on && can
	m.dropWorkspace()
}

// Recompute returns how many layers compute their activations again.
func (m *Model) Recompute() int { return m.again }

// newModel allocates a model whose parameters are zero.
func newModel(c Config, b tensor.Backend) *Model {
	m := newPacked(c, b, nil)
	m.bind()
	return m
}

// newPacked is newModel without the values of those parameters that packed
// names, which are set afterwards with setPacked; then bind is to be called.
func newPacked(c Config, b tensor.Backend, packed map[string]bool) *Model {
	plain := 0
	for _, p := range c.params() {
		if !packed[p.name] {
			plain += p.size()
		}
	}
	m := &Model{cfg: c, family: c.family(), b: b, flat: b.Alloc(plain), layers: make([]layer, c.Layers), slopes: c.slopes()}
	at := 0
	for _, p := range c.params() {
		param := Param{Name: p.name, Shape: p.shape(), transposed: p.transposed}
		if !packed[p.name] {
			param.Value = m.flat.Mat(at, max(1, p.rows), p.cols)
			at += p.size()
		}
		m.params = append(m.params, param)
	}
	return m
}

// setPacked sets parameter i, a matrix.
func (m *Model) setPacked(i int, spec paramSpec, v tensor.Packed) {
	p, pack := &m.params[i], m.b.Pack
	if m.cfg.onlyGathered(p.Name) {
		pack = m.b.PackHost
	}
	p.Value = pack(v).Mat(0, spec.rows, spec.cols)
}

// expand makes all parameters float32, one after the other in m.flat.
func (m *Model) expand() {
	n := m.cfg.Params()
	if m.flat.Len == n {
		return
	}
	flat, at := m.b.Alloc(n), 0
	for i := range m.params {
		p := &m.params[i]
		v := flat.Mat(at, p.Value.Rows, p.Value.Cols)
		values := make([]float32, v.Rows*v.Cols)
		m.b.Download(values, p.Value)
		m.b.Upload(v, values)
		if p.Value.Buf != m.flat {
			m.b.Free(p.Value.Buf)
		}
		p.Value = v
		at += len(values)
	}
	m.b.Free(m.flat)
	m.flat = flat
}

// bind points the parts of the model at its parameters.
func (m *Model) bind() {
	values, grads := map[string]tensor.Mat{}, map[string]tensor.Mat{}
	for _, p := range m.params {
		values[p.Name], grads[p.Name] = p.Value, p.Grad
	}
	f := m.family
	embed, positions, head := f.base+f.embed+".weight", f.base+f.positions+".weight", f.head+".weight"
	if m.cfg.TiedHead { // stays when the embedding is replaced
		values[head], grads[head] = values[embed], grads[embed]
	}
	maps.Copy(values, m.replaced)
	norms := func(path, name string) norm {
		if name == "" {
			return norm{}
		}
		w, b := path+name+".weight", path+name+".bias"
		return norm{w: values[w], bias: values[b], dw: grads[w], dBias: grads[b]}
	}
	m.embed, m.dEmbed = values[embed], grads[embed]
	m.positions, m.dPositions = values[positions], grads[positions]
	m.norm = norms(f.base, f.norm)
	m.head.Module = m.cfg.Head()
	m.head.w, m.head.dw = values[head], grads[head]
	m.head.bias, m.head.dBias = values[f.head+".bias"], grads[f.head+".bias"]
	before, behind, qk := m.cfg.normNames()
	for i := range m.layers {
		l, p := &m.layers[i], m.cfg.layerPath(i)
		l.norm1, l.norm2 = norms(p, before[0]), norms(p, before[1])
		l.post1, l.post2 = norms(p, behind[0]), norms(p, behind[1])
		l.qNorm, l.kNorm = norms(p, qk[0]), norms(p, qk[1])
		l.window = m.cfg.window(i)
		for j, spec := range m.cfg.modules(i) {
			lin := &l.linears[j]
			lin.Module = spec.Module
			lin.w, lin.dw = values[lin.Path+".weight"], grads[lin.Path+".weight"]
			lin.bias, lin.dBias = values[lin.Path+".bias"], grads[lin.Path+".bias"]
		}
	}
}

// Config returns the model's configuration.
func (m *Model) Config() Config { return m.cfg }

// Backend returns where the model computes.
func (m *Model) Backend() tensor.Backend { return m.b }

// Params lists the parameters, sorted bytewise by name. Those that are not
// packed lie one after the other in the buffers that Flat returns.
func (m *Model) Params() []Param { return m.params }

// Flat returns the values of all parameters but packed ones (see Load), and the
// derivatives if EnableFullGradients was called, after which none are packed.
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
	m.expand()
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
	// Magnitude, if not nil, has a number for each output (DoRA): the output
	// is scaled by it and divided by the length of its row of W + Scale * B A,
	// before the bias. The length is that at the time of Attach.
	Magnitude []float32
}

// Attach puts adapters on the linear layers with the given paths, and takes
// them off all others. The output layer can have one too, of which only the
// forward pass is known, as of one with magnitudes: Accumulate is an error
// while one is attached.
func (m *Model) Attach(adapters map[string]LowRank) error {
	loras, doras := make(map[string]*LowRank, len(adapters)), map[string]*dora{}
	fixed := ""
	for lin := range m.linears() {
		a, ok := adapters[lin.Path]
		if !ok {
			continue
		}
		if a.A.Cols != lin.In || a.B.Rows != lin.Out || a.A.Rows != a.B.Cols {
			return fmt.Errorf("adapter of %s is (%d,%d) and (%d,%d), the layer is (%d,%d)",
				lin.Path, a.A.Rows, a.A.Cols, a.B.Rows, a.B.Cols, lin.Out, lin.In)
		}
		loras[lin.Path] = &a
		if lin == &m.head || a.Magnitude != nil {
			fixed = lin.Path
		}
		if a.Magnitude != nil {
			d, err := m.newDora(lin, &a)
			if err != nil {
				return err
			}
			doras[lin.Path] = d
		}
	}
	for path := range adapters {
		if loras[path] == nil {
			return fmt.Errorf("adapter of %s: the model has no such layer", path)
		}
	}
	for lin := range m.linears() {
		lin.lora, lin.dora = loras[lin.Path], doras[lin.Path]
	}
	m.b.Free(m.doraOut.Buf)
	m.fixed, m.doraOut = fixed, tensor.Mat{}
	m.dropWorkspace() // its size depends on the adapters
	return m.b.Err()
}

// linears yields the linear layers that can carry an adapter.
func (m *Model) linears() iter.Seq[*linear] {
	return func(yield func(*linear) bool) {
		for i := range m.layers {
			for j := range m.layers[i].linears {
				if lin := &m.layers[i].linears[j]; lin.Path != "" && !yield(lin) {
					return
				}
			}
		}
		yield(&m.head)
	}
}

// lowestTrained returns the first layer with something to train, and Layers if
// there is none; -1 when the embedding is trained too.
func (m *Model) lowestTrained() int {
	if m.grads != nil {
		return -1
	}
	for i := range m.layers {
		for _, lin := range m.layers[i].linears {
			if lin.lora != nil && !lin.lora.DA.None() {
				return i
			}
		}
	}
	return len(m.layers)
}
