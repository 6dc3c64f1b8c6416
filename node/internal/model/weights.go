package model

import (
	"slices"

	"github.com/moot-net/moot/node/internal/checkpoint"
	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/node/internal/tensor"
	"github.com/moot-net/moot/shard/safetensors"
)

// Weight is a parameter as Load keeps it.
type Weight struct {
	Name       string
	Rows, Cols int // of a vector one row
	Kind       tensor.Kind
	// Gathered tells that rows are picked from it, and nothing is multiplied
	// with it.
	Gathered bool
}

// Bytes returns how much memory the weight takes, or a little less.
func (w Weight) Bytes() int64 {
	n := int64(w.Rows) * int64(w.Cols)
	switch w.Kind {
	case tensor.FourBits:
		return n/2 + n/nf4.BlockSize // and a scale of eight bits for each block
	case tensor.Half:
		return 2 * n
	}
	return 4 * n
}

// Weights lists the parameters of the model in dir, reading none of them.
func Weights(dir string) ([]Weight, error) {
	c, err := ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	f, err := checkpoint.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	w := &weights{folder: f, c: c}
	list := c.Weights(tensor.Plain)
	for i, p := range c.params() {
		switch t, _ := f.Lookup(w.find(p.name)); {
		case !w.packable(p):
		case t.NF4:
			list[i].Kind = tensor.FourBits
		case t.DType == safetensors.BF16:
			list[i].Kind = tensor.Half
		}
	}
	return list, nil
}

// Weights lists the parameters of a model whose matrices are all of one kind.
func (c Config) Weights(matrices tensor.Kind) []Weight {
	var list []Weight
	for _, p := range c.params() {
		w := Weight{Name: p.name, Rows: max(1, p.rows), Cols: p.cols, Gathered: c.onlyGathered(p.name)}
		if p.rows > 0 {
			w.Kind = matrices
		}
		list = append(list, w)
	}
	return list
}

// WeightBytes returns how much memory Load takes for the parameters of the model
// in dir, or a little less than that, reading no weights.
func WeightBytes(dir string) (int64, error) {
	list, err := Weights(dir)
	sum := int64(0)
	for _, w := range list {
		sum += w.Bytes()
	}
	return sum, err
}

// onlyGathered reports whether a parameter is a table that rows are picked
// from, and nothing is multiplied with.
func (c Config) onlyGathered(name string) bool {
	f := c.family()
	return name == f.base+f.positions+".weight" || name == f.base+f.embed+".weight" && !c.TiedHead
}

// Products lists the matrix products that a workload is made of, each shape
// once, with weights as they are kept.
func (c Config) Products(l Workload, weights []Weight) []tensor.Product {
	kinds := map[string]tensor.Kind{}
	for _, w := range weights {
		kinds[w.Name] = w.Kind
	}
	var list []tensor.Product
	add := func(p tensor.Product) {
		if p.Rows*p.Cols*p.Inner > 0 && !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	for i := range c.Layers {
		for _, m := range c.modules(i) {
			if m.Path == "" {
				continue
			}
			rank := 0
			if l.Rank != nil {
				rank = l.Rank(m.Path)
			}
			c.layerProducts(add, l, m.Module, kinds[m.Path+".weight"], rank)
		}
	}
	head := kinds[c.family().head+".weight"]
	if c.TiedHead {
		head = kinds[c.EmbeddingPath()+".weight"]
	}
	rows := c.logitsRows(l.Counted, l.Sizes)
	add(tensor.Product{Rows: rows, Cols: c.Vocab, Inner: c.Hidden, TransB: true, A: tensor.Activation, B: head})
	if l.Training {
		add(tensor.Product{Rows: rows, Cols: c.Hidden, Inner: c.Vocab, C: tensor.Activation, B: head})
	}
	return list
}

// layerProducts are those of linear.forward and linear.backward on a backend
// that fuses.
func (c *Config) layerProducts(add func(tensor.Product), l Workload, m Module, w tensor.Kind, rank int) {
	act := func(cols, inner, rank int, b tensor.Kind, transB bool) {
		add(tensor.Product{Rows: l.Tokens, Cols: cols, Inner: inner, Rank: rank, TransB: transB, C: tensor.Activation, A: tensor.Activation, B: b})
	}
	act(m.Out, m.In, rank, w, true)
	act(rank, m.In, 0, tensor.Plain, true)
	if !l.Training {
		return
	}
	act(m.In, m.Out, rank, w, false)
	act(rank, m.Out, 0, tensor.Plain, false)
	for _, s := range [][2]int{{m.Out, rank}, {rank, m.In}} {
		add(tensor.Product{Rows: s[0], Cols: s[1], Inner: l.Tokens, TransA: true, Add: true, A: tensor.Activation, B: tensor.Activation})
	}
}
