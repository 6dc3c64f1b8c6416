package app

import (
	"github.com/moot-net/moot/node/internal/cuda"
	"github.com/moot-net/moot/node/internal/tensor"
)

// planSizes say what a usual GPU takes memory for: of this binary if it can
// compute on one, else nearly.
func planSizes() tensor.Sizes {
	if cuda.Built {
		return cuda.Info{Capability: 86, SMs: 28}.Sizes(false)
	}
	return tensor.Sizes{ActivationBytes: 2, LogitsValues: 64 << 20, HostTables: true, Scratch: scratchBytes}
}

// scratchBytes is a bound: of a product, weights of four bits as 16-bit ones,
// and its left side in 16 bits.
func scratchBytes(list []tensor.Product, tokens, heads int) int64 {
	most := int64(4 * (tokens*heads + 257)) // of attention's backward pass
	for _, p := range list {
		n := int64(0)
		if p.B == tensor.FourBits {
			n += 2 * int64(p.Inner) * int64(p.Cols)
		}
		if p.A == tensor.Plain {
			n += 2 * int64(p.Rows) * int64(p.Inner)
		}
		most = max(most, n)
	}
	return most + 2<<20
}
