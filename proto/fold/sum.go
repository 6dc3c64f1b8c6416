package fold

import (
	"encoding/binary"
)

// fractionBits are kept below 2^-26 of a clipped scale.
const fractionBits = 8

// maxScaleRatio times the median reach of a chunk (scale times largest level)
// is as far as any delta reaches in it.
const maxScaleRatio = 8

// sumBits proves that no sum overflows: a level times a scale is below 2^31, a
// clip at most 1, and the weights add up to less than 2^23.
const sumBits = 31 + fractionBits + (reducedBits + 1)

var _ [63 - sumBits]struct{} // sumBits is at most 63: |sum| < 2^62

// sum is the weighted sum of all inputs that count.
type sum struct {
	inputs []counted
	weight int64 // of all inputs, reduced
	outer  Outer
}

// newSum weighs and clips inputs, of which there is at least one.
func newSum(inputs []Input, outer Outer) (*sum, []Applied) {
	applied, indexes := weigh(inputs)
	clips := clip(inputs, applied, indexes)
	s := &sum{outer: outer}
	for k, w := range reduce(applied, indexes) {
		s.inputs = append(s.inputs, counted{inputs[indexes[k]].Delta, w, clips[k]})
		s.weight += w
	}
	return s, applied
}

// worker has what one goroutine needs for a chunk.
type worker struct {
	*sum
	divide  divider
	factors []int64  // of each input: reduced weight * clipped scale
	reaches []uint64 // for the median
	total   [ChunkValues]int64
	lanes   [ChunkValues]int64 // see addGroup
	table   [256]int64
}

func newWorker(s *sum) *worker {
	return &worker{
		sum:     s,
		divide:  newDivider(uint64(s.weight) << fractionBits),
		factors: make([]int64, len(s.inputs)),
		reaches: make([]uint64, len(s.inputs)),
	}
}

// chunk computes the i-th chunk of next.
func (w *worker) chunk(prev, next *State, i int) {
	c := prev.Layout.chunks[i]
	g := w.mean(i, c)
	theta, momentum := next.Theta[c.start:][:c.n], next.Momentum[c.start:][:c.n]
	copy(theta, prev.Theta[c.start:])
	copy(momentum, prev.Momentum[c.start:])
	w.outer.step(theta, momentum, g)
}

// mean returns the weighted mean of the i-th chunk, until it is called again.
func (w *worker) mean(i int, c chunk) []int64 {
	w.setFactors(i, c.tensor)
	g := w.total[:c.n]
	clear(g)
	for _, bits := range [...]int{1, 2, 4, 8} {
		w.addCodec(g, i, c, bits)
	}
	for j, sum := range g {
		g[j] = w.divide.floor(sum)
	}
	return g
}

// setFactors computes by what the levels of each input are multiplied in the
// i-th chunk: its scale, cut to the ratio of the median reach, clipped, with
// fractionBits, times its weight.
func (w *worker) setFactors(i, tensor int) {
	for k, in := range w.inputs {
		w.reaches[k] = uint64(in.delta.scales[i] * maxCode(in.delta.bits))
	}
	bound := int64(maxScaleRatio * median(w.reaches))
	for k, in := range w.inputs {
		s := min(in.delta.scales[i], bound/maxCode(in.delta.bits))
		w.factors[k] = s * int64(in.clips[tensor]) >> (16 - fractionBits) * in.weight
	}
}

// addCodec adds all inputs of one codec to g, so many at a time that one code
// of each makes a byte.
func (w *worker) addCodec(g []int64, i int, c chunk, bits int) {
	var group [8][]byte
	var factors [8]int64
	n, used := 0, false
	for k, in := range w.inputs {
		if in.delta.bits != bits || w.factors[k] == 0 {
			continue
		}
		if !used {
			clear(w.lanes[:])
			used = true
		}
		group[n], factors[n] = in.delta.chunkCodes(i, c), w.factors[k]
		n++
		if n == 8/bits {
			w.addGroup(group[:n], factors[:n], bits)
			n = 0
		}
	}
	if n > 0 {
		w.addGroup(group[:n], factors[:n], bits)
	}
	if used {
		w.addLanes(g, 8/bits)
	}
}

func (w *worker) addLanes(g []int64, lanes int) {
	lane := ChunkValues / lanes
	for v := range lanes {
		from := w.lanes[v*lane:]
		for b, j := 0, v; j < len(g); b, j = b+1, j+lanes {
			g[j] += from[b]
		}
	}
}

// addGroup adds factor * level of all values of a chunk for up to 8/bits
// inputs at once. It forms, for each value, the byte of the codes that the
// inputs have for it, and looks up what these codes add up to; naiveFold in the
// tests says the same in a few lines.
//
// The sums are kept in lanes: lane v has the values whose codes are the v-th of
// their byte.
func (w *worker) addGroup(group [][]byte, factors []int64, bits int) {
	setTable(&w.table, factors, bits)
	table := &w.table
	lanes := 8 / bits
	lane := ChunkValues / lanes
	mask := uint64(0x0101010101010101) * (1<<bits - 1)
	var words [8]uint64
	for at := 0; at < len(group[0]); at += 8 {
		for k, codes := range group {
			words[k&7] = load(codes[at:])
		}
		for v := range lanes {
			var x uint64
			for k := range group {
				x |= words[k&7] & mask << (k * bits & 63)
				words[k&7] >>= bits & 63
			}
			// The last word of a short chunk adds to values that do not exist.
			acc := (*[8]int64)(w.lanes[v*lane+at:])
			acc[0] += table[uint8(x)]
			acc[1] += table[uint8(x>>8)]
			acc[2] += table[uint8(x>>16)]
			acc[3] += table[uint8(x>>24)]
			acc[4] += table[uint8(x>>32)]
			acc[5] += table[uint8(x>>40)]
			acc[6] += table[uint8(x>>48)]
			acc[7] += table[uint8(x>>56)]
		}
	}
}

// setTable sets, for each byte of codes, the sum of factor * level; the codes
// of the k-th input are the k-th lowest bits.
func setTable(table *[256]int64, factors []int64, bits int) {
	table[0] = 0
	n := 1
	for _, f := range factors {
		// From the last code down, because the first one is written in place.
		for code := 1<<bits - 1; code >= 0; code-- {
			add := f * level(bits, uint8(code))
			for i := range n {
				table[code*n+i] = table[i] + add
			}
		}
		n <<= bits
	}
}

// load returns up to 8 bytes as a little-endian word.
func load(b []byte) uint64 {
	if len(b) >= 8 {
		return binary.LittleEndian.Uint64(b)
	}
	var w [8]byte
	copy(w[:], b)
	return binary.LittleEndian.Uint64(w[:])
}
