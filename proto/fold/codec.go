package fold

// maxCode returns the largest level of a codec: levels are odd numbers, -1 and
// 1, or -3 to 3, or -15 to 15, but for 8 bits every integer of -127 to 127. A
// value is its level times the scale of its chunk.
func maxCode(bits int) int64 {
	if bits == 8 {
		return 127
	}
	return 1<<bits - 1
}

// level returns the level of a code of bits bits.
func level(bits int, code uint8) int64 {
	if bits == 8 {
		return int64(int8(code))
	}
	return 2*int64(code) - maxCode(bits)
}

// codeOf is the inverse of level.
func codeOf(bits int, level int64) uint8 {
	if bits == 8 {
		return uint8(int8(level))
	}
	return uint8((level + maxCode(bits)) / 2)
}

func validBits(bits int) bool { return bits == 1 || bits == 2 || bits == 4 || bits == 8 }

// chunkBytes returns the bytes of the codes of n values.
func chunkBytes(n, bits int) int { return (n*bits + 7) / 8 }

// scale is mantissa * 2^exponent. It is canonical when the exponent is 0 or
// the mantissa has its top bit.
type scale struct {
	mantissa uint16
	exponent uint8
}

// scaleBytes is the length of an encoded scale.
const scaleBytes = 3

// value returns the scale as an integer. It is only defined for a valid scale.
func (s scale) value() int64 { return int64(s.mantissa) << s.exponent }

// valid reports whether s is canonical, and whether all values of the codec
// are at most maxValue.
func (s scale) valid(bits int) bool {
	if s.exponent > 15 || s.exponent > 0 && s.mantissa < 1<<15 {
		return false
	}
	return s.value()*maxCode(bits) <= maxValue
}

// nearestScale returns the largest valid scale that is at most v, or the next
// one when that is nearer.
func nearestScale(v int64, bits int) scale {
	v = max(0, min(v, maxValue/maxCode(bits)))
	var s scale
	for v>>s.exponent >= 1<<16 {
		s.exponent++
	}
	rounded := v
	if s.exponent > 0 {
		rounded += 1 << (s.exponent - 1)
	}
	if rounded>>s.exponent >= 1<<16 || rounded>>s.exponent<<s.exponent*maxCode(bits) > maxValue {
		rounded = v
	}
	s.mantissa = uint16(rounded >> s.exponent)
	return s
}

// squares returns, for each byte of codes, the sum of the squares of their
// levels.
func squares(bits int) *[256]int64 {
	var t [256]int64
	for b := range t {
		for shift := 0; shift < 8; shift += bits {
			l := level(bits, uint8(b)>>shift&(1<<bits-1))
			t[b] += l * l
		}
	}
	return &t
}
