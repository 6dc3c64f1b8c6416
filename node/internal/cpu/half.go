package cpu

import (
	"fmt"
	"math"

	"github.com/moot-net/moot/node/internal/tensor"
)

// Precision says how products with packed weights, those of bfloat16 or four
// bits, are computed. Everything else is computed in float32.
type Precision int

const (
	// PrecisionF32 multiplies in float32.
	PrecisionF32 Precision = iota
	// PrecisionAuto is PrecisionBF16 where the processor has instructions for
	// that, and PrecisionF32 elsewhere.
	PrecisionAuto
	// PrecisionBF16 rounds both operands to bfloat16, and adds their products
	// in float32. The results are the same, to the bit, on every processor.
	PrecisionBF16
)

var precisions = []string{"f32", "auto", "bf16"}

// String returns "f32", "auto" or "bf16".
func (p Precision) String() string {
	if p < 0 || int(p) >= len(precisions) {
		return fmt.Sprintf("Precision(%d)", int(p))
	}
	return precisions[p]
}

// ParsePrecision is the reverse of String.
func ParsePrecision(s string) (Precision, error) {
	for i, name := range precisions {
		if s == name {
			return Precision(i), nil
		}
	}
	return 0, fmt.Errorf("precision is %q, must be auto, f32 or bf16", s)
}

// How numbers are added in products of bfloat16 values, which is what the
// instruction VDPBF16PS does: values of k make pairs; the product of the second
// values of a pair is added first, then that of the first ones; each sum is
// rounded to the nearest float32, ties to even; denormal numbers, among the
// values and among the sums, are zeros of the same sign. Blocks of k are those
// of halfStep, whose sums are multiplied by alpha and added in float32.

const maxHalfKC = 512

// halfStep is how many values of k are summed before they are added to c.
func halfStep(k int) int { return roundUp(ceilDiv(k, ceilDiv(k, maxHalfKC)), 16) }

// halfTile is the inner loop of such products. fn adds alpha times the product
// of a (rows,2*k) and b (2*k,cols) to a tile of c with rows ldc apart, or sets
// it if add is false. Rows of a are rsa values apart; b holds the pairs of each
// column, those of a row of pairs together.
type halfTile struct {
	rows, cols int
	fn         func(k int, a []uint16, rsa int, b []uint16, c []float32, ldc int, alpha float32, add bool)
}

func (kn *kernels) fitHalf(rows, cols int) *halfTile {
	for i := range kn.halfTiles {
		if t := &kn.halfTiles[i]; t.rows >= rows && t.cols >= cols {
			return t
		}
	}
	panic("bug: no tile")
}

// largest returns the size of the largest tile for g.
func (kn *kernels) largest(g *gemmArgs) (mr, nr int) {
	if g.half != nil {
		t := kn.halfTiles[len(kn.halfTiles)-1]
		return t.rows, t.cols
	}
	return kn.mr, kn.nr
}

// maxRounded is about how many values of the left operand are rounded at once,
// which bounds the memory for them.
const maxRounded = 16 << 20

// halfProduct computes b.gemm.args, whose b is packed, in bfloat16.
func (b *Backend) halfProduct() {
	g := &b.gemm.args
	all, ld := *g, roundUp(g.k, 32)
	if ld%1024 == 0 {
		ld += 32 // see aliased
	}
	step := max(maxMC, b.maxRounded/ld/maxMC*maxMC)
	for i := 0; i < all.m; i += step {
		*g = all
		g.m, g.c = min(step, all.m-i), all.c[i*all.ldc:]
		if g.k > 0 {
			g.a = all.a[i*all.rsa:]
		}
		b.round(ld)
		b.product()
	}
}

// round rounds the left operand of b.gemm.args to rows ld apart.
func (b *Backend) round(ld int) {
	g := &b.gemm.args
	rows := g.m + b.k.halfTiles[len(b.k.halfTiles)-1].rows // those behind are read, and count for nothing
	b.rounded = grow(b.rounded, rows*ld)
	b.narrow = narrowTask{k: b.k, g: g, dst: b.rounded, ld: ld, step: max(1, minRowWork/max(1, g.k), ceilDiv(g.m, 4*b.pool.threads))}
	b.pool.do(ceilDiv(g.m, b.narrow.step), &b.narrow)
	b.narrow = narrowTask{}
	g.half, g.rsa, g.a, g.csa = b.rounded, ld, nil, 1
}

