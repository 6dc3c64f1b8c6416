package train

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/tensor"
)

// Optimizer is a kind of optimizer.
type Optimizer int

const (
	// AdamW keeps its moments in float32: 8 bytes for each trained value.
	AdamW Optimizer = iota
	// AdamW8bit keeps them in eight bits, as bitsandbytes does: a quarter of
	// the memory.
	AdamW8bit
	// SGD is gradient descent with Momentum, as in PyTorch: weight decay is
	// added to the gradient.
	SGD
)

var optimizerNames = [...]string{"adamw", "adamw-8bit", "sgd"}

func (o Optimizer) String() string {
	if o < 0 || int(o) >= len(optimizerNames) {
		return fmt.Sprintf("Optimizer(%d)", int(o))
	}
	return optimizerNames[o]
}

// ParseOptimizer returns the kind of that name.
func ParseOptimizer(name string) (Optimizer, error) {
	for o, n := range optimizerNames {
		if n == name {
			return Optimizer(o), nil
		}
	}
	return 0, fmt.Errorf("optimizer is %q, must be one of %q", name, optimizerNames)
}

// optimizer changes parameters by gradients, and remembers.
type optimizer interface {
	// step updates p by g, both (1,N), and leaves g as it is.
	step(p, g tensor.Mat, s update)
	reset()
	// bytes is how long the state is, which save appends and load takes.
	bytes() int
	save(state []byte) []byte
	load(state []byte)
	// vectors is how many moments returns and setMoments takes; see
	// Trainer.Moments.
	vectors() int
	moments() [][]float32
	setMoments(m [][]float32)
}

// update is what differs from step to step.
type update struct {
	rate      float64
	number    int     // of the step, from 1 on
	gradScale float64 // multiplies the gradient first
}

// group is a range of values and what the learning rate is multiplied with.
type group struct {
	from, to int
	factor   float64
}

func (g group) of(m tensor.Mat) tensor.Mat { return m.ColRange(g.from, g.to) }

// groupsOf returns a group for each tensor, with a ratio for those that isB.
func groupsOf(layout []lora.TensorInfo, ratio float64, isB func(i int) bool) []group {
	list, at := make([]group, 0, len(layout)), 0
	for i, info := range layout {
		g := group{at, at + info.Rows*info.Cols, 1}
		if isB(i) {
			g.factor = ratio
		}
		at = g.to
		list = append(list, g)
	}
	return list
}

// joined returns the same groups with neighbours of one factor joined.
func joined(groups []group) []group {
	var list []group
	for _, g := range groups {
		if n := len(list); n > 0 && list[n-1].factor == g.factor {
			list[n-1].to = g.to
		} else {
			list = append(list, g)
		}
	}
	return list
}

// optimizerOptions are what is common to the options of trainers.
type optimizerOptions struct {
	kind     Optimizer
	adam     Adam
	momentum float64
	ratio    float64 // LoRA+; 0 is 1
}

func (o optimizerOptions) check() error {
	switch {
	case o.kind < AdamW || o.kind > SGD:
		return fmt.Errorf("optimizer is %v, must be one of %q", o.kind, optimizerNames)
	case !(o.momentum >= 0 && o.momentum < 1):
		return fmt.Errorf("momentum is %v, must be at least 0 and below 1", o.momentum)
	case !(o.ratio >= 0) || math.IsInf(o.ratio, 0):
		return fmt.Errorf("ratio of the learning rates of B and A is %v, must be above 0", o.ratio)
	}
	return nil
}

func (o optimizerOptions) build(b tensor.Backend, layout []lora.TensorInfo, isB func(i int) bool) optimizer {
	if o.ratio == 0 {
		o.ratio = 1
	}
	groups := groupsOf(layout, o.ratio, isB)
	n := groups[len(groups)-1].to
	switch o.kind {
	case AdamW8bit:
		return newAdam8(b, o.adam, groups)
	case SGD:
		s := &sgd{b: b, decay: o.adam.WeightDecay, momentum: o.momentum, groups: joined(groups), scratch: b.Alloc(n).Vec()}
		if o.momentum != 0 {
			s.mean = b.Alloc(n).Vec()
		}
		if s.decay != 0 {
			s.decayed = b.Alloc(n).Vec()
		}
		return s
	}
	return &adamW{b: b, adam: o.adam, groups: joined(groups), m: b.Alloc(n).Vec(), v: b.Alloc(n).Vec()}
}

