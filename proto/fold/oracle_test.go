package fold

import (
	"math/big"
	"sort"
)

// naiveFold is proto/README.md word by word, a value at a time, in integers
// without bounds. It is what Fold is compared with.
func naiveFold(prev *State, inputs []Input, outer Outer) (*State, []Applied) {
	l := prev.Layout
	values := make([][]int32, len(inputs))
	for i, in := range inputs {
		values[i] = make([]int32, l.params)
		in.Delta.Values(values[i])
	}
	factors := make([]int64, len(inputs))
	var counts []int
	for i, in := range inputs {
		factors[i] = int64(in.FactorQ16)
		if in.FactorQ16 > 0 {
			counts = append(counts, i)
		}
	}
	if len(counts) == 0 {
		for i := range inputs {
			factors[i] = 65536
			counts = append(counts, i)
		}
	}
	median := func(f func(i int) int64) int64 {
		var list []int64
		for _, i := range counts {
			list = append(list, f(i))
		}
		sort.Slice(list, func(a, b int) bool { return list[a] < list[b] })
		return list[len(list)/2]
	}
	norm := func(i, from, n int) int64 {
		sum := new(big.Int)
		for _, v := range values[i][from : from+n] {
			x := big.NewInt(int64(v))
			sum.Add(sum, x.Mul(x, x))
		}
		return sum.Sqrt(sum).Int64()
	}
	ratio := func(bound, norm int64) int64 {
		if norm <= bound {
			return 65536
		}
		return new(big.Int).Div(new(big.Int).Mul(big.NewInt(bound), big.NewInt(65536)), big.NewInt(norm)).Int64()
	}

	// Weights.
	tokens := median(func(i int) int64 { return int64(inputs[i].Tokens) })
	applied := make([]Applied, len(inputs))
	total := int64(0)
	for _, i := range counts {
		w := max(1, min(int64(inputs[i].Tokens), 2*tokens)*factors[i]/65536)
		applied[i].Weight = uint64(w)
		total += w
	}
	shift := 0
	for total>>shift >= 1<<22 {
		shift++
	}
	reduced := make([]int64, len(inputs))
	sumReduced := int64(0)
	for _, i := range counts {
		reduced[i] = max(1, (int64(applied[i].Weight)+1<<shift/2)>>shift)
		sumReduced += reduced[i]
	}

	// Clips.
	whole := median(func(i int) int64 { return norm(i, 0, l.params) })
	for i := range inputs {
		applied[i].ClipQ16 = uint32(ratio(whole, norm(i, 0, l.params)))
	}
	next := NewState(l)
	at := 0
	for _, t := range l.tensors {
		size := t.Rows * t.Cols
		bound := median(func(i int) int64 { return norm(i, at, size) })
		clip := make([]int64, len(inputs))
		for i := range inputs {
			clip[i] = min(int64(applied[i].ClipQ16), ratio(bound, norm(i, at, size)))
		}
		for from := 0; from < size; from += 4096 {
			c := at + from
			n := min(4096, size-from)
			scaleOf := func(i int) int64 { return chunkScale(inputs[i].Delta, c) }
			reach := func(i int) int64 { return scaleOf(i) * maxCode(inputs[i].Delta.bits) }
			cut := 8 * median(reach)
			for j := c; j < c+n; j++ {
				sum := new(big.Int)
				for _, i := range counts {
					s := scaleOf(i)
					if s == 0 {
						continue
					}
					level := int64(values[i][j]) / s
					s = min(s, cut/maxCode(inputs[i].Delta.bits))
					term := big.NewInt(s * clip[i] / 256)
					term.Mul(term, big.NewInt(reduced[i]*level))
					sum.Add(sum, term)
				}
				g := floorDiv(sum, big.NewInt(sumReduced*256))
				next.Momentum[j] = clamp(g + half(int64(prev.Momentum[j]), outer.MomentumQ16))
				d := g + half(int64(next.Momentum[j]), outer.MomentumQ16)
				next.Theta[j] = clamp(int64(prev.Theta[j]) - half(d, outer.LearningRateQ16))
			}
		}
		at += size
	}
	return next, applied
}

func chunkScale(d *Delta, start int) int64 {
	for i, c := range d.layout.chunks {
		if c.start == start {
			return d.scales[i]
		}
	}
	panic("no chunk starts here")
}

func floorDiv(a, b *big.Int) int64 {
	q, m := new(big.Int).QuoRem(a, b, new(big.Int))
	if m.Sign() < 0 {
		q.Sub(q, big.NewInt(1))
	}
	return q.Int64()
}

// half multiplies by q/65536 and rounds to the nearest, halves up.
func half(v int64, q uint32) int64 {
	p := new(big.Int).Mul(big.NewInt(v), big.NewInt(int64(q)))
	return floorDiv(p.Add(p, big.NewInt(32768)), big.NewInt(65536))
}

func clamp(v int64) int32 {
	if v > 2147483647 {
		return 2147483647
	}
	if v < -2147483647 {
		return -2147483647
	}
	return int32(v)
}
