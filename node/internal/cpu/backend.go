package cpu

import (
	"fmt"

	"github.com/moot-net/moot/node/internal/tensor"
)

// Options configure a Backend.
type Options struct {
	// Threads is how many goroutines compute at once. Default 1.
	Threads int
	// Portable turns the kernels in assembly off.
	Portable bool
	// Precision is how products with packed weights are computed. Default
	// PrecisionF32.
	Precision Precision
}

// Backend computes on the host's processor. It holds no goroutines between
// calls.
type Backend struct {
	// constant after New
	k    *kernels
	half bool // products with packed weights are computed in bfloat16, unless exact
	// maxRounded is the constant of that name, but in tests.
	maxRounded int

	// owned by the goroutine that calls
	exact     bool
	pool      pool
	scratch   []scratch // one per thread
	gemm      gemmTask
	turn      []float32 // a product before it is transposed
	narrow    narrowTask
	rounded   []uint16 // the left operand of a product
	rowOp     rowTask
	plusOne   tensor.Buffer // 1 + the weights of a norm
	gelu      geluTask
	attention attentionTask
	loss      lossTask
	adam      adamTask
	squares   squaresTask
}

var _ tensor.Backend = (*Backend)(nil)

// New returns a Backend.
func New(o Options) *Backend {
	b := &Backend{k: &portable}
	if sets := native(); len(sets) > 0 && !o.Portable {
		b.k = &sets[len(sets)-1]
	}
	b.half = o.Precision == PrecisionBF16 || o.Precision == PrecisionAuto && b.k.fastHalf
	b.maxRounded = maxRounded
	b.pool.init(max(1, o.Threads))
	b.scratch = make([]scratch, b.pool.threads)
	return b
}

// Threads returns how many goroutines compute at once.
func (b *Backend) Threads() int { return b.pool.threads }

// Kernels names the set of kernels in use: "portable", "avx2", "avx512" or
// "avx512bf16".
func (b *Backend) Kernels() string { return b.k.name }

// Precision returns how products with packed weights are computed:
// PrecisionF32 or PrecisionBF16.
func (b *Backend) Precision() Precision {
	if b.half {
		return PrecisionBF16
	}
	return PrecisionF32
}

// SetExact makes products with packed weights be computed in float32, whatever
// Precision is, until it is turned off.
func (b *Backend) SetExact(on bool) { b.exact = on }

// Alloc returns n zeros.
func (b *Backend) Alloc(n int) *tensor.Buffer {
	return &tensor.Buffer{Len: n, Host: make([]float32, n)}
}

// Pack returns a buffer of the values of p, which are expanded a few at a time
// where they are used.
func (b *Backend) Pack(p tensor.Packed) *tensor.Buffer {
	return &tensor.Buffer{Len: p.Len(), Packed: p}
}

// unpack sets dst to the values of p that start at from.
func (kn *kernels) unpack(dst []float32, p tensor.Packed, from int) {
	if v, ok := p.(tensor.BF16); ok {
		kn.widen(dst, v[from:from+len(dst)])
		return
	}
	p.DequantRange(dst, from, from+len(dst))
}

// scratch is memory of one thread.
type scratch struct {
	plain  []float32 // values of a packed operand
	values []uint16  // the same, rounded to bfloat16
	pairs  []uint16  // packed pairs of such values
	a, b   []float32 // packed operands of a matrix product
	edge   []float32 // a tile at the edge of a result
	scores []float32 // a block of attention scores
	grads  []float32 // and of their derivatives
	caps   []float32 // derivatives of the soft cap, of one query
	shares []float32 // values of distribution functions, of a row
	args   gemmArgs
}

// grow returns a slice of n values, s itself if it is long enough. Values are
// not kept.
func grow[T float32 | uint16](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

func mustShape(what string, m tensor.Mat, rows, cols int) {
	if m.Rows != rows || m.Cols != cols {
		panic(fmt.Sprintf("bug: %s is (%d,%d), want (%d,%d)", what, m.Rows, m.Cols, rows, cols))
	}
}
