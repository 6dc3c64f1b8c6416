package model

// Workload is what a model is to be used for, for WorkspaceBytes.
type Workload struct {
	Tokens   int  // of the largest batch
	Counted  int  // of them that the loss counts
	Training bool // backward passes too
	// Rank returns the rank of the adapter of a layer, 0 for none; nil: no
	// adapters.
	Rank func(path string) int
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
	w.forward(&s, &c, ranks, l.Tokens, l.Training)
	w.loss(&s, &c, l.Counted)
	if l.Training {
		w.backward(&s, &c, ranks)
	}
	return 4 * int64(s.n)
}
