package fold

import (
	"encoding/binary"
	"fmt"
)

// feedbackQ16 is the decay of the error feedback, 0.95: what is lost for good
// is old.
const feedbackQ16 = 62259

// Encode encodes values, the pseudo-gradient in units of 2^-26, with bits (1,
// 2, 4 or 8) for each value.
//
// residual is the error feedback, private to the peer: nil, or as long as
// values and zero at first. What is encoded is values + 0.95 residual, and
// residual becomes what the encoding lost of that.
//
// The scales are the encoder's choice, not a rule of the protocol.
func Encode(l *Layout, bits int, values, residual []int32) ([]byte, error) {
	switch {
	case !validBits(bits):
		return nil, fmt.Errorf("encode delta: codec bits are %d, must be 1, 2, 4 or 8", bits)
	case len(values) != l.params:
		return nil, fmt.Errorf("encode delta: values are %d, must be %d", len(values), l.params)
	case residual != nil && len(residual) != l.params:
		return nil, fmt.Errorf("encode delta: residuals are %d, must be %d", len(residual), l.params)
	}
	out := make([]byte, 0, EncodedBytes(l, bits))
	out = appendDeltaHeader(out, l, bits)
	table := len(out)
	out = out[:table+scaleBytes*len(l.chunks)]
	var buf [ChunkValues]int64
	for i, c := range l.chunks {
		v := buf[:c.n]
		for j := range v {
			v[j] = int64(saturate(int64(values[c.start+j])))
			if residual != nil {
				v[j] = int64(saturate(v[j] + mulQ16(int64(residual[c.start+j]), feedbackQ16)))
			}
		}
		s := fitScale(v, bits)
		binary.LittleEndian.PutUint16(out[table+scaleBytes*i:], s.mantissa)
		out[table+scaleBytes*i+2] = s.exponent
		out = appendCodes(out, v, s.value(), bits)
		if residual != nil {
			for j := range v {
				residual[c.start+j] = saturate(v[j])
			}
		}
	}
	return out, nil
}

// appendCodes appends the codes nearest to v, and leaves in v what they lose.
func appendCodes(out []byte, v []int64, s int64, bits int) []byte {
	if s == 0 {
		return append(out, make([]byte, chunkBytes(len(v), bits))...)
	}
	for j := 0; j < len(v); {
		var b uint8
		for shift := 0; shift < 8 && j < len(v); shift += bits {
			l := nearestLevel(v[j], s, bits)
			b |= codeOf(bits, l) << shift
			v[j] -= l * s
			j++
		}
		out = append(out, b)
	}
	return out
}

// nearestLevel returns the level of the codec that is nearest to v / s.
func nearestLevel(v, s int64, bits int) int64 {
	a := max(v, -v)
	var l int64
	switch bits {
	case 1:
		l = 1
	case 2:
		l = 1
		if a > 2*s {
			l = 3
		}
	case 4:
		l = min(15, a/(2*s)*2+1)
	case 8:
		l = min(127, (a+s/2)/s)
	}
	if v < 0 {
		return -l
	}
	return l
}

// fitScale returns a scale with a small squared error: that of the codec for a
// normal distribution, then a few steps of the fixed point iteration of Lloyd
// for the scale alone. It returns zero when no scale is better than none.
func fitScale(v []int64, bits int) scale {
	var squares wide
	var largest int64
	for _, x := range v {
		a := max(x, -x)
		largest = max(largest, a)
		squares = squares.add(mulWide(uint64(a), uint64(a)))
	}
	if largest == 0 {
		return scale{}
	}
	// The sum is below 4096 * 2^62, and so is what becomes of it here.
	rms := int64(isqrt(divSmall(squares, uint64(len(v)))))
	s := nearestScale(firstScale(rms, largest, bits), bits)
	var dot, norm int64
	for range 4 {
		// Scales below 1 do not exist.
		s = nearestScale(max(s.value(), 1), bits)
		dot, norm = project(v, s.value(), bits)
		if norm == 0 {
			return scale{}
		}
		next := nearestScale((dot+norm/2)/norm, bits)
		if next == s {
			break
		}
		s = next
	}
	dot, norm = project(v, max(s.value(), 1), bits)
	if 2*dot <= max(s.value(), 1)*norm {
		return scale{} // the squared error is not below that of all zeros
	}
	return nearestScale(max(s.value(), 1), bits)
}

// firstScale is the step of the best uniform quantiser of a normal
// distribution: half of it where levels are odd.
func firstScale(rms, largest int64, bits int) int64 {
	switch bits {
	case 1:
		return mulQ16(rms, 52290) // 0.798
	case 2:
		return mulQ16(rms, 32636) // 0.498
	case 4:
		return mulQ16(rms, 10984) // 0.168
	default:
		return (largest + 126) / 127
	}
}

// project returns the sums of v * level and of level^2 over the nearest
// levels: below 2^31 * 127 * 4096 and 127^2 * 4096.
func project(v []int64, s int64, bits int) (dot, norm int64) {
	for _, x := range v {
		l := nearestLevel(x, s, bits)
		dot += x * l
		norm += l * l
	}
	return dot, norm
}
