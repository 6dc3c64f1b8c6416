package fold

import (
	"math/bits"
	"slices"
)

// maxValue bounds parameters, momentum and decoded values. The smallest int32
// is not a value, so that every value has a negative.
const maxValue = 1<<31 - 1

// saturate is the defined end of the range: what does not fit stays at it.
func saturate(v int64) int32 {
	return int32(max(-maxValue, min(maxValue, v)))
}

// mulQ16 multiplies by a factor in Q16 and rounds to the nearest, halves up.
func mulQ16(v int64, q16 uint32) int64 {
	return (v*int64(q16) + One/2) >> 16
}

// wide is an unsigned integer of 128 bits.
type wide struct{ hi, lo uint64 }

func (a wide) add(b wide) wide {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	hi, _ := bits.Add64(a.hi, b.hi, carry)
	return wide{hi, lo}
}

func mulWide(a, b uint64) wide {
	hi, lo := bits.Mul64(a, b)
	return wide{hi, lo}
}

// isqrt returns the largest integer whose square is at most a.
func isqrt(a wide) uint64 {
	var root uint64
	for bit := uint64(1) << 63; bit > 0; bit >>= 1 {
		next := root | bit
		sq := mulWide(next, next)
		if sq.hi < a.hi || sq.hi == a.hi && sq.lo <= a.lo {
			root = next
		}
	}
	return root
}

// Sqrt returns the largest integer whose square is at most a.
func Sqrt(a uint64) uint64 { return isqrt(wide{lo: a}) }

// median sorts list, which must not be empty, and returns its middle, of two
// middles the larger. Fewer than half of the peers cannot raise it above, nor
// lower it below, what all others sent.
func median(list []uint64) uint64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// divSmall divides by n, which must not be 0.
func divSmall(a wide, n uint64) wide {
	hi, rem := a.hi/n, a.hi%n
	lo, _ := bits.Div64(rem, a.lo, n)
	return wide{hi, lo}
}
