//go:build cuda && cgo

package cuda

import (
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/moot-net/moot/node/internal/nf4"
)

// nf4Matrix is a matrix of four-bit weights in device memory; see package nf4.
type nf4Matrix struct {
	rows, cols int

	base   uintptr // of all of it
	packed uintptr
	code   uintptr // 16 float32
	scales uintptr // float32 for each block, or 0, and then:
	nested uintptr // a byte for each block
	// nestedMap are the 256 values of those bytes, nestedScales what they are
	// multiplied by.
	nestedMap, nestedScales uintptr
	offset                  float32
	blockShift, nestedShift int
}

// nf4Layout is where the parts of a matrix are from its base on, and their size.
type nf4Layout struct{ packed, code, scales, nested, nestedMap, nestedScales, bytes int }

func layoutNF4(w *nf4.Weight) nf4Layout {
	var l nf4Layout
	part := func(bytes int) int {
		at := l.bytes
		l.bytes += blocks(bytes, alignment) * alignment
		return at
	}
	l.packed, l.code = part(len(w.Packed)), part(16*4)
	if n := w.Nested; n != nil {
		l.nested, l.nestedMap, l.nestedScales = part(len(n.Q)), part(256*4), part(len(n.Scales)*4)
	} else {
		l.scales = part(len(w.Scales) * 4)
	}
	return l
}

// nf4Bytes returns how much device memory a matrix takes.
func nf4Bytes(w *nf4.Weight) int { return layoutNF4(w).bytes }

// uploadNF4 copies a valid matrix, whose block sizes are powers of two, to device
// memory. free(m.base) frees it.
func (d *device) uploadNF4(w *nf4.Weight) (*nf4Matrix, error) {
	if w.Len() > math.MaxInt32 {
		return nil, fmt.Errorf("%d weights of four bits in a matrix, must be at most %d", w.Len(), math.MaxInt32)
	}
	l := layoutNF4(w)
	base, err := d.alloc(l.bytes)
	if err != nil {
		return nil, err
	}
	m := &nf4Matrix{
		rows: w.Rows, cols: w.Cols, base: base, packed: base + uintptr(l.packed), code: base + uintptr(l.code),
		blockShift: bits.TrailingZeros(uint(w.BlockSize)),
	}
	d.toDevice(m.packed, w.Packed)
	d.toDevice(m.code, bytesOf(slices.Clone(w.Code[:]))) // C must not see what else a Weight holds
	if n := w.Nested; n != nil {
		m.nested, m.nestedMap, m.nestedScales = base+uintptr(l.nested), base+uintptr(l.nestedMap), base+uintptr(l.nestedScales)
		m.offset, m.nestedShift = n.Offset, bits.TrailingZeros(uint(n.BlockSize))
		d.toDevice(m.nested, n.Q)
		d.toDevice(m.nestedMap, bytesOf(slices.Clone(n.Map[:])))
		d.toDevice(m.nestedScales, bytesOf(n.Scales))
	} else {
		m.scales = base + uintptr(l.scales)
		d.toDevice(m.scales, bytesOf(w.Scales))
	}
	return m, d.err()
}

// args are the arguments of kernels for the matrix; see nf4.cuh.
func (m *nf4Matrix) args() []uint64 {
	return []uint64{
		uint64(m.packed), uint64(m.code), uint64(m.scales), uint64(m.nested), uint64(m.nestedMap), uint64(m.nestedScales),
		double(float64(m.offset)), num(m.blockShift), num(m.nestedShift),
	}
}

// dequant sets dst to the values of m: float32 as package nf4 gives them, or
// those rounded to bf16.
func (d *device) dequant(dst view, m *nf4Matrix) {
	mustShape("matrix of values", dst, m.rows, m.cols)
	if m.cols%8 == 0 && dst.stride%8 == 0 && !dst.aligned(16) {
		panic("bug: dequantisation to a place that is not aligned")
	}
	d.launch(d.kernel("moot_nf4_dequant"), [3]int{blocks(m.rows*m.cols, 8192), 1, 1}, [3]int{256, 1, 1}, 0,
		append(m.args(), num(m.rows), num(m.cols), ptr(dst), num(dst.stride), flag(dst.bf16))...)
}

// nf4FewRows computes a product with at most 16 rows.
func (d *device) nf4FewRows(p product, g gemmPlan) {
	d.launch(d.kernel("moot_nf4_gemm"), [3]int{blocks(g.cols, 32), 1, 1}, [3]int{128, 1, 1}, 0,
		append(p.nf4.args(), ptr(p.a), num(p.a.stride), ptr(p.a2), num(p.a2.stride), ptr(p.b2), num(p.b2.stride), ptr(p.c), num(p.c.stride),
			num(g.rows), num(g.cols), num(g.k), num(g.k2), p.flags(), double(float64(p.alpha)), ptr(p.bias))...)
}
