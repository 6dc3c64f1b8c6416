package cpu

import (
	"fmt"

	"github.com/moot-net/moot/node/internal/tensor"
)

// The blocking, after Goto: a (kc, nc) block of b is packed into panels of nr
// columns, so that a panel (kc*nr values) stays in the first-level cache while
// tiles of a pass over it; an (mc, kc) block of a stays in the second level.
// a is read where it lies if its rows are contiguous, and packed if not.
const (
	maxKC = 320
	maxMC = 120
	maxNC = 1024
	// maxDirect is the number of rows up to which packing b costs more than it
	// gains, if its rows are contiguous.
	maxDirect = 48
)

// gemmArgs are the arguments of c (m,n) = alpha * a (m,k) * b (k,n), or c +=.
// Element (i, p) of a is a[i*rsa+p*csa], of b (p, j) b[p*rsb+j*csb].
type gemmArgs struct {
	m, n, k  int
	a        []float32
	rsa, csa int
	b        []float32
	rsb, csb int
	packed   tensor.Packed // holds b instead
	offB     int           // of b's element (0, 0) in packed
	c        []float32
	ldc      int
	alpha    float32
	add      bool
	dots     bool     // compute scalar products; needs contiguous rows of a and columns of b
	half     []uint16 // a rounded to bfloat16, instead of a: the product is made of such values
	round    bool     // packed values are rounded to bfloat16
}

// MatMul sets c to the product of op(a) and op(b), or adds it.
func (b *Backend) MatMul(c, x, y tensor.Mat, o tensor.MatMul) {
	g := &b.gemm.args
	*g = gemmArgs{
		m: c.Rows, n: c.Cols, k: x.Cols,
		a: x.Host(), rsa: x.Stride, csa: 1,
		rsb: y.Stride, csb: 1,
		c: c.Host(), ldc: c.Stride,
		alpha: o.Alpha, add: o.Add,
	}
	if g.packed, g.offB = y.Buf.Packed, y.Off; g.packed == nil {
		g.b = y.Host()
	}
	am, bk, bn := x.Rows, y.Rows, y.Cols
	if o.TransA {
		am, g.k = x.Cols, x.Rows
		g.rsa, g.csa = 1, x.Stride
	}
	if o.TransB {
		bk, bn = y.Cols, y.Rows
		g.rsb, g.csb = 1, y.Stride
	}
	if am != g.m || bn != g.n || bk != g.k {
		panic(fmt.Sprintf("bug: (%d,%d) = (%d,%d) * (%d,%d)", g.m, g.n, am, g.k, bk, bn))
	}
	if g.alpha == 0 {
		g.alpha = 1
	}
	if g.m == 0 || g.n == 0 {
		return
	}
	g.dots = g.m <= 2 && g.csa == 1 && g.rsb == 1 // before it is cut, so that pieces do not differ
	g.round = g.packed != nil && b.half && !b.exact
	if g.round && !g.dots {
		b.halfProduct()
	} else if o.TransA && g.packed == nil && g.n <= b.k.nr && g.m > 2*b.k.nr {
		b.turned()
	} else {
		b.product()
	}
	b.gemm.args = gemmArgs{}
}

// product computes b.gemm.args on all threads.
func (b *Backend) product() {
	b.split()
	b.gemm.b = b
	b.pool.do(b.gemm.mParts*b.gemm.nParts, &b.gemm)
}

// turned computes a tall and narrow product as its transpose, because then the
// long operand is read along its rows.
func (b *Backend) turned() {
	g := &b.gemm.args
	c, ldc, add := g.c, g.ldc, g.add
	b.turn = grow(b.turn, g.m*g.n)
	g.m, g.n = g.n, g.m
	g.a, g.rsa, g.csa, g.b, g.rsb, g.csb = g.b, g.csb, g.rsb, g.a, g.csa, g.rsa
	g.c, g.ldc, g.add = b.turn, g.n, false
	b.product()
	for i := range g.n {
		row := c[i*ldc : i*ldc+g.m]
		for j := range row {
			v := b.turn[j*g.n+i]
			if add {
				v += row[j]
			}
			row[j] = v
		}
	}
}

