package train

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/tensor"
)

// ErrNotFinite is returned when a loss or gradient is not a finite number. The
// step that found it has changed nothing.
var ErrNotFinite = errors.New("not finite")

// Adam holds the settings of AdamW; the zero value of a field means its
// default, so that weight decay and clipping are off by default.
type Adam struct {
	Beta1       float64 // default 0.9
	Beta2       float64 // default 0.999
	Epsilon     float64 // default 1e-8
	WeightDecay float64 // decoupled; default 0
	ClipNorm    float64 // greatest L2 norm of the gradient; default 0, no clipping
}

func (a Adam) withDefaults() Adam {
	for _, f := range []struct {
		v         *float64
		otherwise float64
	}{{&a.Beta1, 0.9}, {&a.Beta2, 0.999}, {&a.Epsilon, 1e-8}} {
		if *f.v == 0 {
			*f.v = f.otherwise
		}
	}
	return a
}

// Options configure a Trainer of an adapter.
type Options struct {
	ModelDir string    // Hugging Face folder of the base model
	Spec     lora.Spec // adapter to train
	// Full trains all parameters instead of an adapter; Spec, Seed and
	// LoRAPlusRatio are not used. What Adapter and SetAdapter give and take is
	// then the difference to the base model.
	Full bool
	Seed uint64 // of the values it starts with; see lora.Adapter.Init
	Adam Adam
	// Optimizer is the kind. All take WeightDecay and ClipNorm of Adam.
	// Default AdamW.
	Optimizer Optimizer
	// Momentum is that of SGD. Default 0.
	Momentum float64
	// LoRAPlusRatio multiplies the learning rate of B (LoRA+; its paper takes
	// 16). Default 1.
	LoRAPlusRatio float64
	// Threads is how many goroutines compute. Default 1.
	Threads int
	// Precision is that of model.Options. Default float32.
	Precision cpu.Precision
	// Backend computes instead of the host's processor, and Threads and
	// Precision are not used. It belongs to the Trainer, also to one that could
	// not be opened, which closes it.
	Backend tensor.Backend
	// Sizes are those of the Backend, for EstimateMemory, which needs none.
	Sizes tensor.Sizes
	// MaxTokens is the length of the longest sample. Default: the model's
	// context.
	MaxTokens int
	// MicroBatchTokens bounds the tokens whose activations are held at once;
	// a step accumulates gradients over as many micro-batches as it needs.
	// Default 2048.
	MicroBatchTokens int
	// Unpacked makes each sample a micro-batch of its own. Samples that are
	// computed together never see each other, so that this changes how long a
	// step takes, and its result only by rounding. Default: packed.
	Unpacked bool
	// ActivationBytes bounds Memory.Activations: as many layers as it takes
	// compute their activations again in the backward pass, instead of keeping
	// them. Results are the same to the bit; with all layers a step takes about
	// a third longer. Default 0, no bound.
	ActivationBytes int64
	// CheckpointDir is where Save writes. Empty: Save and Load are errors.
	CheckpointDir string
	// BaseName is written to adapter_config.json as the base model's name.
	BaseName string
}

// FullOptions configure a Trainer of all parameters.
type FullOptions struct {
	Model            *model.Model // from model.New or model.Load
	Adam             Adam
	Optimizer        Optimizer // as in Options
	Momentum         float64
	MaxTokens        int
	MicroBatchTokens int
	CheckpointDir    string
}

// DefaultMicroBatchTokens is used where MicroBatchTokens is 0.
const DefaultMicroBatchTokens = 2048

// Trainer trains. Its methods are called from one goroutine at a time.
type Trainer struct {
	// constant after Open
	model     *model.Model
	b         tensor.Backend
	clipNorm  float64
	optimizer optimizer
	kind      Optimizer
	adapter   *lora.Adapter // nil in full mode
	layout    []lora.TensorInfo
	maxTokens int
	micro     int
	unpacked  bool
	dir       string // of checkpoints
	base      string

	values tensor.Mat // what is trained, (1,N)
	grads  tensor.Mat
	origin []float32 // the base model's, of what Adapter and SetAdapter are the difference; nil: 0

	steps    int // of the optimizer since its state was zero
	gradNorm float64
	saves    uint64 // sequence number of the newest checkpoint
	batch    model.Batch
}

// Open loads the base model and puts a new adapter on it, which changes nothing
// yet.
func Open(o Options) (*Trainer, error) {
	m, err := model.Load(o.ModelDir, model.Options{Threads: o.Threads, Precision: o.Precision, Backend: o.Backend})
	if err != nil {
		return nil, errors.Join(err, closeBackend(o.Backend))
	}
	t, err := New(m, o)
	if err != nil {
		return nil, errors.Join(err, closeBackend(o.Backend))
	}
	return t, nil
}

