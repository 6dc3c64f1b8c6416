package cpu

import "math"

// portable are the kernels in Go. They are also what the kernels in assembly
// are tested against.
var portable = kernels{
	name: "portable",
	mr:   4, nr: 4,
	tiles:     []tile{{4, 4, tileGo}},
	panel:     4,
	transpose: transposeGo,
	packRows:  packRowsGo,
	widen:     widenGo,

	halfTiles:      []halfTile{{4, 4, halfTileGo}},
	transposePairs: transposePairsGo,
	interleave:     interleaveGo,
	narrow:         narrowGo,

	dot:         dotGo,
	dot3:        dot3Go,
	maximum:     maximumGo,
	add:         addGo,
	axpy:        axpyGo,
	scale:       scaleGo,
	mulScale:    mulScaleGo,
	normBack:    normBackGo,
	expSum:      expSumGo,
	softmaxBack: softmaxBackGo,
	swiglu:      swigluGo,
	swigluBack:  swigluBackGo,
	normal:      normalGo,
	logistic:    logisticGo,
	rotate:      rotateGo,
	adamw:       adamwGo,
}

// tileGo keeps the tile in 16 variables, because a compiler keeps those, but not
// an array, in registers.
func tileGo(k int, a []float32, rsa, csa int, b []float32, ldb int, c []float32, ldc int, alpha float32, add bool) {
	var c00, c01, c02, c03 float32
	var c10, c11, c12, c13 float32
	var c20, c21, c22, c23 float32
	var c30, c31, c32, c33 float32
	a0, a1, a2, a3 := a, a[rsa:], a[2*rsa:], a[3*rsa:]
	for p, q := 0, 0; p < k*csa; p, q = p+csa, q+ldb {
		r := (*[4]float32)(b[q:])
		b0, b1, b2, b3 := r[0], r[1], r[2], r[3]
		x := a0[p]
		c00 += x * b0
		c01 += x * b1
		c02 += x * b2
		c03 += x * b3
		x = a1[p]
		c10 += x * b0
		c11 += x * b1
		c12 += x * b2
		c13 += x * b3
		x = a2[p]
		c20 += x * b0
		c21 += x * b1
		c22 += x * b2
		c23 += x * b3
		x = a3[p]
		c30 += x * b0
		c31 += x * b1
		c32 += x * b2
		c33 += x * b3
	}
	for i, t := range [4][4]float32{
		{c00, c01, c02, c03},
		{c10, c11, c12, c13},
		{c20, c21, c22, c23},
		{c30, c31, c32, c33},
	} {
		row := (*[4]float32)(c[i*ldc:])
		for j, v := range t {
			v *= alpha
			if add {
				v += row[j]
			}
			row[j] = v
		}
	}
}

func transposeGo(dst []float32, ldd int, src []float32, ld, k int) {
	for j := range 4 {
		for p, v := range src[j*ld : j*ld+k] {
			dst[p*ldd+j] = v
		}
	}
}

func packRowsGo(dst []float32, ldd int, src []float32, ld, k int) {
	for p := range k {
		*(*[4]float32)(dst[p*ldd:]) = *(*[4]float32)(src[p*ld:])
	}
}

func widenGo(dst []float32, src []uint16) {
	dst = dst[:len(src)]
	for i, v := range src {
		dst[i] = math.Float32frombits(uint32(v) << 16)
	}
}

func dotGo(x, y []float32) float32 {
	var s [4]float32
	y = y[:len(x)]
	i := 0
	for ; i+4 <= len(x); i += 4 {
		s[0] += x[i] * y[i]
		s[1] += x[i+1] * y[i+1]
		s[2] += x[i+2] * y[i+2]
		s[3] += x[i+3] * y[i+3]
	}
	for ; i < len(x); i++ {
		s[0] += x[i] * y[i]
	}
	return (s[0] + s[1]) + (s[2] + s[3])
}

func dot3Go(x, y, z []float32) float32 {
	var s [2]float32
	y, z = y[:len(x)], z[:len(x)]
	i := 0
	for ; i+2 <= len(x); i += 2 {
		s[0] += x[i] * y[i] * z[i]
		s[1] += x[i+1] * y[i+1] * z[i+1]
	}
	for ; i < len(x); i++ {
		s[0] += x[i] * y[i] * z[i]
	}
	return s[0] + s[1]
}

