package fold

import "math/bits"

// divider divides by a number that stays the same, as Granlund and Montgomery
// do it: by a multiplication with the rounded-up reciprocal.
//
// For d < 2^31 and l with 2^(l-1) < d <= 2^l, reciprocal is floor(2^(63+l)/d)+1
// and below 2^64, and for every u < 2^63 the quotient floor(u/d) is
// reciprocal*u >> (63+l). A signed dividend is first made positive by adding
// d * 2^31, which makes the division floor, not truncate.
type divider struct {
	bias       uint64
	reciprocal uint64
	shift      int
}

// newDivider returns the divider by d, of 2 to 2^31.
func newDivider(d uint64) divider {
	l := bits.Len64(d - 1)
	q, _ := bits.Div64(1<<(l-1), 0, d)
	return divider{bias: d << 31, reciprocal: q + 1, shift: l - 1}
}

// floor returns a / d rounded down. |a| must be below d * 2^31 and 2^62.
func (v divider) floor(a int64) int64 {
	hi, _ := bits.Mul64(v.reciprocal, uint64(a)+v.bias)
	return int64(hi>>v.shift) - 1<<31
}