// narrowTask rounds the rows of g.a to dst, where they have an even number of
// values.
type narrowTask struct {
	k        *kernels
	g        *gemmArgs
	dst      []uint16
	ld, step int
}

func (t *narrowTask) piece(_, n int) {
	g := t.g
	for i := n * t.step; i < min((n+1)*t.step, g.m); i++ {
		row := t.dst[i*t.ld : (i+1)*t.ld]
		if g.csa == 1 {
			t.k.narrow(row[:g.k], g.a[i*g.rsa:i*g.rsa+g.k])
		} else {
			for p := range g.k {
				row[p] = narrowed(g.a[i*g.rsa+p*g.csa])
			}
		}
		clear(row[g.k:roundUp(g.k, 2)])
	}
}

// halfGemm computes g, whose a is rounded, on the calling goroutine.
func (kn *kernels) halfGemm(s *scratch, g *gemmArgs) {
	mr, nr := kn.largest(g)
	s.edge = grow(s.edge, mr*nr)
	step := halfStep(g.k)
	for k0 := 0; k0 < g.k; k0 += step {
		kc := min(step, g.k-k0)
		for n0 := 0; n0 < g.n; n0 += maxNC {
			nc := min(maxNC, g.n-n0)
			kn.packHalf(s, g, k0, kc, n0, nc)
			for m0 := 0; m0 < g.m; m0 += maxMC {
				kn.halfBlock(s, g, k0, kc, n0, nc, m0, min(maxMC, g.m-m0))
			}
		}
	}
}

// packHalf packs panels of pairs, as wide as their tiles.
func (kn *kernels) packHalf(s *scratch, g *gemmArgs, k0, kc, n0, nc int) {
	_, nr := kn.largest(g)
	pairs := ceilDiv(kc, 2)
	s.pairs = grow(s.pairs, 2*pairs*roundUp(nc, nr))
	src, rsb, csb := kn.halfValues(s, g, k0, kc, n0, nc)
	for j := 0; j < nc; j += nr {
		w := min(nr, nc-j)
		wide := kn.fitHalf(1, w).cols
		kn.packPairs(s.pairs[2*j*pairs:][:2*wide*pairs], wide, src[j*csb:], rsb, csb, kc, w)
	}
}

// halfValues returns the values of b from row k0 and column n0 on. Element
// (p, j) is at p*rsb+j*csb.
func (kn *kernels) halfValues(s *scratch, g *gemmArgs, k0, kc, n0, nc int) (v []uint16, rsb, csb int) {
	if v, ok := g.packed.(tensor.BF16); ok {
		return v[g.offB+k0*g.rsb+n0*g.csb:], g.rsb, g.csb
	}
	rows, cols, stride := kc, nc, g.rsb
	if g.rsb == 1 {
		rows, cols, stride = nc, kc, g.csb
	}
	ld := cols + 2*rowGap
	s.plain, s.values = grow(s.plain, cols), grow(s.values, rows*ld)
	for i := range rows {
		kn.unpack(s.plain, g.packed, g.offB+k0*g.rsb+n0*g.csb+i*stride)
		kn.narrow(s.values[i*ld:i*ld+cols], s.plain)
	}
	if g.rsb == 1 {
		return s.values, 1, ld
	}
	return s.values, ld, 1
}

// packPairs packs w columns of src into rows of wide pairs.
func (kn *kernels) packPairs(dst []uint16, wide int, src []uint16, rsb, csb, kc, w int) {
	whole, at := kc/2, 0
	for rsb == 1 && at+kn.panel <= w {
		kn.transposePairs(dst[2*at:], 2*wide, src[at*csb:], csb, whole)
		at += kn.panel
	}
	for rsb != 1 && csb == 1 && at+kn.panel <= w {
		kn.interleave(dst[2*at:], 2*wide, src[at:], rsb, whole)
		at += kn.panel
	}
	if at < wide {
		for p := range whole {
			row := dst[2*p*wide:][:2*wide]
			for i := at; i < w; i++ {
				row[2*i], row[2*i+1] = src[2*p*rsb+i*csb], src[(2*p+1)*rsb+i*csb]
			}
			clear(row[2*w:])
		}
	}
	if kc%2 != 0 {
		row := dst[2*whole*wide:][:2*wide]
		clear(row)
		for i := range w {
			row[2*i] = src[2*whole*rsb+i*csb]
		}
	}
}

