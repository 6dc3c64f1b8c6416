package cpu

import "golang.org/x/sys/cpu"

//go:generate go run ./asm -out kernels_amd64.s -stubs kernels_amd64.go -pkg cpu

var avx2 = kernels{
	name: "avx2",
	mr:   6, nr: 16,
	tiles:       []tile{{6, 16, tileAVX2}},
	panel:       16,
	transpose:   transpose16,
	packRows:    packRowsAVX2,
	widen:       widen8,
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
		sets = append(sets, k)
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

// widen8 leaves what is no multiple of 8 to Go.
func widen8(dst []float32, src []uint16) {
	whole := len(src) &^ 7
	widenAVX2(dst[:whole], src[:whole])
	widenGo(dst[whole:], src[whole:])
}
