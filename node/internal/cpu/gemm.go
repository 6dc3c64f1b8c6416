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
	c        []float32
	ldc      int
	alpha    float32
	add      bool
	dots     bool // compute scalar products; needs contiguous rows of a and columns of b
}

// MatMul sets c to the product of op(a) and op(b), or adds it.
func (b *Backend) MatMul(c, x, y tensor.Mat, o tensor.MatMul) {
	g := &b.gemm.args
	*g = gemmArgs{
		m: c.Rows, n: c.Cols, k: x.Cols,
		a: x.Host(), rsa: x.Stride, csa: 1,
		b: y.Host(), rsb: y.Stride, csb: 1,
		c: c.Host(), ldc: c.Stride,
		alpha: o.Alpha, add: o.Add,
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
	if o.TransA && g.n <= b.k.nr && g.m > 2*b.k.nr {
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
// own columns of b, but each packs a if a has to be packed; along m it is the
// other way around.
func (b *Backend) split() {
	t := &b.gemm
	g := &t.args
	t.mParts, t.nParts, t.mStep, t.nStep = 1, 1, g.m, g.n
	want := min(b.pool.threads, g.m*g.n*max(1, g.k)/minPiece)
	if want <= 1 {
		return
	}
	parts := want
	if g.csa == 1 {
		parts = 2 * want // for balance
	}
	if parts*b.k.nr <= g.n && (g.csa == 1 || g.n >= g.m) {
		t.nStep = roundUp(ceilDiv(g.n, parts), b.k.nr)
		t.nParts = ceilDiv(g.n, t.nStep)
		return
	}
	t.mStep = roundUp(ceilDiv(g.m, want), b.k.mr)
	t.mParts = ceilDiv(g.m, t.mStep)
}

func (t *gemmTask) piece(thread, i int) {
	s := &t.b.scratch[thread]
	g := &s.args
	*g = t.args
	m0, n0 := i/t.nParts*t.mStep, i%t.nParts*t.nStep
	g.m, g.n = min(t.mStep, g.m-m0), min(t.nStep, g.n-n0)
	if g.k > 0 {
		g.a, g.b = g.a[m0*g.rsa:], g.b[n0*g.csb:]
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
		kn.dots(g)
		return
	}
	s.edge = grow(s.edge, kn.mr*kn.nr)
	blocks := ceilDiv(g.k, maxKC)
	kStep := roundUp(ceilDiv(g.k, blocks), 8)
	for k0 := 0; k0 < g.k; k0 += kStep {
		kc := min(kStep, g.k-k0)
		for n0 := 0; n0 < g.n; n0 += maxNC {
			nc := min(maxNC, g.n-n0)
			direct := g.csb == 1 && g.m <= maxDirect
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
func (kn *kernels) dots(g *gemmArgs) {
	for j := range g.n {
		y := g.b[j*g.csb : j*g.csb+g.k]
		for i := range g.m {
			v := g.alpha * kn.dot(g.a[i*g.rsa:i*g.rsa+g.k], y)
			if g.add {
				v += g.c[i*g.ldc+j]
			}
			g.c[i*g.ldc+j] = v
		}
	}
}

// packB packs panels of nr columns. With direct only the last, narrower one is
// packed, because the others are read where they lie.
func (kn *kernels) packB(s *scratch, g *gemmArgs, k0, kc, n0, nc int, direct bool) {
	nr := kn.nr
	s.b = grow(s.b, roundUp(nc, nr)*kc)
	for j := 0; j < nc; j += nr {
		w := min(nr, nc-j)
		if direct && w == nr {
			continue
		}
		dst := s.b[j*kc : (j+nr)*kc]
		src := g.b[k0*g.rsb+(n0+j)*g.csb:]
		switch {
		case w == nr && g.rsb == 1:
			kn.transpose(dst, src, g.csb, kc)
		case w == nr && g.csb == 1 && nr == 16:
			for p := range kc {
				*(*[16]float32)(dst[p*16:]) = *(*[16]float32)(src[p*g.rsb:])
			}
		default:
			clear(dst)
			for p := range kc {
				for i := range w {
					dst[p*nr+i] = src[p*g.rsb+i*g.csb]
				}
			}
		}
	}
}

// packA packs slivers of mr rows: all of them if a's rows are not contiguous,
// else only the last one if it is not full. Sliver i starts at s.a[i*mr*kc];
// in it, element (r, p) is at p*mr+r.
func (kn *kernels) packA(s *scratch, g *gemmArgs, k0, kc, m0, mc int) {
	mr := kn.mr
	first := 0
	if g.csa == 1 {
		first = mc / mr * mr
	}
	if first == mc {
		return
	}
	s.a = grow(s.a, roundUp(mc, mr)*kc)
	if g.rsa == 1 && mr == 6 { // row by row of the transposed a, which touches fewer pages
		whole := mc / 6 * 6
		for p := range kc {
			src := g.a[m0+(k0+p)*g.csa:]
			for i := first; i < whole; i += 6 {
				*(*[6]float32)(s.a[i*kc+p*6:]) = *(*[6]float32)(src[i:])
			}
		}
		first = max(first, whole)
	}
	for i := first; i < mc; i += mr {
		h := min(mr, mc-i)
		dst := s.a[i*kc : (i+mr)*kc]
		src := g.a[(m0+i)*g.rsa+k0*g.csa:]
		if h < mr {
			clear(dst)
		}
		for p := range kc {
			for r := range h {
				dst[p*mr+r] = src[r*g.rsa+p*g.csa]
			}
		}
	}
}

// block multiplies a packed block of b with a block of a.
func (kn *kernels) block(s *scratch, g *gemmArgs, k0, kc, n0, nc, m0, mc int, direct bool) {
	mr, nr := kn.mr, kn.nr
	add := g.add || k0 > 0
	for j := 0; j < nc; j += nr {
		w := min(nr, nc-j)
		panel, ldb := s.b[j*kc:], nr
		if direct && w == nr {
			panel, ldb = g.b[k0*g.rsb+n0+j:], g.rsb
		}
		for i := 0; i < mc; i += mr {
			h := min(mr, mc-i)
			a, rsa, csa := g.a, g.rsa, g.csa
			if csa == 1 && h == mr {
				a = a[(m0+i)*rsa+k0:]
			} else {
				a, rsa, csa = s.a[i*kc:], 1, mr
			}
			c := g.c[(m0+i)*g.ldc+n0+j:]
			if w == nr && h == mr {
				kn.tile(kc, a, rsa, csa, panel, ldb, c, g.ldc, g.alpha, add)
				continue
			}
			kn.tile(kc, a, rsa, csa, panel, ldb, s.edge, nr, g.alpha, false)
			for r := range h {
				row := c[r*g.ldc : r*g.ldc+w]
				for q, v := range s.edge[r*nr : r*nr+w] {
					if add {
						v += row[q]
					}
					row[q] = v
				}
			}
		}
	}
}
