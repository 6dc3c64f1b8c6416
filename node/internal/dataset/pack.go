package dataset

import (
	"math/bits"
	"slices"

	"github.com/moot-net/moot/node/internal/train"
)

// Pack puts samples together so that few tokens of room are left: each pack has
// at most maxTokens tokens, or one sample that is longer. The samples of a pack
// follow each other in one batch without padding, each at positions from 0 on
// and seeing only itself (model.Batch), so that packing changes how much work
// a step is and nothing of its result.
//
// It is best fit, the longest first; which pack a sample is in depends on the
// samples alone. In a pack they are in the order given.
func Pack(samples []train.Sample, maxTokens int) [][]train.Sample {
	order := make([]int, len(samples))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(samples[b].IDs) - len(samples[a].IDs) })
	var packs [][]int
	byRoom := make([][]int, maxTokens+1) // packs that have just so much room left
	rooms := newRooms(maxTokens + 1)
	for _, i := range order {
		n := len(samples[i].IDs)
		room, ok := rooms.atLeast(n)
		if !ok {
			packs = append(packs, []int{i})
			if left := maxTokens - n; left > 0 {
				byRoom[left] = append(byRoom[left], len(packs)-1)
				rooms.set(left, true)
			}
			continue
		}
		last := len(byRoom[room]) - 1
		at := byRoom[room][last]
		byRoom[room] = byRoom[room][:last]
		rooms.set(room, last > 0)
		packs[at] = append(packs[at], i)
		if left := room - n; left > 0 {
			byRoom[left] = append(byRoom[left], at)
			rooms.set(left, true)
		}
	}
	out := make([][]train.Sample, len(packs))
	for i, p := range packs {
		slices.Sort(p)
		for _, at := range p {
			out[i] = append(out[i], samples[at])
		}
	}
	return out
}

// rooms finds the least number of a set that is not below another.
type rooms struct{ levels [][]uint64 } // of each level a bit says whether a word below is not 0

func newRooms(n int) *rooms {
	r := &rooms{}
	for {
		n = (n + 63) / 64
		r.levels = append(r.levels, make([]uint64, n))
		if n == 1 {
			return r
		}
	}
}

func (r *rooms) set(i int, on bool) {
	for _, words := range r.levels {
		if on {
			words[i/64] |= 1 << (i % 64)
		} else if words[i/64] &^= 1 << (i % 64); words[i/64] != 0 {
			return
		}
		i /= 64
	}
}

func (r *rooms) atLeast(i int) (int, bool) {
	for level := 0; level < len(r.levels); level++ {
		if i/64 >= len(r.levels[level]) {
			return 0, false
		}
		if word := r.levels[level][i/64] >> (i % 64); word != 0 {
			i += bits.TrailingZeros64(word)
			for ; level > 0; level-- {
				i = 64*i + bits.TrailingZeros64(r.levels[level-1][i])
			}
			return i, true
		}
		i = i/64 + 1
	}
	return 0, false
}
