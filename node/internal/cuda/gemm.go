//go:build cuda && cgo

package cuda

import (
	"fmt"
)

// product is a matrix product
//
//	c = alpha * (op(a) op(b) + op(a2) op(b2)) + bias + c
//
// c (M,N) is float32 or bf16, and so are the others. The second pair is LoRA's:
// it has the transpositions of the first and another K.
//
// A product with a bf16 matrix, or with weights of four bits, is made on tensor
// cores where there are any: a float32 matrix is rounded to bf16 for it, sums are
// float32.
// A product of float32 matrices, and every one with exact set, is made in
// float32, and then the types of the matrices do not matter: equal values give
// equal bits.
type product struct {
	c, a, b view
	nf4     *nf4Matrix // instead of b
	a2, b2  view       // or none

	transA, transB bool    // op transposes
	alpha          float32 // 0 stands for 1
	bias           view    // (1,N), float32, or none
	add            bool    // else c is not read
	exact          bool
}

// method is how a product is computed.
type method int

const (
	fma      method = iota // float32, every GPU
	mma                    // bf16, or fp16 with scales, on tensor cores
	fewRows                // weights of four bits read once for few rows
	byCuBLAS               // bf16, by cuBLAS
)

// tiling is how a kernel divides c and the sum.
type tiling struct {
	kernel           string
	m, n, k, threads int
	shared           int
}

// The tilings of gemm_mma.cu and gemm_f32.cu, which must agree with them.
var (
	mmaLarge = tiling{kernel: "moot_gemm_large", m: 128, n: 128, k: 32, threads: 128, shared: 3 * (128 + 128) * 64}
	mmaSmall = tiling{kernel: "moot_gemm_small", m: 64, n: 64, k: 32, threads: 128, shared: 4 * (64 + 64) * 64}
	mmaTall  = tiling{kernel: "moot_gemm_tall", m: 128, n: 32, k: 32, threads: 128, shared: 4 * (128 + 32) * 64}
	mmaWide  = tiling{kernel: "moot_gemm_wide", m: 32, n: 128, k: 32, threads: 128, shared: 4 * (128 + 32) * 64}
	fmaLarge = tiling{kernel: "moot_gemm_f32_large", m: 128, n: 128, k: 8, threads: 256}
	fmaSmall = tiling{kernel: "moot_gemm_f32_small", m: 64, n: 64, k: 16, threads: 256}

	// Without cp.async two tiles of k are enough; what is left of the memory is
	// what finished sums need.
	halfLarge = tiling{kernel: "moot_gemm_large", m: 128, n: 128, k: 32, threads: 256, shared: 8 * 32 * 36 * 4}
	halfSmall = tiling{kernel: "moot_gemm_small", m: 64, n: 64, k: 32, threads: 128, shared: 4 * 32 * 36 * 4}
	halfTall  = tiling{kernel: "moot_gemm_tall", m: 128, n: 32, k: 32, threads: 128, shared: 2 * (128 + 32) * 64}
	halfWide  = tiling{kernel: "moot_gemm_wide", m: 32, n: 128, k: 32, threads: 128, shared: 2 * (128 + 32) * 64}
)

// scaleParts is how many blocks look for the largest magnitude of a matrix.
const scaleParts = 256

// gemmPlan is everything about a product that follows from shapes and types.
type gemmPlan struct {
	method
	tiling
	rows, cols, k, k2 int
	splits, per       int

	// Panels are copies of matrices in the workspace, in the type and with the
	// alignment that the kernel needs; 0 elements where the matrix will do.
	a, b, a2, b2 panel
	parts        int // where the parts of a split sum are
	scales       int // where what fp16 needs is
	bytes        int // of the workspace
}

// panel is a copy of a matrix in the workspace, or none if it has no size.
type panel struct{ at, ld, bytes int }

func (g *gemmPlan) reserve(bytes int) int {
	at := g.bytes
	g.bytes += blocks(bytes, alignment) * alignment
	return at
}

// panel plans a copy of v, in rows that begin at multiples of 16 bytes.
func (g *gemmPlan) panel(rows, cols int, bf16 bool) panel {
	elem := 4
	if bf16 {
		elem = 2
	}
	ld := blocks(cols, 8) * 8
	return panel{at: g.reserve(rows * ld * elem), ld: ld, bytes: rows * ld * elem}
}