func maximumGo(x []float32) float32 {
	m := float32(math.Inf(-1))
	for _, v := range x {
		if v > m || v != v {
			m = v
		}
		if m != m {
			break
		}
	}
	return m
}

func addGo(dst, src []float32) {
	src = src[:len(dst)]
	for i := range dst {
		dst[i] += src[i]
	}
}

func axpyGo(dst, src []float32, a float32) {
	src = src[:len(dst)]
	for i := range dst {
		dst[i] += a * src[i]
	}
}

func scaleGo(dst []float32, a float32) {
	for i := range dst {
		dst[i] *= a
	}
}

func mulScaleGo(dst, x, y []float32, a float32) {
	x, y = x[:len(dst)], y[:len(dst)]
	for i := range dst {
		dst[i] = x[i] * a * y[i]
	}
}

func normBackGo(dx, dy, w, x []float32, a, b float32) {
	dy, w, x = dy[:len(dx)], w[:len(dx)], x[:len(dx)]
	for i := range dx {
		dx[i] += a*dy[i]*w[i] - b*x[i]
	}
}

func expSumGo(dst, src []float32, shift float32) float32 {
	src = src[:len(dst)]
	sum := float32(0)
	for i := range dst {
		e := exp32(src[i] - shift)
		dst[i] = e
		sum += e
	}
	return sum
}

func softmaxBackGo(d, p []float32, mean, scale float32) {
	p = p[:len(d)]
	for i := range d {
		d[i] = p[i] * (d[i] - mean) * scale
	}
}

func swigluGo(out, gate, up []float32) {
	gate, up = gate[:len(out)], up[:len(out)]
	for i := range out {
		g := gate[i]
		out[i] = g / (1 + exp32(-g)) * up[i]
	}
}

func swigluBackGo(dout, gate, up []float32) {
	gate, up = gate[:len(dout)], up[:len(dout)]
	for i, d := range dout {
		g, u := gate[i], up[i]
		s := 1 / (1 + exp32(-g))
		gate[i] = d * u * s * (1 + g*(1-s))
		up[i] = d * g * s
	}
}

func rotateGo(x, y, cos, sin []float32, sign float32) {
	y, cos, sin = y[:len(x)], cos[:len(x)], sin[:len(x)]
	for j := range x {
		a, b, c, s := x[j], y[j], cos[j], sign*sin[j]
		x[j] = a*c - b*s
		y[j] = b*c + a*s
	}
}

func adamwGo(p, g, m, v []float32, c *adamConsts) {
	g, m, v = g[:len(p)], m[:len(p)], v[:len(p)]
	for i := range p {
		gi := g[i] * c[adamGradScale]
		m[i] = c[adamBeta1]*m[i] + c[adamRest1]*gi
		v[i] = c[adamBeta2]*v[i] + c[adamRest2]*(gi*gi)
		den := float32(math.Sqrt(float64(v[i])))*c[adamRoot] + c[adamEpsilon]
		p[i] = p[i]*c[adamDecay] - c[adamStep]*(m[i]/den)
	}
}

// Constants of exp32: the range in which 2^n is a normal number, log2(e), ln 2
// in two parts, and a minimax polynomial for (e^r - 1 - r) / r^2 on
// |r| <= ln(2)/2.
const (
	expLow   = -87.33654
	expHigh  = 88.37626
	expLog2e = 1.44269504
	expLn2Hi = 0.693359375
	expLn2Lo = -2.12194440e-4
	expC0    = 1.9875691500e-4
	expC1    = 1.3981999507e-3
	expC2    = 8.3334519073e-3
	expC3    = 4.1665795894e-2
	expC4    = 1.6666665459e-1
	expC5    = 5.0000001201e-1
)

// exp32 is e^x to about 1e-7 of itself. Below expLow it gives e^expLow, above
// expHigh e^expHigh; NaN stays NaN.
func exp32(x float32) float32 {
	if x < expLow {
		x = expLow
	}
	if x > expHigh {
		x = expHigh
	}
	if x != x {
		return x
	}
	n := float32(math.RoundToEven(float64(x * expLog2e)))
	r := x - n*expLn2Hi - n*expLn2Lo
	y := float32(expC0)
	y = y*r + expC1
	y = y*r + expC2
	y = y*r + expC3
	y = y*r + expC4
	y = y*r + expC5
	y = y*r*r + r + 1
	return y * math.Float32frombits(uint32(int32(n)+127)<<23)
}
