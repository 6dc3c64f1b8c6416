package model

import (
	"errors"
	"fmt"
	"math"

	"github.com/moot-net/moot/node/internal/tensor"
)

// ErrUnsupported is wrapped by the error for an architecture or a setting that
// this package cannot compute. The message names it.
var ErrUnsupported = errors.New("unsupported")

// Config describes a model: what of config.json decides its arithmetic. What
// all models of an architecture share is not in it; see family.
type Config struct {
	Architecture string // "LlamaForCausalLM"
	Hidden       int    // width of the residual stream
	Intermediate int    // width of the MLP
	Layers       int
	Heads        int
	KVHeads      int
	HeadDim      int
	Vocab        int
	Context      int // greatest sensible number of positions
	NormEps      float64
	TiedHead     bool // the output layer is the embedding table
	QKVBias      bool // biases of the q, k and v projections
	OBias        bool // of the attention's output projection
	MLPBias      bool // of the MLP's layers
	HeadBias     bool // of the output layer
	Norm         Norm
	Activation   Activation
	Position     Position
	Parallel     bool // attention and MLP both read the layer's input
	SharedNorm   bool // and both through the same norm
	PostNorms    bool // norms also behind attention and MLP
	QKNorm       bool // RMS norms over each head of q and k
	// Windows is how many positions each layer's attention sees, itself
	// included, 0 for all; nil: all layers see all.
	Windows []int
	Rope    Rope
	// These are 0 where a model has none.
	EmbedScale     float64 // multiplies embeddings
	AttentionScale float64 // multiplies scores, instead of 1/sqrt(HeadDim)
	AttentionCap   float64 // soft cap of scores
	LogitCap       float64 // soft cap of logits
	ClipQKV        float64 // limit of q, k and v

	BOS int32   // -1: none
	EOS []int32 // any of them ends a text
	// InitRange is the deviation of random weights. Default 0.02.
	InitRange float64
}

// Norm is a kind of norm.
type Norm int

// The norms. A layer norm without bias still subtracts the mean.
const (
	RMSNorm Norm = iota
	RMSNormPlusOne
	LayerNorm
	LayerNormNoBias
)

// Activation is the function inside an MLP.
type Activation int

// The activations; see tensor.GELU.
const (
	SiLU Activation = iota
	GELU
	GELUTanh
)

// Position is how a model knows the order of tokens.
type Position int

// The kinds of positions: rotary embedding, a bias of the scores, a table that
// is added to the embeddings.
const (
	Rotary Position = iota
	ALiBi
	Learned
)

// Rope describes rotary position embedding.
type Rope struct {
	Theta float64
	// Dims is how many values of a head are turned, the first ones; 0: all.
	Dims    int
	Scaling RopeScaling
}

// RopeScaling stretches rotary frequencies to contexts longer than those of
// the pretraining.
type RopeScaling struct {
	// Kind is "" for none, "linear", "dynamic", "llama3", "yarn" or "longrope".
	Kind   string
	Factor float64
	// OriginalContext is that of the pretraining: llama3, yarn, longrope.
	OriginalContext int
	// AttentionFactor multiplies the tables, and so the scores by its square;
	// 0 stands for 1. Yarn and longrope.
	AttentionFactor               float64
	LowFreqFactor, HighFreqFactor float64 // llama3
	BetaFast, BetaSlow            float64 // yarn
	NoTruncate                    bool    // yarn: the range of mixed frequencies is not rounded
	// ShortFactors divide the frequencies of sequences within OriginalContext,
	// LongFactors those of longer ones. Longrope.
	ShortFactors, LongFactors []float64
}

// Llama returns the configuration of a Llama with the usual constants
// (RMS epsilon 1e-5, theta 10000, MHA, untied, no BOS or EOS): set the fields
// that differ.
func Llama(hidden, intermediate, layers, heads, vocab, context int) Config {
	return Config{
		Architecture: "LlamaForCausalLM",
		Hidden:       hidden, Intermediate: intermediate, Layers: layers,
		Heads: heads, KVHeads: heads, HeadDim: hidden / max(1, heads),
		Vocab: vocab, Context: context,
		NormEps: 1e-5, Rope: Rope{Theta: 10000}, BOS: -1, InitRange: 0.02,
	}
}

// Bounds on what a configuration may ask for, far above any model that this
// package can run: they keep products of them from overflowing.
const (
	maxWidth  = 1 << 20
	maxLayers = 1 << 10
	maxVocab  = 1 << 24
	maxHeads  = 1 << 12
)

