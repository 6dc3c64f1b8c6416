package safetensors

import (
	"encoding/binary"
	"math"
)

// DecodeFloats converts little-endian elements of type d, which is F32, BF16 or
// F16, to float32.
func DecodeFloats(dst []float32, src []byte, d DType) {
	switch d {
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case BF16:
		for i := range dst {
			dst[i] = BF16ToFloat32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case F16:
		for i := range dst {
			dst[i] = F16ToFloat32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	default:
		panic("bug: decode of " + d)
	}
}

// AppendFloats appends values as little-endian elements of type d, which is
// F32, BF16 or F16, rounded to the nearest, ties to even.
func AppendFloats(b []byte, values []float32, d DType) []byte {
	for _, v := range values {
		switch d {
		case F32:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		case BF16:
			b = binary.LittleEndian.AppendUint16(b, Float32ToBF16(v))
		case F16:
			b = binary.LittleEndian.AppendUint16(b, Float32ToF16(v))
		default:
			panic("bug: encode of " + d)
		}
	}
	return b
}

func isFloat(d DType) bool { return d == F32 || d == BF16 || d == F16 }

// BF16ToFloat32 widens a bfloat16, exactly.
func BF16ToFloat32(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// Float32ToBF16 rounds to the nearest bfloat16, ties to even.
func Float32ToBF16(f float32) uint16 {
	u := math.Float32bits(f)
	if f != f {
		return uint16(u>>16) | 0x40 // stay a NaN when the low half is dropped
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

// F16ToFloat32 widens a half-precision number, exactly.
func F16ToFloat32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp, frac := uint32(h>>10&31), uint32(h&0x3ff)
	switch exp {
	case 0: // zero or subnormal: a multiple of 2^-24
		return math.Float32frombits(sign | math.Float32bits(float32(frac)*0x1p-24))
	case 31:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// Float32ToF16 rounds to the nearest half-precision number, ties to even; what
// is too large becomes infinite.
func Float32ToF16(f float32) uint16 {
	u := math.Float32bits(f)
	sign, u := uint16(u>>16&0x8000), u&0x7fffffff
	switch {
	case u > 0x7f800000:
		return sign | 0x7e00 | uint16(u>>13&0x3ff)
	case u >= 0x47800000: // 65536 and above
		return sign | 0x7c00
	case u < 0x38800000: // below 2^-14: subnormal
		// Adding a half shifts the number so that its last bit is 2^-24, and
		// the addition rounds.
		return sign | uint16(math.Float32bits(math.Float32frombits(u)+0.5)-math.Float32bits(0.5))
	}
	// A carry out of the fraction makes the next exponent, up to infinity.
	return sign | uint16((u-112<<23+0xfff+u>>13&1)>>13)
}
