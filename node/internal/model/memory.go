package model

import "github.com/moot-net/moot/node/internal/tensor"

// Workload is what a model is to be used for, for WorkspaceBytes.
type Workload struct {
	Tokens   int  // of the largest batch
	Counted  int  // of them that the loss counts
	Training bool // backward passes too
	// Recompute is that of Options.
	Recompute int
	// Offload leaves what layers that are computed again keep in the host's
	// memory; see Model.SetOffload.
	Offload bool
	// Rank returns the rank of the adapter of a layer, 0 for none; nil: no
	// adapters.
	Rank func(path string) int
	// Sizes are those of the backend.
	Sizes tensor.Sizes
}

// WorkspaceBytes returns the memory for activations, logits and derivatives by
// activations that a workload takes, beyond the parameters.
func (c Config) WorkspaceBytes(l Workload) int64 {
	s := c.workspace(l)
	return 4*int64(s.plain) + l.activationBytes()*int64(s.half)
}

// OffloadBytes returns the memory of the host that a workload takes.
func (c Config) OffloadBytes(l Workload) int64 {
	return l.activationBytes() * int64(c.workspace(l).host)
}

func (l Workload) activationBytes() int64 {
	if n := l.Sizes.ActivationBytes; n != 0 {
		return int64(n)
	}
	return 4
}

func (c Config) workspace(l Workload) sizer {
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
	w.forward(&s, &c, ranks, l.Tokens, max(0, min(l.Recompute, c.Layers)), l.Training, l.Offload)
	w.loss(&s, &c, l.Counted, c.logitsRows(l.Counted, l.Sizes))
	if l.Training {
		w.backward(&s, &c, ranks)
	}
	return s
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
