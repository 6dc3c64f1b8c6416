package train

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/tensor"
)

// Memory says what a Trainer takes, in bytes, where it computes. A few megabytes
// for each thread come on top.
type Memory struct {
	Weights     int64 // of the base model
	Training    int64 // adapter, gradients and the optimizer's state
	Activations int64 // at the largest micro-batch
	Scratch     int64 // of single operations, on a device
	Host        int64 // what a device leaves in the host's memory; not part of the total
}

// Total returns the sum.
func (m Memory) Total() int64 { return m.Weights + m.Training + m.Activations + m.Scratch }

// EstimateMemory says what Open and steps with the same options will take,
// reading the model's configuration, and what its weights are stored as if they
// are there.
func EstimateMemory(o Options) (Memory, error) {
	c, err := model.ReadConfig(o.ModelDir)
	if err != nil {
		return Memory{}, err
	}
	weights, err := weightsOf(c, o)
	if err != nil {
		return Memory{}, err
	}
	return EstimateModel(c, weights, o)
}

// EstimateModel is EstimateMemory of a model that need not be there: o.ModelDir
// is not read.
func EstimateModel(c model.Config, weights []model.Weight, o Options) (Memory, error) {
	if err := o.optimizer().check(); err != nil {
		return Memory{}, err
	}
	if o.Full {
		t := Trainer{}
		t.limits(c, o.MaxTokens, o.MicroBatchTokens)
		return t.fullMemory(c, o)
	}
	return estimate(c, weights, o)
}

// estimate is EstimateMemory of a model that is known.
func estimate(c model.Config, weights []model.Weight, o Options) (Memory, error) {
	t := Trainer{}
	t.limits(c, o.MaxTokens, o.MicroBatchTokens)
	if err := trainable(o.Spec); err != nil {
		return Memory{}, err
	}
	a, err := lora.New(o.Spec, modules(c))
	if err != nil {
		return Memory{}, err
	}
	load, err := t.workload(c, a.Parts(), o.ActivationBytes, o.Sizes)
	if err != nil {
		return Memory{}, err
	}
	m := Memory{
		Training:    2*4*int64(len(a.Values())) + o.optimizer().trainingBytes(a.Layout()),
		Activations: c.WorkspaceBytes(load),
		Host:        4 * int64(len(a.Values())), // the adapter is held twice
	}
	for _, w := range weights {
		if w.Gathered && w.Kind != tensor.Plain && o.Sizes.HostTables {
			m.Host += w.Bytes()
		} else {
			m.Weights += w.Bytes()
		}
	}
	if o.Sizes.Scratch == nil {
		m.Training, m.Host = m.Training+m.Host, 0
		return m, nil
	}
	m.Activations += c.RopeBytes(load.Tokens)
	m.Host += c.OffloadBytes(load)
	m.Scratch = o.Sizes.Scratch(c.Products(load, weights), load.Tokens, c.Heads)
	return m, nil
}

// weightsOf lists the weights of the model in o.ModelDir, as float32 if only its
// configuration is there.
func weightsOf(c model.Config, o Options) ([]model.Weight, error) {
	list, err := model.Weights(o.ModelDir)
	if errors.Is(err, fs.ErrNotExist) {
		return c.Weights(tensor.Plain), nil
	}
	return list, err
}

// Products lists the matrix products that training with o is made of.
func Products(o Options) ([]tensor.Product, error) {
	c, err := model.ReadConfig(o.ModelDir)
	if err != nil {
		return nil, err
	}
	weights, err := weightsOf(c, o)
	if err != nil {
		return nil, err
	}
	return productsOf(c, weights, o)
}

func productsOf(c model.Config, weights []model.Weight, o Options) ([]tensor.Product, error) {
	t := Trainer{}
	t.limits(c, o.MaxTokens, o.MicroBatchTokens)
	var parts []lora.Part
	if !o.Full {
		a, err := lora.New(o.Spec, modules(c))
		if err != nil {
			return nil, err
		}
		parts = a.Parts()
	}
	load, err := t.workload(c, parts, o.ActivationBytes, o.Sizes)
	return c.Products(load, weights), err
}

// fullMemory is what training of all parameters takes: the weights in float32,
// as they are and as they were, their gradients and the optimizer's state.
func (t *Trainer) fullMemory(c model.Config, o Options) (Memory, error) {
	load, err := t.workload(c, nil, o.ActivationBytes, o.Sizes)
	n := 4 * int64(c.Params())
	return Memory{Weights: n, Training: 2*n + o.optimizer().trainingBytes(FullLayout(c)), Activations: c.WorkspaceBytes(load)}, err
}

// workload is that of the largest micro-batch. It takes at most bytes, unless
// that is 0.
func (t *Trainer) workload(c model.Config, adapted []lora.Part, bytes int64, sizes tensor.Sizes) (model.Workload, error) {
	ranks := map[string]int{}
	for _, p := range adapted {
		ranks[p.Path] = p.Rank
	}
	tokens := max(t.micro, t.maxTokens)
	l := model.Workload{Tokens: tokens, Counted: tokens, Training: true, Rank: func(path string) int { return ranks[path] }, Sizes: sizes}
	if bytes <= 0 {
		return l, nil
	}
	var fits bool
	if l.Recompute, fits = c.Plan(l, bytes); !fits && sizes.Offload {
		l.Offload = true
		l.Recompute, fits = c.Plan(l, bytes)
	}
	if !fits {
		return l, fmt.Errorf("activations of %d tokens take at least %d bytes, more than %d: use shorter samples or smaller micro-batches",
			tokens, c.WorkspaceBytes(l), bytes)
	}
	return l, nil
}
