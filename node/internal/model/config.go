package model

import (
	"errors"
	"fmt"

	"github.com/moot-net/moot/node/internal/tensor"
)

// ErrUnsupported is wrapped by the error for an architecture or a setting that
// this package cannot compute. The message names it.
var ErrUnsupported = errors.New("unsupported")

// Config describes a model: what of config.json decides its arithmetic.
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
	MLPBias      bool // of the MLP's three layers
	// Windows is how many positions each layer's attention sees, itself
	// included, 0 for all; nil: all layers see all.
	Windows []int
	Rope    Rope
	BOS     int32   // -1: none
	EOS     []int32 // any of them ends a text
	// InitRange is the deviation of random weights. Default 0.02.
	InitRange float64
}

// Rope describes rotary position embedding.
type Rope struct {
	Theta   float64
	Scaling RopeScaling
}

// RopeScaling stretches rotary frequencies to contexts longer than those of
// the pretraining.
type RopeScaling struct {
	// Kind is "" for none, "linear" or "llama3".
	Kind   string
	Factor float64
	// These are of llama3 only.
	LowFreqFactor, HighFreqFactor float64
	OriginalContext               int
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
	case c.HeadDim%2 != 0:
		return fmt.Errorf("head size %d is odd, rotary embedding needs pairs", c.HeadDim)
	case c.Windows != nil && len(c.Windows) != c.Layers:
		return fmt.Errorf("%d attention windows for %d layers", len(c.Windows), c.Layers)
	case !(c.NormEps >= 0 && c.NormEps < 1):
		return fmt.Errorf("norm epsilon is %v", c.NormEps)
	}
	for _, id := range append([]int32{c.BOS}, c.EOS...) {
		if id < -1 || int(id) >= c.Vocab {
			return fmt.Errorf("special token %d is outside a vocabulary of %d", id, c.Vocab)
		}
	}
	return c.Rope.validate()
}

func (r Rope) validate() error {
	s := r.Scaling
	if !(r.Theta > 0) {
		return fmt.Errorf("rope theta is %v", r.Theta)
	}
	if s.Kind == "" {
		return nil
	}
	if !(s.Factor >= 1) {
		return fmt.Errorf("rope scaling factor is %v, must be at least 1", s.Factor)
	}
	if s.Kind == "llama3" && !(s.LowFreqFactor > 0 && s.HighFreqFactor > s.LowFreqFactor && s.OriginalContext > 0) {
		return fmt.Errorf("llama3 rope scaling has factors %v and %v and context %d", s.LowFreqFactor, s.HighFreqFactor, s.OriginalContext)
	}
	return nil
}

func (c Config) window(layer int) int {
	if c.Windows == nil {
		return 0
	}
	return c.Windows[layer]
}

func (c Config) rms() tensor.RMSNorm { return tensor.RMSNorm{Eps: float32(c.NormEps)} }
