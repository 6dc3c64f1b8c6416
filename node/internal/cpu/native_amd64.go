package cpu

import "golang.org/x/sys/cpu"

//go:generate go run ./asm -out kernels_amd64.s -stubs kernels_amd64.go -pkg cpu

var avx2 = kernels{
	name: "avx2",
	mr:   6, nr: 16,
	tiles:     []tile{{6, 16, tileAVX2}},
	panel:     16,
	transpose: transpose16,
	packRows:  packRowsAVX2,
	widen:     widen8,

	halfTiles:      []halfTile{{4, 16, halfTileAVX2}},
	transposePairs: transposePairs16,
	interleave:     interleaveAVX2,
	narrow:         narrow16,

	dot:         dotAVX2,
	dot3:        dot3AVX2,
	maximum:     maximumAVX2,
	add:         addAVX2,
	axpy:        axpyAVX2,
	scale:       scaleAVX2,
	mulScale:    mulScaleAVX2,
	normBack:    normBackAVX2,
	expSum:      expSumAVX2,
	softmaxBack: softmaxBackAVX2,
	swiglu:      swigluAVX2,
	swigluBack:  swigluBackAVX2,
	normal:      normalAVX2,
	logistic:    logisticAVX2,
	rotate:      rotateAVX2,
	adamw:       adamwAVX2,
}

// tiles512 need AVX-512. The other kernels are those for AVX2: they are a small
// part of the time, and so the bits are the same with both.
var tiles512 = []tile{
	{4, 8, tile4x8},
	{8, 8, tile8x8},
	{12, 8, tile12x8},
	{4, 16, tile4x16},
	{8, 16, tile8x16},
	{12, 16, tile12x16},
	{4, 32, tile4x32},
	{8, 32, tile8x32},
	{12, 32, tile12x32},
}

// halfTiles512 need AVX512_BF16.
var halfTiles512 = []halfTile{
	{4, 16, halfTile4x16},
	{8, 16, halfTile8x16},
	{12, 16, halfTile12x16},
	{4, 32, halfTile4x32},
	{8, 32, halfTile8x32},
	{12, 32, halfTile12x32},
}

// native returns the sets of kernels that this processor runs, the fastest
// last.
func native() []kernels {
	if !cpu.X86.HasAVX2 || !cpu.X86.HasFMA {
		return nil
	}
	sets := []kernels{avx2}
	if cpu.X86.HasAVX512F {
		k := avx2
		k.name, k.mr, k.nr, k.tiles = "avx512", 12, 32, tiles512
		k.halfTiles = []halfTile{{4, 16, halfTile4x16AVX512}, {8, 16, halfTile8x16AVX512}, {4, 32, halfTile4x32AVX512}, {8, 32, halfTile8x32AVX512}}
		sets = append(sets, k)
		if cpu.X86.HasAVX512BF16 && cpu.X86.HasAVX512VL {
			k.name, k.halfTiles, k.narrow, k.fastHalf = "avx512bf16", halfTiles512, narrow512, true
			sets = append(sets, k)
		}
	}
	return sets
}

// transpose16 leaves what is no multiple of 8 to Go.
func transpose16(dst []float32, ldd int, src []float32, ld, k int) {
	whole := k &^ 7
	transposeAVX2(dst, ldd, src, ld, whole)
	for p := whole; p < k; p++ {
		for j := range 16 {
			dst[p*ldd+j] = src[j*ld+p]
		}
	}
}

// transposePairs16 leaves what is no multiple of 8 to Go.
func transposePairs16(dst []uint16, ldd int, src []uint16, ld, k int) {
	whole := k &^ 7
	transposePairsAVX2(dst, ldd, src, ld, whole)
	for p := whole; p < k; p++ {
		for j := range 16 {
			dst[p*ldd+2*j], dst[p*ldd+2*j+1] = src[j*ld+2*p], src[j*ld+2*p+1]
		}
	}
}

// narrow16 and narrow512 leave what is no multiple of 16 to Go.
func narrow16(dst []uint16, src []float32) {
	whole := len(src) &^ 15
	narrowAVX2(dst[:whole], src[:whole])
	narrowGo(dst[whole:], src[whole:])
}

func narrow512(dst []uint16, src []float32) {
	whole := len(src) &^ 15
	narrowBF16(dst[:whole], src[:whole])
	narrowGo(dst[whole:], src[whole:])
}

// widen8 leaves what is no multiple of 8 to Go.
func widen8(dst []float32, src []uint16) {
	whole := len(src) &^ 7
	widenAVX2(dst[:whole], src[:whole])
	widenGo(dst[whole:], src[whole:])
}