// gemmTask is a product cut into mParts by nParts pieces.
type gemmTask struct {
	b              *Backend
	args           gemmArgs
	mParts, nParts int
	mStep, nStep   int
}

// minPiece is the number of multiplications below which a piece is not worth a
// goroutine.
const minPiece = 1 << 20

// split cuts the product for the threads. Cut along n every piece packs its
// own columns of b, but each packs a if a has to be packed, so that there are
// only as many pieces as threads then; along m it is the other way around.
func (b *Backend) split() {
	t := &b.gemm
	g := &t.args
	t.mParts, t.nParts, t.mStep, t.nStep = 1, 1, g.m, g.n
	want := min(b.pool.threads, g.m*g.n*max(1, g.k)/minPiece)
	if want <= 1 {
		return
	}
	mr, nr := b.k.largest(g)
	inPlace := g.half != nil || g.csa == 1 && !aliased(g.rsa)
	if want*nr <= g.n && (g.csa == 1 || g.n >= g.m) {
		t.nStep = columnStep(g.n, want, b.k.panel)
		for parts := 4; inPlace && parts > 1; parts /= 2 { // one thread may be slower, or interrupted
			finer := columnStep(g.n, parts*want, b.k.panel)
			if finer >= 2*nr && longest(g.n, finer, want) <= longest(g.n, t.nStep, want) {
				t.nStep = finer
				break
			}
		}
		t.nParts = ceilDiv(g.n, t.nStep)
		return
	}
	t.mStep = roundUp(ceilDiv(g.m, want), mr)
	t.mParts = ceilDiv(g.m, t.mStep)
}

// columnStep cuts n columns into about so many parts.
func columnStep(n, parts, unit int) int { return roundUp(ceilDiv(n, parts), unit) }

// longest returns how many columns one of the threads computes at least, if all
// are equally fast.
func longest(n, step, threads int) int { return ceilDiv(ceilDiv(n, step), threads) * step }

