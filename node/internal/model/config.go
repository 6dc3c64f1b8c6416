package model

import (
	"errors"

	"github.com/moot-net/moot/shard/safetensors"
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
	Rope         Rope
	BOS          int32   // -1: none
	EOS          []int32 // any of them ends a text
}

// Rope describes rotary position embedding.
type Rope struct {
	Theta   float64
	Scaling RopeScaling
}

// RopeScaling is the llama3 scaling of rotary frequencies; none when Factor is
// 0.
type RopeScaling struct {
	Factor, LowFreqFactor, HighFreqFactor float64
	OriginalContext                       int
}

// Llama returns the configuration of a Llama with the usual constants
// (RMS epsilon 1e-5, theta 10000, MHA, untied, no BOS or EOS): set the fields
// that differ.
func Llama(hidden, intermediate, layers, heads, vocab, context int) Config {
	return Config{}
}

// ParseConfig reads config.json. A setting that changes the arithmetic and is
// not understood is an error that names it.
func ParseConfig(data []byte) (Config, error) { return Config{}, ErrUnsupported }

// Model is a model on a backend.
type Model struct{ cfg Config }

// Options say where a model computes.
type Options struct {
	Threads int // goroutines that compute; default 1
}

// Load reads the model in a Hugging Face folder: config.json, and
// model.safetensors or shards with an index.
func Load(dir string, o Options) (*Model, error) { return nil, ErrUnsupported }

// New makes a model with random weights, which depend on cfg and seed only:
// matrices normal with deviation 0.02 (those that write to the residual stream
// divided by sqrt(2 layers)), norms one.
func New(cfg Config, seed uint64, o Options) (*Model, error) { return nil, ErrUnsupported }

// Config returns the model's configuration.
func (m *Model) Config() Config { return m.cfg }

// Save writes a Hugging Face folder: config.json, generation_config.json and
// model.safetensors with weights of the given type. Files of a tokenizer are
// the caller's.
func (m *Model) Save(dir string, dtype safetensors.DType) error { return ErrUnsupported }
