package cpu

import "golang.org/x/sys/cpu"

//go:generate go run ./asm -out kernels_amd64.s -stubs kernels_amd64.go -pkg cpu

var avx2 = kernels{
	name: "avx2",
	mr:   6, nr: 16,
	tile:        tileAVX2,
	transpose:   transpose16,
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

// native returns the fastest kernels that this processor runs, or nil.
func native() *kernels {
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		return &avx2
	}
	return nil
}

// transpose16 leaves what is no multiple of 8 to Go.
func transpose16(dst, src []float32, ld, k int) {
	whole := k &^ 7
	transposeAVX2(dst, src, ld, whole)
	for p := whole; p < k; p++ {
		for j := range 16 {
			dst[p*16+j] = src[j*ld+p]
		}
	}
}