// closeBackend gives a device back, if b is one.
func closeBackend(b tensor.Backend) error {
	if c, ok := b.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// newDifference returns a Trainer of how far all parameters are from those of
// the base model.
func newDifference(m *model.Model, o Options) (*Trainer, error) {
	t, err := NewFull(FullOptions{
		Model: m, Adam: o.Adam, Optimizer: o.Optimizer, Momentum: o.Momentum,
		MaxTokens: o.MaxTokens, MicroBatchTokens: o.MicroBatchTokens, CheckpointDir: o.CheckpointDir,
	})
	if err != nil {
		return nil, err
	}
	load, err := t.workload(m.Config(), nil, o.ActivationBytes, t.b.Sizes())
	if err != nil {
		return nil, err
	}
	m.SetRecompute(load.Recompute)
	m.SetOffload(load.Offload)
	t.unpacked = o.Unpacked
	t.origin = make([]float32, t.values.Cols)
	t.b.Download(t.origin, t.values)
	return t, nil
}

// New puts a new adapter on a model that is loaded already; ModelDir and
// Threads of o are not used. The model belongs to the Trainer from then on.
func New(m *model.Model, o Options) (*Trainer, error) {
	if o.Full {
		return newDifference(m, o)
	}
	if err := trainable(o.Spec); err != nil {
		return nil, err
	}
	a, err := lora.New(o.Spec, modules(m.Config()))
	if err != nil {
		return nil, err
	}
	settings := o.optimizer()
	if err := settings.check(); err != nil {
		return nil, err
	}
	b := m.Backend()
	t := &Trainer{
		model: m, b: b, clipNorm: o.Adam.ClipNorm, kind: o.Optimizer, adapter: a, layout: a.Layout(),
		dir: o.CheckpointDir, base: o.BaseName, unpacked: o.Unpacked,
		values: b.Alloc(len(a.Values())).Vec(), grads: b.Alloc(len(a.Values())).Vec(),
	}
	t.limits(t.model.Config(), o.MaxTokens, o.MicroBatchTokens)
	load, err := t.workload(m.Config(), a.Parts(), o.ActivationBytes, b.Sizes())
	if err != nil {
		return nil, err
	}
	m.SetRecompute(load.Recompute)
	m.SetOffload(load.Offload)
	second := map[int]bool{}
	for _, p := range a.Parts() {
		second[p.B] = true
	}
	t.optimizer = settings.build(b, t.layout, func(i int) bool { return second[i] })
	at := func(v tensor.Mat, i int) tensor.Mat {
		return v.Buf.Mat(a.Start(i), t.layout[i].Rows, t.layout[i].Cols)
	}
	adapters := map[string]model.LowRank{}
	for _, p := range a.Parts() {
		adapters[p.Path] = model.LowRank{
			A: at(t.values, p.A), B: at(t.values, p.B), DA: at(t.grads, p.A), DB: at(t.grads, p.B), Scale: p.Scale,
		}
	}
	if err := m.Attach(adapters); err != nil {
		return nil, err
	}
	a.Init(o.Seed)
	b.Upload(t.values, a.Values())
	if b.Sizes().Scratch != nil { // nothing is to be allocated while training
		return t, m.Reserve(load)
	}
	return t, b.Err()
}

// NewFull returns a Trainer of all parameters of a model, which belongs to the
// Trainer from then on.
func NewFull(o FullOptions) (*Trainer, error) {
	if o.Model == nil {
		return nil, errors.New("no model to train")
	}
	settings := optimizerOptions{kind: o.Optimizer, adam: o.Adam.withDefaults(), momentum: o.Momentum}
	if err := settings.check(); err != nil {
		return nil, err
	}
	o.Model.EnableFullGradients()
	values, grads := o.Model.Flat()
	t := &Trainer{
		model: o.Model, b: o.Model.Backend(), clipNorm: o.Adam.ClipNorm, kind: o.Optimizer, dir: o.CheckpointDir,
		values: values.Vec(), grads: grads.Vec(),
	}
	t.layout = FullLayout(o.Model.Config())
	t.limits(t.model.Config(), o.MaxTokens, o.MicroBatchTokens)
	t.optimizer = settings.build(t.b, t.layout, func(int) bool { return false })
	return t, nil
}

func (o Options) optimizer() optimizerOptions {
	return optimizerOptions{kind: o.Optimizer, adam: o.Adam.withDefaults(), momentum: o.Momentum, ratio: o.LoRAPlusRatio}
}

func (t *Trainer) limits(c model.Config, maxTokens, micro int) {
	t.maxTokens, t.micro = maxTokens, micro
	if maxTokens <= 0 {
		t.maxTokens = c.Context
	}
	if micro <= 0 {
		t.micro = DefaultMicroBatchTokens
	}
}

func modules(c model.Config) []lora.Module {
	var list []lora.Module
	for _, m := range c.Modules() {
		list = append(list, lora.Module(m))
	}
	return list
}

// Layout lists the tensors of the adapter that spec makes on the model in dir,
// reading only its configuration.
func Layout(dir string, spec lora.Spec) ([]lora.TensorInfo, error) {
	if err := trainable(spec); err != nil {
		return nil, err
	}
	c, err := model.ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	return spec.Layout(modules(c))
}

// FullLayout lists the parameters of a model, as tensors of one that is trained
// in full.
func FullLayout(c model.Config) []lora.TensorInfo {
	var list []lora.TensorInfo
	for _, p := range c.Parameters() {
		list = append(list, lora.TensorInfo(p))
	}
	return list
}

// Layout lists the tensors being trained, in the order of Adapter and
// SetAdapter. A vector has one row. The caller must not change it.
func (t *Trainer) Layout() []lora.TensorInfo { return t.layout }

// Params returns the number of values being trained.
func (t *Trainer) Params() int { return t.values.Cols }

// SetAdapter replaces what is trained: the adapter, with Options.Full the
// difference of all parameters to the base model, of a Trainer by NewFull all
// parameters. The optimizer's moments stay.
func (t *Trainer) SetAdapter(values []float32) error {
	if len(values) != t.values.Cols {
		return fmt.Errorf("set adapter: %d values, want %d", len(values), t.values.Cols)
	}
	for i, v := range values {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return fmt.Errorf("set adapter: value %d is %v: %w", i, v, ErrNotFinite)
		}
	}
	if t.origin != nil {
		sum := make([]float32, len(values))
		for i, v := range values {
			sum[i] = t.origin[i] + v
		}
		values = sum
	}
	t.b.Upload(t.values, values)
	return nil
}