// plan decides how a product is computed.
func (d *device) plan(p product) gemmPlan {
	rows, k := p.a.rows, p.a.cols
	if p.transA {
		rows, k = k, rows
	}
	bRows, bCols := p.b.rows, p.b.cols
	if p.nf4 != nil {
		bRows, bCols = p.nf4.rows, p.nf4.cols
	}
	if p.transB {
		bRows, bCols = bCols, bRows
	}
	if rows != p.c.rows || k != bRows || bCols != p.c.cols {
		panic(fmt.Sprintf("bug: product (%d,%d) by (%d,%d) into (%d,%d)", rows, k, bRows, bCols, p.c.rows, p.c.cols))
	}
	g := gemmPlan{rows: rows, cols: bCols, k: k, splits: 1}
	if !p.a2.none() {
		g.k2 = p.a2.cols
		if p.transA {
			g.k2 = p.a2.rows
		}
	}
	half := p.a.bf16 || p.b.bf16 || p.nf4 != nil // else both are float32
	switch {
	case p.exact || !half || d.capability < 75:
		g.method = fma
	case p.nf4 != nil && d.capability >= 80 && rows <= 16 && p.nf4.few(p):
		g.method = fewRows
		return g
	case d.blas != nil && d.blas.chosen(g.class(p)):
		g.method = byCuBLAS
	default:
		g.method = mma
	}
	g.panels(p)
	if g.method != byCuBLAS {
		g.tile(d)
	}
	return g
}

// few reports whether moot_nf4_gemm can compute p, but for the number of rows.
func (w *nf4Matrix) few(p product) bool {
	return !p.transA && p.transB && w.cols%32 == 0 && p.a.bf16 && p.a.aligned(16)
}

// panels plans the copies of matrices.
func (g *gemmPlan) panels(p product) {
	exact := g.method == fma
	prepare := func(v view) panel {
		if v.none() || exact || (v.bf16 && (v.aligned(16) || g.method == byCuBLAS)) {
			return panel{}
		}
		return g.panel(v.rows, v.cols, true)
	}
	g.a, g.a2, g.b2 = prepare(p.a), prepare(p.a2), prepare(p.b2)
	if p.nf4 != nil {
		g.b = g.panel(p.nf4.rows, p.nf4.cols, !exact || (p.a.bf16 && !p.exact))
	} else {
		g.b = prepare(p.b)
	}
}

// tile chooses the kernel, and how often the sum is split so that there is work
// for all multiprocessors.
func (g *gemmPlan) tile(d *device) {
	large, small, tall, wide := mmaLarge, mmaSmall, mmaTall, mmaWide
	switch {
	case g.method == fma:
		large, small, tall, wide = fmaLarge, fmaSmall, fmaSmall, fmaSmall
	case d.capability < 80:
		large, small, tall, wide = halfLarge, halfSmall, halfTall, halfWide
	}
	switch {
	case g.cols <= 32 && g.rows > 64:
		g.tiling = tall
	case g.rows <= 32 && g.cols > 64:
		g.tiling = wide
	case g.rows <= 64 || g.cols <= 64 || blocks(g.rows, 128)*blocks(g.cols, 128) < d.sms:
		g.tiling = small
	default:
		g.tiling = large
	}
	tiles := blocks(g.k, g.tiling.k) + blocks(g.k2, g.tiling.k)
	have := blocks(g.rows, g.m) * blocks(g.cols, g.n)
	const least = 256 // of k, that a part of the sum is worth its memory traffic
	if have > 0 && have < d.sms && tiles*g.tiling.k >= 2*least {
		splits := min(blocks(2*d.sms, have), tiles*g.tiling.k/least)
		g.per = blocks(tiles, splits)
		g.splits = blocks(tiles, g.per)
	}
	if g.splits > 1 {
		g.parts = g.reserve(g.splits * g.rows * blocks(g.cols, 8) * 8 * 4)
	}
	if g.method == mma && d.capability < 80 {
		g.scales = g.reserve(2 * (scaleParts + 1) * 4)
	}
}

// productBytes returns how much workspace a product takes.
func (d *device) productBytes(p product) int { return d.plan(p).bytes }

