package model

import "github.com/moot-net/moot/node/internal/tensor"

// Workload is what a model is to be used for, for WorkspaceBytes.
type Workload struct {
	Tokens   int  // of the largest batch
	Counted  int  // of them that the loss counts
	Training bool // backward passes too
	// Recompute is that of Options.
	Recompute int
	// Rank returns the rank of the adapter of a layer, 0 for none; nil: no
	// adapters.
	Rank func(path string) int
	// Sizes are those of the backend.
	Sizes tensor.Sizes
}

// WorkspaceBytes returns the memory for activations, logits and derivatives by
// activations that a workload takes, beyond the parameters.
func (c Config) WorkspaceBytes(l Workload) int64 {
	ranks := make([][slots]int, c.Layers)
	for i := range ranks {
		for j, m := range c.modules(i) {
			if l.Rank != nil && m.Path != "" {
				ranks[i][j] = l.Rank(m.Path)
			}
		}
	}
	var w workspace
	var s sizer
	w.forward(&s, &c, ranks, l.Tokens, max(0, min(l.Recompute, c.Layers)), l.Training)
	w.loss(&s, &c, l.Counted, c.logitsRows(l.Counted, l.Sizes))
	if l.Training {
		w.backward(&s, &c, ranks)
	}
	size := l.Sizes.ActivationBytes
	if size == 0 {
		size = 4
	}
	return 4*int64(s.plain) + int64(size)*int64(s.half)
}

// Plan returns the least Recompute with which a workload takes at most bytes,
// and whether there is one.
func (c Config) Plan(l Workload, bytes int64) (recompute int, fits bool) {
	for l.Recompute = 0; l.Recompute <= c.Layers; l.Recompute++ {
		if c.WorkspaceBytes(l) <= bytes {
			return l.Recompute, true
		}
	}
	return c.Layers, false
}