// LoadAdapter is SetAdapter with the values of a PEFT folder made with the
// same Spec.
func (t *Trainer) LoadAdapter(dir string) error {
	if t.adapter == nil {
		return errors.New("load adapter: all parameters are trained")
	}
	a, err := lora.Read(dir, modules(t.model.Config()))
	if err != nil {
		return err
	}
	if len(a.Layout()) != len(t.layout) {
		return fmt.Errorf("load adapter %s: %d tensors, want %d", dir, len(a.Layout()), len(t.layout))
	}
	for i, info := range a.Layout() {
		if info != t.layout[i] {
			return fmt.Errorf("load adapter %s: tensor %v, want %v", dir, info, t.layout[i])
		}
	}
	for i, p := range a.Parts() {
		if p.Scale != t.adapter.Parts()[i].Scale {
			return fmt.Errorf("load adapter %s: scaling of %s is %v, want %v", dir, p.Path, p.Scale, t.adapter.Parts()[i].Scale)
		}
	}
	return t.SetAdapter(a.Values())
}

// Adapter copies what is trained to dst, which must have its length.
func (t *Trainer) Adapter(dst []float32) {
	t.b.Download(dst, t.values)
	for i, v := range t.origin {
		dst[i] -= v
	}
}

// Gradient copies the last step's gradient, before clipping, to dst.
func (t *Trainer) Gradient(dst []float32) { t.b.Download(dst, t.grads) }

// ResetOptimizer forgets the moments and the step counter of the optimizer.
func (t *Trainer) ResetOptimizer() {
	t.optimizer.reset()
	t.steps = 0
}

// GradNorm returns the L2 norm of the last step's gradient before clipping.
func (t *Trainer) GradNorm() float64 { return t.gradNorm }

// Steps returns how many steps the optimizer has taken since its moments were
// zero.
func (t *Trainer) Steps() int { return t.steps }

// Model returns the model being trained. In full mode Model().Save writes it
// as a Hugging Face folder.
func (t *Trainer) Model() *model.Model { return t.model }

// ExportAdapter writes the adapter as a PEFT folder.
func (t *Trainer) ExportAdapter(dir string) error {
	if t.adapter == nil {
		return errors.New("export adapter: all parameters are trained")
	}
	t.Adapter(t.adapter.Values())
	return t.adapter.Write(dir, t.base)
}

// DeviceErr returns what the device failed with, after which nothing works on
// it; nil while it works.
func (t *Trainer) DeviceErr() error { return t.b.Err() }

// Close frees what the Trainer holds.
func (t *Trainer) Close() error {
	err := closeBackend(t.b)
	*t = Trainer{}
	return err
}

// GenerateOptions configure Generate.
type GenerateOptions = model.GenerateOptions

// Generate continues ids and returns the new tokens only, without the one that
// stopped it. With ctx done it returns what it has and ctx's error.
func (t *Trainer) Generate(ctx context.Context, ids []int32, o GenerateOptions) ([]int32, error) {
	return t.model.Generate(ctx, ids, o)
}
