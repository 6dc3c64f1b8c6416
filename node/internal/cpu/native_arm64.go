package cpu

// tileNEON is tile.fn for tiles of 6 by 16. Its sums have the bits of those for
// AVX2.
//
//go:noescape
func tileNEON(k int, a []float32, rsa int, csa int, b []float32, ldb int, c []float32, ldc int, alpha float32, add bool)

// widenNEON is kernels.widen for a multiple of 8 values.
//
//go:noescape
func widenNEON(dst []float32, src []uint16)

// native returns the sets of kernels that this processor runs, the fastest
// last. What is not a matrix product is in Go. (So are products of bfloat16
// values, whose tiles are narrower than a panel, so that transposePairs and
// interleave have nothing to do.)
func native() []kernels {
	k := portable
	k.name, k.mr, k.nr = "neon", 6, 16
	k.tiles = []tile{{6, 16, tileNEON}}
	k.panel, k.transpose, k.packRows, k.widen = 16, transpose16, packRows16, widen8
	return []kernels{k}
}

func transpose16(dst []float32, ldd int, src []float32, ld, k int) {
	for j := range 16 {
		for p, v := range src[j*ld : j*ld+k] {
			dst[p*ldd+j] = v
		}
	}
}

func packRows16(dst []float32, ldd int, src []float32, ld, k int) {
	for p := range k {
		*(*[16]float32)(dst[p*ldd:]) = *(*[16]float32)(src[p*ld:])
	}
}

// widen8 leaves what is no multiple of 8 to Go.
func widen8(dst []float32, src []uint16) {
	whole := len(src) &^ 7
	widenNEON(dst[:whole], src[:whole])
	widenGo(dst[whole:], src[whole:])
}