// halfBlock is block for packed pairs.
func (kn *kernels) halfBlock(s *scratch, g *gemmArgs, k0, kc, n0, nc, m0, mc int) {
	mr, nr := kn.largest(g)
	pairs, add := ceilDiv(kc, 2), g.add || k0 > 0
	for j := 0; j < nc; j += nr {
		w := min(nr, nc-j)
		for i := 0; i < mc; i += mr {
			h := min(mr, mc-i)
			t := kn.fitHalf(h, w)
			a, c := g.half[(m0+i)*g.rsa+k0:], g.c[(m0+i)*g.ldc+n0+j:]
			if w == t.cols && h == t.rows {
				t.fn(pairs, a, g.rsa, s.pairs[2*j*pairs:], c, g.ldc, g.alpha, add)
				continue
			}
			t.fn(pairs, a, g.rsa, s.pairs[2*j*pairs:], s.edge, t.cols, g.alpha, false)
			storeEdge(c, g.ldc, s.edge, t.cols, h, w, add)
		}
	}
}

// storeEdge stores h rows of w values of a tile whose rows are ld apart, or
// adds them.
func storeEdge(c []float32, ldc int, edge []float32, ld, h, w int, add bool) {
	for r := range h {
		row := c[r*ldc : r*ldc+w]
		for q, v := range edge[r*ld : r*ld+w] {
			if add {
				v += row[q]
			}
			row[q] = v
		}
	}
}

// halfTileGo is the oracle of the others. Products are exact in float64, and a
// sum that is rounded to float64 first is rounded to the same float32.
func halfTileGo(k int, a []uint16, rsa int, b []uint16, c []float32, ldc int, alpha float32, add bool) {
	var sums [4][4]float32
	for p := range k {
		var first, second [4]float64
		for j, row := 0, (*[8]uint16)(b[8*p:]); j < 4; j++ {
			first[j], second[j] = widened(row[2*j]), widened(row[2*j+1])
		}
		for i := range sums {
			x, y := widened(a[i*rsa+2*p]), widened(a[i*rsa+2*p+1])
			for j, s := range sums[i] {
				sums[i][j] = addProduct(addProduct(s, y, second[j]), x, first[j])
			}
		}
	}
	for i, sum := range sums {
		row := (*[4]float32)(c[i*ldc:])
		for j, v := range sum {
			v = float32(v * alpha)
			if add {
				v += row[j]
			}
			row[j] = v
		}
	}
}

// addProduct returns s + x*y, or a zero where that is denormal.
func addProduct(s float32, x, y float64) float32 {
	const least = 0x1p-126 - 0x1p-151 // what is not less is rounded to 2^-126 at least
	sum := float64(s) + x*y
	if sum < least && sum > -least {
		sum = math.Copysign(0, sum)
	}
	return float32(sum)
}

// widened returns a bfloat16 value, or a zero if it is denormal.
func widened(v uint16) float64 {
	if v&0x7f80 == 0 {
		v &= 0x8000
	}
	return float64(math.Float32frombits(uint32(v) << 16))
}

// narrowed returns x rounded to bfloat16, or a zero if it is denormal.
func narrowed(x float32) uint16 {
	b := math.Float32bits(x)
	top := uint16(b >> 16)
	switch {
	case b&0x7f800000 == 0:
		return top & 0x8000
	case x != x:
		return top | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

func narrowGo(dst []uint16, src []float32) {
	dst = dst[:len(src)]
	for i, x := range src {
		dst[i] = narrowed(x)
	}
}

func transposePairsGo(dst []uint16, ldd int, src []uint16, ld, k int) {
	for j := range 4 {
		row := src[j*ld:][:2*k]
		for p := range k {
			dst[p*ldd+2*j], dst[p*ldd+2*j+1] = row[2*p], row[2*p+1]
		}
	}
}

func interleaveGo(dst []uint16, ldd int, src []uint16, ld, k int) {
	for p := range k {
		x, y := (*[4]uint16)(src[2*p*ld:]), (*[4]uint16)(src[(2*p+1)*ld:])
		row := (*[8]uint16)(dst[p*ldd:])
		for j := range x {
			row[2*j], row[2*j+1] = x[j], y[j]
		}
	}
}