// matMul computes a product.
func (d *device) matMul(p product) {
	if p.c.rows*p.c.cols == 0 {
		return
	}
	if p.alpha == 0 {
		p.alpha = 1
	}
	if !p.bias.none() {
		mustShape("bias", p.bias, 1, p.c.cols)
		if p.bias.bf16 {
			panic("bug: a bias in 16 bits")
		}
	}
	g := d.plan(p)
	if g.method == fewRows {
		d.nf4FewRows(p, g)
		return
	}
	var at uintptr
	if g.bytes > 0 {
		if at = d.workspace(g.bytes); at == 0 {
			return // the device has failed
		}
	}
	p.a, p.a2, p.b2 = d.fillPanel(at, g.a, p.a), d.fillPanel(at, g.a2, p.a2), d.fillPanel(at, g.b2, p.b2)
	if w := p.nf4; w != nil {
		bf16 := g.b.bytes == w.rows*g.b.ld*2
		p.b = view{ptr: at + uintptr(g.b.at), rows: w.rows, cols: w.cols, stride: g.b.ld, bf16: bf16}
		d.dequant(p.b, w)
	} else {
		p.b = d.fillPanel(at, g.b, p.b)
	}
	if g.method == byCuBLAS {
		d.blas.product(d, p)
		return
	}
	d.runGEMM(g, p, at)
}

// flags are those of kernels, in the order of gemm.cuh.
func (p product) flags() uint64 {
	flags := uint64(0)
	for i, set := range []bool{
		p.a.bf16, p.b.bf16, p.c.bf16, p.add, p.a.aligned(16), p.b.aligned(16), p.a2.aligned(16), p.b2.aligned(16), p.c.aligned(16),
		p.transA, p.transB, p.a2.bf16, p.b2.bf16,
	} {
		flags |= flag(set) << i
	}
	return flags
}

// fillPanel copies v, rounded to bf16, where the plan says so.
func (d *device) fillPanel(at uintptr, to panel, v view) view {
	if to.bytes == 0 {
		return v
	}
	dst := view{ptr: at + uintptr(to.at), rows: v.rows, cols: v.cols, stride: to.ld, bf16: true}
	d.launch(d.kernel("moot_gemm_pack"), [3]int{blocks(v.rows*blocks(v.cols, 8), 256), 1, 1}, [3]int{256, 1, 1}, 0,
		ptr(v), num(v.stride), flag(v.bf16), num(v.rows), num(v.cols), ptr(dst), num(dst.stride))
	return dst
}

// runGEMM launches one of our own kernels, and the sum of parts if there are any.
func (d *device) runGEMM(g gemmPlan, p product, at uintptr) {
	flags := p.flags()
	name := g.kernel
	var scaleA, scaleB uintptr
	if g.method == mma {
		name += map[[2]bool]string{{false, true}: "_nt", {false, false}: "_nn", {true, false}: "_tn", {true, true}: "_tt"}[[2]bool{p.transA, p.transB}]
		if d.capability < 80 {
			scaleA = at + uintptr(g.scales)
			scaleB = scaleA + (scaleParts+1)*4
			d.findScale(scaleA, p.a, p.a2)
			d.findScale(scaleB, p.b, p.b2)
		}
	}
	var parts uintptr
	if g.splits > 1 {
		parts = at + uintptr(g.parts)
	}
	grid := [3]int{blocks(g.rows, g.m) * blocks(g.cols, g.n), 1, g.splits}
	d.launch(d.kernel(name), grid, [3]int{g.threads, 1, 1}, g.shared,
		ptr(p.a), num(p.a.stride), ptr(p.b), num(p.b.stride), ptr(p.a2), num(p.a2.stride), ptr(p.b2), num(p.b2.stride),
		ptr(p.c), num(p.c.stride), num(g.rows), num(g.cols), num(g.k), num(g.k2), flags, double(float64(p.alpha)), ptr(p.bias),
		uint64(parts), num(g.per), uint64(scaleA), uint64(scaleB))
	if parts != 0 {
		d.launch(d.kernel("moot_gemm_reduce"), [3]int{blocks(g.rows*g.cols, 256), 1, 1}, [3]int{256, 1, 1}, 0,
			uint64(parts), num(g.splits), num(g.rows), num(g.cols), ptr(p.c), num(p.c.stride), flags, double(float64(p.alpha)), ptr(p.bias))
	}
}

// findScale writes the power of two for fp16 that suits v and, unless it is
// none, w; parts of the search follow it.
func (d *device) findScale(at uintptr, v, w view) {
	n := max(1, min(scaleParts, v.rows, v.rows*v.cols>>13))
	d.launch(d.kernel("moot_gemm_largest"), [3]int{n, 1, 1}, [3]int{256, 1, 1}, 0,
		ptr(v), num(v.stride), num(v.rows), num(v.cols), ptr(w), num(w.stride), num(w.rows), num(w.cols), uint64(at+4))
	d.launch(d.kernel("moot_gemm_scale"), [3]int{1, 1, 1}, [3]int{32, 1, 1}, 0, uint64(at+4), num(n), uint64(at))
}
