package cpu

// kernels is a set of inner loops. Slices that are read and written together
// have the same length unless said otherwise; none may be empty in assembly's
// view, where a length of 0 does nothing.
type kernels struct {
	name   string
	mr, nr int // the tile that tile computes

	// tile adds alpha times the product of an (mr,k) and a (k,nr) matrix to a
	// tile of c with rows ldc apart, or sets it if add is false. Element
	// (i, p) of a is a[i*rsa+p*csa], rows of b are ldb apart.
	tile func(k int, a []float32, rsa, csa int, b []float32, ldb int, c []float32, ldc int, alpha float32, add bool)
	// transpose writes src, nr rows of k values ld apart, as k rows of nr
	// values to dst.
	transpose func(dst, src []float32, ld, k int)

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
	// rotate turns the pairs (x[j], y[j]) by angles given by cos and sin,
	// times sign
	rotate func(x, y, cos, sin []float32, sign float32)
	adamw  func(p, g, m, v []float32, c *adamConsts)
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
