package nf4

import "math"

// NestedBlockSize is the number of scales that share a scale of their own.
const NestedBlockSize = 256

const zeroScale = 127 // the index of 0 in DynamicMap

// QuantizeScales quantises the scales of blocks to eight bits: their
// difference from their mean, which is returned, in blocks of NestedBlockSize.
func QuantizeScales(dst []byte, nested, scales []float32) (offset float32) {
	if len(dst) != len(scales) || len(nested) != Blocks(len(scales), NestedBlockSize) {
		panic("bug: nf4.QuantizeScales: wrong size of the result")
	}
	offset = mean(scales)
	for b := range nested {
		from, to := b*NestedBlockSize, min(len(scales), (b+1)*NestedBlockSize)
		top := float32(0)
		for _, s := range scales[from:to] {
			top = max(top, abs(s-offset))
		}
		nested[b] = top
		inverse := 1 / top
		for i, s := range scales[from:to] {
			dst[from+i] = zeroScale
			if math.Float32bits(inverse) < infinity {
				dst[from+i] = nearestScale(float32((s - offset) * inverse))
			}
		}
	}
	return offset
}

// nearestScale returns the index of the value of DynamicMap nearest to x, the
// lower of two.
func nearestScale(x float32) uint8 {
	x = max(-1, min(1, x))
	lo, hi := 0, len(DynamicMap)-1 // the lowest value above x is in (lo, hi]
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; DynamicMap[mid] <= x {
			lo = mid
		} else {
			hi = mid
		}
	}
	if abs(DynamicMap[hi]-x) < abs(x-DynamicMap[lo]) {
		return uint8(hi)
	}
	return uint8(lo)
}

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) & 0x7fffffff) }

const (
	lanes   = 8 // of a vector of 256 bits
	rows    = 4 // of vectors that are summed side by side
	levels  = 4 // of sums of sums
	minStep = 4 // at least 16 terms are added at each level
)

// mean returns the mean in the order of additions of PyTorch on a processor
// with vectors of 256 bits and one thread. Any order would be right; this one
// gives the same bytes as bitsandbytes.
func mean(v []float32) float32 {
	if len(v) == 0 {
		return 0
	}
	return sum(v) / float32(len(v))
}

func sum(v []float32) float32 {
	if len(v) < lanes {
		return tailSum(v)
	}
	const wide = lanes * rows
	acc := cascade(v[:len(v)/wide*wide])
	rest := v[len(v)/wide*wide:]
	for len(rest) >= lanes {
		for l, x := range rest[:lanes] {
			acc[l] += x
		}
		rest = rest[lanes:]
	}
	for r := 1; r < rows; r++ {
		for l := range lanes {
			acc[l] += acc[r*lanes+l]
		}
	}
	total := float32(0)
	for _, x := range rest {
		total += x
	}
	for _, x := range acc[:lanes] {
		total += x
	}
	return total
}

// tailSum adds fewer numbers than a vector holds: four interleaved sums.
func tailSum(v []float32) float32 {
	var acc [rows]float32
	n := len(v) / rows * rows
	for i, x := range v[:n] {
		acc[i%rows] += x
	}
	for _, x := range v[n:] {
		acc[0] += x
	}
	for r := 1; r < rows; r++ {
		acc[0] += acc[r]
	}
	return acc[0]
}

// cascade adds rows of lanes*rows numbers, column by column, with sums of sums
// so that errors stay small.
func cascade(v []float32) (out [lanes * rows]float32) {
	const width = lanes * rows
	size := len(v) / width
	power := max(minStep, ceilLog2(size)/levels)
	step := 1 << power
	var acc [levels][width]float32
	i := 0
	for i+step <= size {
		for range step {
			addRow(&acc[0], v[i*width:])
			i++
		}
		for j := 1; j < levels; j++ {
			addRow(&acc[j], acc[j-1][:])
			acc[j-1] = [width]float32{}
			if i&((step-1)<<(j*power)) != 0 {
				break
			}
		}
	}
	for ; i < size; i++ {
		addRow(&acc[0], v[i*width:])
	}
	for j := 1; j < levels; j++ {
		addRow(&acc[0], acc[j][:])
	}
	return acc[0]
}

func addRow(dst *[lanes * rows]float32, v []float32) {
	for k, x := range v[:len(dst)] {
		dst[k] += x
	}
}

func ceilLog2(n int) int {
	if n <= 2 {
		return 1
	}
	l := 0
	for 1<<l < n {
		l++
	}
	return l
}
