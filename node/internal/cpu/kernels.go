package cpu

// kernels is a set of inner loops. Slices that are read and written together
// have the same length unless said otherwise; none may be empty in assembly's
// view, where a length of 0 does nothing.
type kernels struct {
	name   string
	mr, nr int    // the largest tile
	tiles  []tile // by cols, then rows, both ascending; the last one is (mr,nr)

	// panel is how many columns transpose and packRows take at once.
	panel int
	// transpose writes src, panel rows of k values ld apart, as k rows of panel
	// values ldd apart to dst.
	transpose func(dst []float32, ldd int, src []float32, ld, k int)
	// packRows copies k rows of panel values, ld apart, to rows ldd apart.
	packRows func(dst []float32, ldd int, src []float32, ld, k int)
	// widen sets dst to the bfloat16 values of src.
	widen func(dst []float32, src []uint16)

	halfTiles []halfTile // as tiles
	// fastHalf says that there are instructions for products of bfloat16 values.
	fastHalf bool
	// transposePairs writes src, panel rows of k pairs, ld values apart, as k
	// rows of panel pairs, ldd values apart, to dst.
	transposePairs func(dst []uint16, ldd int, src []uint16, ld, k int)
	// interleave writes src, k pairs of rows of panel values, ld apart, as k rows
	// of panel pairs, ldd values apart, to dst.
	interleave func(dst []uint16, ldd int, src []uint16, ld, k int)
	// narrow sets dst to the values of src, rounded to bfloat16; denormal numbers
	// become zeros.
	narrow func(dst []uint16, src []float32)

	dot      func(x, y []float32) float32
	dot3     func(x, y, z []float32) float32 // sum of x*y*z
	maximum  func(x []float32) float32       // NaN if one of x is
	add      func(dst, src []float32)        // dst += src
	axpy     func(dst, src []float32, a float32)
	scale    func(dst []float32, a float32)
	mulScale func(dst, x, y []float32, a float32) // dst = x*y*a
	// normBack: dx += a*dy*w - b*x
	normBack func(dx, dy, w, x []float32, a, b float32)
	// expSum: dst = exp(src-shift); returns the sum of dst
	expSum func(dst, src []float32, shift float32) float32
	// softmaxBack: d = p * (d - mean) * scale
	softmaxBack func(d, p []float32, mean, scale float32)
	swiglu      func(out, gate, up []float32)
	swigluBack  func(dout, gate, up []float32)
	// normal sets p to the normal distribution function of x and q to x times
	// its derivative; logistic does so with the logistic function of geluA*x +
	// geluB*x^3.
	normal, logistic func(p, q, x []float32)
	// rotate turns the pairs (x[j], y[j]) by angles given by cos and sin,
	// times sign
	rotate func(x, y, cos, sin []float32, sign float32)
	adamw  func(p, g, m, v []float32, c *adamConsts)
}

// tile is an inner loop of the matrix product. fn adds alpha times the product
// of a (rows,k) and a (k,cols) matrix to a tile of c with rows ldc apart, or
// sets it if add is false. Element (i, p) of a is a[i*rsa+p*csa], rows of b are
// ldb apart. Each element is summed in the order of p, whatever the size of the
// tile.
type tile struct {
	rows, cols int
	fn         func(k int, a []float32, rsa, csa int, b []float32, ldb int, c []float32, ldc int, alpha float32, add bool)
}

// fit returns the smallest tile that holds rows by cols.
func (kn *kernels) fit(rows, cols int) *tile {
	for i := range kn.tiles {
		if t := &kn.tiles[i]; t.rows >= rows && t.cols >= cols {
			return t
		}
	}
	panic("bug: no tile")
}

// adamConsts are the scalars of an AdamW step.
type adamConsts = [9]float32

// The scalars, in the order in which the assembly reads them.
const (
	adamGradScale = iota
	adamDecay     // 1 - lr*weight decay
	adamBeta1
	adamRest1 // 1 - beta1
	adamBeta2
	adamRest2 // 1 - beta2
	adamStep  // lr / (1 - beta1^t)
	adamRoot  // 1 / sqrt(1 - beta2^t)
	adamEpsilon
)