func (t *gemmTask) piece(thread, i int) {
	s := &t.b.scratch[thread]
	g := &s.args
	*g = t.args
	m0, n0 := i/t.nParts*t.mStep, i%t.nParts*t.nStep
	g.m, g.n = min(t.mStep, g.m-m0), min(t.nStep, g.n-n0)
	if g.half != nil {
		g.half = g.half[m0*g.rsa:]
	} else if g.k > 0 {
		g.a = g.a[m0*g.rsa:]
	}
	if g.k > 0 {
		if g.packed == nil {
			g.b = g.b[n0*g.csb:]
		} else {
			g.offB += n0 * g.csb
		}
	}
	g.c = g.c[m0*g.ldc+n0:]
	t.b.k.gemm(s, g)
	*g = gemmArgs{}
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
func roundUp(a, b int) int { return ceilDiv(a, b) * b }

// gemm computes g on the calling goroutine.
func (kn *kernels) gemm(s *scratch, g *gemmArgs) {
	if g.k == 0 {
		if !g.add {
			for i := range g.m {
				clear(g.c[i*g.ldc : i*g.ldc+g.n])
			}
		}
		return
	}
	if g.dots {
		kn.dots(s, g)
		return
	}
	if g.half != nil {
		kn.halfGemm(s, g)
		return
	}
	s.edge = grow(s.edge, kn.mr*kn.nr)
	blocks := ceilDiv(g.k, maxKC)
	kStep := roundUp(ceilDiv(g.k, blocks), 8)
	for k0 := 0; k0 < g.k; k0 += kStep {
		kc := min(kStep, g.k-k0)
		for n0 := 0; n0 < g.n; n0 += maxNC {
			nc := min(maxNC, g.n-n0)
			direct := g.csb == 1 && g.m <= maxDirect && g.packed == nil
			kn.packB(s, g, k0, kc, n0, nc, direct)
			for m0 := 0; m0 < g.m; m0 += maxMC {
				mc := min(maxMC, g.m-m0)
				kn.packA(s, g, k0, kc, m0, mc)
				kn.block(s, g, k0, kc, n0, nc, m0, mc, direct)
			}
		}
	}
}

// dots computes a product with one or two rows as scalar products with the
// rows of the transposed b.
func (kn *kernels) dots(s *scratch, g *gemmArgs) {
	for j := range g.n {
		var y []float32
		if g.packed == nil {
			y = g.b[j*g.csb : j*g.csb+g.k]
		} else {
			s.plain = grow(s.plain, g.k)
			y = s.plain
			kn.unpack(y, g.packed, g.offB+j*g.csb)
			if g.round {
				s.values = grow(s.values, g.k)
				kn.narrow(s.values, y)
				kn.widen(y, s.values)
			}
		}
		for i := range g.m {
			v := g.alpha * kn.dot(g.a[i*g.rsa:i*g.rsa+g.k], y)
			if g.add {
				v += g.c[i*g.ldc+j]
			}
			g.c[i*g.ldc+j] = v
		}
	}
}

// packB packs panels of nr columns, the last of which may be narrower; rows of
// a panel are as far apart as its tile is wide. With direct only a panel that
// does not fill its tile is packed, because the others are read where they lie.
func (kn *kernels) packB(s *scratch, g *gemmArgs, k0, kc, n0, nc int, direct bool) {
	s.b = grow(s.b, roundUp(nc, kn.nr)*kc)
	if g.packed != nil && g.csb == 1 {
		kn.unpackRows(s, g, k0, kc, n0, nc)
		return
	}
	for j := 0; j < nc; j += kn.nr {
		w := min(kn.nr, nc-j)
		wide := kn.fit(1, w).cols
		if direct && w == wide {
			continue
		}
		src, rsb, csb := g.b, g.rsb, g.csb
		if g.packed == nil {
			src = src[k0*rsb+(n0+j)*csb:]
		} else { // columns lie together
			s.plain = grow(s.plain, w*(kc+rowGap))
			src, csb = s.plain, kc+rowGap
			for i := range w {
				kn.unpack(src[i*csb:i*csb+kc], g.packed, g.offB+k0+(n0+j+i)*g.csb)
			}
		}
		kn.packPanel(s.b[j*kc:j*kc+wide*kc], wide, src, rsb, csb, kc, w)
	}
}

// unpackRows is packB for a packed b whose rows lie together.
func (kn *kernels) unpackRows(s *scratch, g *gemmArgs, k0, kc, n0, nc int) {
	s.plain = grow(s.plain, nc)
	for p := range kc {
		kn.unpack(s.plain, g.packed, g.offB+(k0+p)*g.rsb+n0)
		for j := 0; j < nc; j += kn.nr {
			w := min(kn.nr, nc-j)
			wide := kn.fit(1, w).cols
			row := s.b[j*kc+p*wide:][:wide]
			clear(row[copy(row, s.plain[j:j+w]):])
		}
	}
}

// packPanel packs w columns of src into kc rows of wide values.
func (kn *kernels) packPanel(dst []float32, wide int, src []float32, rsb, csb, kc, w int) {
	at := 0
	for rsb == 1 && at+kn.panel <= w {
		kn.transpose(dst[at:], wide, src[at*csb:], csb, kc)
		at += kn.panel
	}
	for rsb != 1 && csb == 1 && at+kn.panel <= w {
		kn.packRows(dst[at:], wide, src[at:], rsb, kc)
		at += kn.panel
	}
	if at == wide {
		return
	}
	for p := range kc {
		row := dst[p*wide : (p+1)*wide]
		clear(row[w:])
		for i := at; i < w; i++ {
			row[i] = src[p*rsb+i*csb]
		}
	}
}

// aliased reports whether rows so far apart fall on each other in the
// first-level cache, where those of a tile are read together.
func aliased(stride int) bool { return stride%512 == 0 }

// rowGap is added to the length of rows copied by packA, so that they do not
// fall on each other.
const rowGap = 16

// packA copies what of a cannot be read where it lies: all if its rows are not
// contiguous (as slivers of mr columns of the transposed a, element (r, p) at
// p*rows+r) or are aliased, else the last rows if they fill no tile. Sliver i
// starts at s.a[i*(kc+rowGap)].
func (kn *kernels) packA(s *scratch, g *gemmArgs, k0, kc, m0, mc int) {
	mr := kn.mr
	whole := mc / mr * mr
	ld := kc + rowGap
	s.a = grow(s.a, roundUp(mc, mr)*ld)
	if g.csa != 1 {
		kn.packColumns(s, g, k0, kc, m0, mc)
		return
	}
	first := whole
	if aliased(g.rsa) {
		first = 0
	} else if mc-whole == kn.fit(mc-whole, 1).rows {
		return
	}
	for i := first; i < mc; i++ {
		at := (m0+i)*g.rsa + k0
		copy(s.a[i*ld:i*ld+kc], g.a[at:at+kc])
	}
	if whole < mc {
		clear(s.a[mc*ld : (whole+kn.fit(mc-whole, 1).rows)*ld])
	}
}

// packColumns packs a whose columns are contiguous, one after the other, which
// touches fewer pages than packing sliver by sliver.
func (kn *kernels) packColumns(s *scratch, g *gemmArgs, k0, kc, m0, mc int) {
	mr, ld := kn.mr, kc+rowGap
	whole := mc / mr * mr
	h := mc - whole
	tail := kn.fit(h, 1).rows
	for p := range kc {
		src := g.a[m0*g.rsa+(k0+p)*g.csa:]
		i := 0
		switch {
		case g.rsa == 1 && mr == 12:
			for ; i < whole; i += 12 {
				*(*[12]float32)(s.a[i*ld+p*12:]) = *(*[12]float32)(src[i:])
			}
		case g.rsa == 1 && mr == 6:
			for ; i < whole; i += 6 {
				*(*[6]float32)(s.a[i*ld+p*6:]) = *(*[6]float32)(src[i:])
			}
		default:
			for ; i < whole; i += mr {
				for r := range mr {
					s.a[i*ld+p*mr+r] = src[(i+r)*g.rsa]
				}
			}
		}
		if h > 0 {
			dst := s.a[whole*ld+p*tail:][:tail]
			for r := range h {
				dst[r] = src[(whole+r)*g.rsa]
			}
			clear(dst[h:])
		}
	}
}

// block multiplies a packed block of b with a block of a.
func (kn *kernels) block(s *scratch, g *gemmArgs, k0, kc, n0, nc, m0, mc int, direct bool) {
	add := g.add || k0 > 0
	copied := g.csa == 1 && aliased(g.rsa)
	for j := 0; j < nc; j += kn.nr {
		w := min(kn.nr, nc-j)
		for i := 0; i < mc; i += kn.mr {
			h := min(kn.mr, mc-i)
			t := kn.fit(h, w)
			panel, ldb := s.b[j*kc:], t.cols
			if direct && w == t.cols {
				panel, ldb = g.b[k0*g.rsb+n0+j:], g.rsb
			}
			a, rsa, csa := g.a, g.rsa, 1
			switch {
			case g.csa != 1:
				a, rsa, csa = s.a[i*(kc+rowGap):], 1, t.rows
			case copied || h < t.rows:
				a, rsa = s.a[i*(kc+rowGap):], kc+rowGap
			default:
				a = a[(m0+i)*rsa+k0:]
			}
			c := g.c[(m0+i)*g.ldc+n0+j:]
			if w == t.cols && h == t.rows {
				t.fn(kc, a, rsa, csa, panel, ldb, c, g.ldc, g.alpha, add)
				continue
			}
			t.fn(kc, a, rsa, csa, panel, ldb, s.edge, t.cols, g.alpha, false)
			storeEdge(c, g.ldc, s.edge, t.cols, h, w, add)
		}
	}
}