// trainingBytes is what an optimizer takes in memory.
func (o optimizerOptions) trainingBytes(layout []lora.TensorInfo) int64 {
	n := int64(lora.Params(layout))
	switch o.kind {
	case AdamW8bit:
		return adam8Bytes(layout)
	case SGD:
		vectors := int64(1)
		for _, on := range []bool{o.momentum != 0, o.adam.WeightDecay != 0} {
			if on {
				vectors++
			}
		}
		return 4 * n * vectors
	}
	return 8 * n
}

type adamW struct {
	b      tensor.Backend
	adam   Adam
	groups []group
	m, v   tensor.Mat
}

func (o *adamW) step(p, g tensor.Mat, s update) {
	for _, r := range o.groups {
		o.b.AdamW(r.of(p), r.of(g), r.of(o.m), r.of(o.v), tensor.AdamW{
			LearningRate: s.rate * r.factor, Beta1: o.adam.Beta1, Beta2: o.adam.Beta2,
			Epsilon: o.adam.Epsilon, WeightDecay: o.adam.WeightDecay,
			Step: s.number, GradScale: s.gradScale,
		})
	}
}

func (o *adamW) reset() { o.b.Zero(o.m); o.b.Zero(o.v) }

func (o *adamW) bytes() int { return 8 * o.m.Cols }

func (o *adamW) save(state []byte) []byte {
	return appendValues(o.b, appendValues(o.b, state, o.m), o.v)
}

func (o *adamW) load(state []byte) {
	loadValues(o.b, o.m, state[:4*o.m.Cols])
	loadValues(o.b, o.v, state[4*o.m.Cols:])
}

type sgd struct {
	b               tensor.Backend
	decay, momentum float64
	groups          []group
	mean            tensor.Mat // of gradients, none without momentum
	scratch         tensor.Mat
	decayed         tensor.Mat // none without weight decay
}

func (o *sgd) step(p, g tensor.Mat, s update) {
	b, d := o.b, o.scratch
	b.Copy(d, g)
	b.Scale(d, float32(s.gradScale))
	if o.decay != 0 {
		b.Copy(o.decayed, p)
		b.Scale(o.decayed, float32(o.decay))
		b.Add(d, o.decayed)
	}
	if !o.mean.None() {
		b.Scale(o.mean, float32(o.momentum))
		b.Add(o.mean, d)
		b.Copy(d, o.mean)
	}
	for _, r := range o.groups {
		b.Scale(r.of(d), float32(-s.rate*r.factor))
	}
	b.Add(p, d)
}

func (o *sgd) reset() {
	if !o.mean.None() {
		o.b.Zero(o.mean)
	}
}

func (o *sgd) bytes() int { return 4 * o.mean.Cols }

func (o *sgd) save(state []byte) []byte {
	if o.mean.None() {
		return state
	}
	return appendValues(o.b, state, o.mean)
}

func (o *sgd) load(state []byte) {
	if !o.mean.None() {
		loadValues(o.b, o.mean, state)
	}
}

// appendValues appends float32 values, little endian.
func appendValues(b tensor.Backend, to []byte, m tensor.Mat) []byte {
	values := make([]float32, m.Cols)
	b.Download(values, m)
	return appendFloats(to, values)
}

func appendFloats(to []byte, values []float32) []byte {
	for _, v := range values {
		to = binary.LittleEndian.AppendUint32(to, math.Float32bits(v))
	}
	return to
}

func loadValues(b tensor.Backend, m tensor.Mat, from []byte) {
	values := make([]float32, m.Cols)
	loadFloats(values, from)
	b.Upload(m, values)
}

func loadFloats(values []float32, from []byte) {
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(from[4*i:]))
	}
}
