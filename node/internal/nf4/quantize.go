package nf4

import (
	"errors"
	"fmt"
	"math"
)

// BlockSize is the usual number of weights that share a scale.
const BlockSize = 64

// Code holds the values of the four-bit type: quantiles of the normal
// distribution, so that each is met about equally often.
var Code = [16]float32{
	-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
	-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0,
	0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
	0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
}

const (
	lowest, zero, highest = 0, 7, 15 // indices in Code
	infinity              = 0x7f800000
)

// ErrNotFinite is returned for weights among which is an infinity or a NaN.
var ErrNotFinite = errors.New("a weight is not finite")

// limits[i] is the largest float32 that is not nearer to Code[i+1] than to
// Code[i]. The last one is never passed.
var limits = [16]float32{
	-0.84809643, -0.61063296, -0.45999527, -0.33967945, -0.23460741, -0.13791174, -0.045525018, 0.03979015,
	0.12025525, 0.20352125, 0.29201376, 0.38931254, 0.5016634, 0.6427869, 0.8614784, math.MaxFloat32,
}

// fewer says for each sixteenth of -1 to 1 how many limits are in lower
// sixteenths. No sixteenth has two limits, so that one comparison decides.
var fewer = [64]uint8{
	0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 6, 7,
	8, 9, 9, 10, 11, 11, 12, 12, 13, 13, 14, 14, 14, 15, 15, 15,
}

// nearest returns the index of the code nearest to x, the lower of two. The
// magnitude of x is at most a little more than 1.
func nearest(x float32) uint8 {
	i := fewer[int32((x+1)*16)&63]
	var above uint8 // without a branch, which would be guessed wrong half the time
	if x > limits[i&15] {
		above = 1
	}
	return i + above
}

// CheckBlockSize returns an error for a block size that is not one of
// bitsandbytes': a power of two from 32 to 4096.
func CheckBlockSize(n int) error {
	if n < 32 || n > 4096 || n&(n-1) != 0 {
		return fmt.Errorf("nf4: blocks of %d weights, want a power of two from 32 to 4096", n)
	}
	return nil
}

// Blocks returns how many blocks n values make, the last of which may be
// shorter.
func Blocks(n, blockSize int) int { return (n + blockSize - 1) / blockSize }

// PackedSize returns the bytes of n packed weights.
func PackedSize(n int) int { return (n + 1) / 2 }

// AbsMax sets dst to the largest magnitude of each block of src.
func AbsMax(dst, src []float32, blockSize int) error {
	if len(dst) != Blocks(len(src), blockSize) {
		panic("bug: nf4.AbsMax: wrong number of blocks")
	}
	for b := range dst {
		top := absMax(src[b*blockSize : min(len(src), (b+1)*blockSize)])
		if top >= infinity {
			return ErrNotFinite
		}
		dst[b] = math.Float32frombits(top)
	}
	return nil
}

// absMax returns the bits of the largest magnitude; positive floats are in
// the order of their bits.
func absMax(block []float32) uint32 {
	top := uint32(0)
	for _, v := range block {
		top = max(top, math.Float32bits(v)&0x7fffffff)
	}
	return top
}

// Quantize packs src into dst, two values a byte, the first in the high four
// bits, and sets absmax to the largest magnitude of each block. A long tensor
// may be quantised in parts if every part but the last is whole blocks. When
// the number of values is odd the last four bits stand for zero.
func Quantize(dst []byte, absmax, src []float32, blockSize int) error {
	if len(dst) != PackedSize(len(src)) {
		panic("bug: nf4.Quantize: wrong size of the result")
	}
	if err := AbsMax(absmax, src, blockSize); err != nil {
		return err
	}
	for b, scale := range absmax {
		block := src[b*blockSize : min(len(src), (b+1)*blockSize)]
		pack(dst[b*blockSize/2:], block, scale)
	}
	return nil
}

func pack(dst []byte, block []float32, scale float32) {
	n := len(block) / 2
	inverse := 1 / scale
	if math.Float32bits(inverse) >= infinity { // nothing but zeros, or so small that only signs are left
		for i := range PackedSize(len(block)) {
			dst[i] = sign(block[2*i])<<4 | zero
			if 2*i+1 < len(block) {
				dst[i] = sign(block[2*i])<<4 | sign(block[2*i+1])
			}
		}
		return
	}
	dst = dst[:PackedSize(len(block))]
	for i := range n {
		pair := block[2*i : 2*i+2]
		// The conversions keep products from being fused with sums.
		dst[i] = nearest(float32(pair[0]*inverse))<<4 | nearest(float32(pair[1]*inverse))
	}
	if len(block)%2 == 1 {
		dst[n] = nearest(float32(block[2*n]*inverse))<<4 | zero
	}
}

func sign(x float32) uint8 {
	switch {
	case x > 0:
		return highest
	case x < 0:
		return lowest
	}
	return zero
}