// Validate checks that the settings fit together.
func (c Config) Validate() error {
	f := c.family()
	if f == nil {
		return fmt.Errorf("%w: architecture %q", ErrUnsupported, c.Architecture)
	}
	for _, f := range []struct {
		name   string
		v, max int
	}{
		{"hidden size", c.Hidden, maxWidth},
		{"intermediate size", c.Intermediate, maxWidth},
		{"number of layers", c.Layers, maxLayers},
		{"number of heads", c.Heads, maxHeads},
		{"number of key-value heads", c.KVHeads, maxHeads},
		{"head size", c.HeadDim, 1 << 12},
		{"vocabulary", c.Vocab, maxVocab},
		{"context", c.Context, 1 << 30},
	} {
		if f.v < 1 || f.v > f.max {
			return fmt.Errorf("%s is %d, must be 1 to %d", f.name, f.v, f.max)
		}
	}
	switch {
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("%d heads cannot share %d key-value heads", c.Heads, c.KVHeads)
	case c.Windows != nil && len(c.Windows) != c.Layers:
		return fmt.Errorf("%d attention windows for %d layers", len(c.Windows), c.Layers)
	case !(c.NormEps >= 0 && c.NormEps < 1):
		return fmt.Errorf("norm epsilon is %v", c.NormEps)
	case c.SharedNorm && !c.Parallel, c.PostNorms && c.Parallel, c.ClipQKV != 0 && (c.Position == Rotary || c.QKNorm || f.fused == notFused),
		c.Activation == SiLU && f.linears[gateSlot] == "", (c.Position == Learned) != (f.positions != ""):
		return fmt.Errorf("%w: settings of a %s that exclude each other", ErrUnsupported, c.Architecture)
	}
	for _, f := range []struct {
		name string
		v    float64
	}{
		{"embedding scale", c.EmbedScale},
		{"attention scale", c.AttentionScale},
		{"soft cap of scores", c.AttentionCap},
		{"soft cap of logits", c.LogitCap},
		{"limit of q, k and v", c.ClipQKV},
	} {
		if !(f.v >= 0 && f.v < math.MaxFloat32) {
			return fmt.Errorf("%s is %v, must be above 0", f.name, f.v)
		}
	}
	for _, id := range append([]int32{c.BOS}, c.EOS...) {
		if id < -1 || int(id) >= c.Vocab {
			return fmt.Errorf("special token %d is outside a vocabulary of %d", id, c.Vocab)
		}
	}
	if c.Position != Rotary {
		return nil
	}
	if d := c.RotaryDims(); d%2 != 0 || d < 2 || d > c.HeadDim {
		return fmt.Errorf("rotary embedding of %d values in heads of %d is odd or too many, it needs pairs", d, c.HeadDim)
	}
	return c.Rope.validate(c.RotaryDims())
}

func (r Rope) validate(dims int) error {
	s := r.Scaling
	if !(r.Theta > 0 && r.Theta < math.MaxFloat64) {
		return fmt.Errorf("rope theta is %v", r.Theta)
	}
	if s.Kind == "" {
		return nil
	}
	if s.Kind != "longrope" && !(s.Factor >= 1 && s.Factor < math.MaxFloat32) {
		return fmt.Errorf("rope scaling factor is %v, must be at least 1", s.Factor)
	}
	if !(s.AttentionFactor >= 0 && s.AttentionFactor < math.MaxFloat32) {
		return fmt.Errorf("rope attention factor is %v", s.AttentionFactor)
	}
	switch s.Kind {
	case "llama3":
		if !(s.LowFreqFactor > 0 && s.HighFreqFactor > s.LowFreqFactor && s.OriginalContext > 0) {
			return fmt.Errorf("llama3 rope scaling has factors %v and %v and context %d", s.LowFreqFactor, s.HighFreqFactor, s.OriginalContext)
		}
	case "yarn":
		if !(s.BetaSlow > 0 && s.BetaFast >= s.BetaSlow && s.OriginalContext > 0 && r.Theta != 1) {
			return fmt.Errorf("yarn rope scaling has betas %v and %v, context %d and theta %v", s.BetaFast, s.BetaSlow, s.OriginalContext, r.Theta)
		}
	case "longrope":
		if len(s.ShortFactors) != dims/2 || len(s.LongFactors) != dims/2 || s.OriginalContext < 1 {
			return fmt.Errorf("longrope scaling has %d short and %d long factors for %d pairs, and context %d", len(s.ShortFactors), len(s.LongFactors), dims/2, s.OriginalContext)
		}
		for i := range s.ShortFactors {
			if !(s.ShortFactors[i] > 0 && s.LongFactors[i] > 0) {
				return fmt.Errorf("longrope factors %d are %v and %v, must be above 0", i, s.ShortFactors[i], s.LongFactors[i])
			}
		}
	}
	return nil
}

// RotaryDims returns how many values of a head rotary embedding turns.
func (c Config) RotaryDims() int {
	if c.Rope.Dims > 0 {
		return c.Rope.Dims
	}
	return c.HeadDim
}

func (c Config) window(layer int) int {
	if c.Windows == nil {
		return 0
	}
	return c.Windows[layer]
}

// scale is what scores are multiplied by.
func (c Config) scale() float64 {
	if c.AttentionScale != 0 {
		return c.AttentionScale
	}
	return 1 / math.Sqrt(float64(c.HeadDim))
}

func (c Config) rms() tensor.RMSNorm {
	return tensor.RMSNorm{Eps: float32(c.NormEps), PlusOne: c.Norm == RMSNormPlusOne}
}

// layered reports whether norms are layer norms.
func (c Config) layered() bool { return c.Norm == LayerNorm || c.Norm == LayerNormNoBias }

// statsCols is how many numbers a norm keeps of each row.
func (c Config) statsCols() int {
	if c.layered() {
		return 2
	}
	return 1
}

func (c Config) gelu() tensor.GELU {
	if c.Activation == GELUTanh {
		return tensor.GELUTanh
	}
	return tensor.GELUExact
}

// slopes returns those of ALiBi, one for each head: powers of two with equal
// steps, and for a number of heads that is no power of two every second one of
// the next power's, first those with odd numbers.
func (c Config) slopes() []float32 {
	if c.Position != ALiBi {
		return nil
	}
	n := 1
	for n < c.Heads {
		n *= 2
	}
	slope := func(i int) float32 { return float32(math.Exp2(-8 * float64(i+1) / float64(n))) }
	list := make([]float32, 0, 2*n)
	if n == c.Heads {
		for i := range n {
			list = append(list, slope(i))
		}
		return list
	}
	for i := 1; i < n; i += 2 {
		list = append(list, slope(i))
	}
	for i := 0; i < n; i += 2 {
		list = append(list, slope(i))
	}
	return list[:c.Heads]
}
