package fold

import (
	"fmt"
	"math/bits"
)

// One is 1 in Q16.
const One = 1 << 16

// Factors for Input.FactorQ16.
const (
	FactorFull  = One     // a delta for this head
	FactorStale = One / 2 // one for the head before
	FactorFresh = 0       // the first one of a peer that joined late
)

// The bounds of a fold. With them no sum overflows; see sumBits.
const (
	MaxInputs          = 1024
	MaxInputTokens     = 1 << 40
	MaxLearningRateQ16 = 4 * One
	MaxMomentumQ16     = One - 1
)

// Input is one delta that enters a fold.
type Input struct {
	Delta     *Delta
	Tokens    uint64 // as committed, at least 1
	FactorQ16 uint32 // FactorFull, FactorStale or FactorFresh
}

// Applied is what became of an input.
type Applied struct {
	Weight  uint64 // in the weighted mean
	ClipQ16 uint32 // factor of the clip to the median norm; tensors may be clipped more
}

// counted is an input with a weight, and what it is multiplied by.
type counted struct {
	delta  *Delta
	weight int64    // reduced
	clips  []uint32 // of each tensor, Q16
}

// weigh gives every input its weight: tokens up to twice their median, times
// the factor. Inputs with factor 0 have no part in any median. If all have
// factor 0 they all count in full.
func weigh(inputs []Input) (applied []Applied, indexes []int) {
	factor := func(i int) uint64 { return uint64(inputs[i].FactorQ16) }
	for i := range inputs {
		if factor(i) > 0 {
			indexes = append(indexes, i)
		}
	}
	if len(indexes) == 0 {
		factor = func(int) uint64 { return One }
		for i := range inputs {
			indexes = append(indexes, i)
		}
	}
	tokens := make([]uint64, 0, len(indexes))
	for _, i := range indexes {
		tokens = append(tokens, inputs[i].Tokens)
	}
	bound := 2 * median(tokens)
	applied = make([]Applied, len(inputs))
	for _, i := range indexes {
		applied[i].Weight = max(1, min(inputs[i].Tokens, bound)*factor(i)>>16)
	}
	return applied, indexes
}

// reducedBits bounds the sum of the weights that the sums are formed with.
const reducedBits = 22

// reduce divides all weights by the power of two that brings their sum below
// 2^22, rounding to the nearest and to at least 1, so that the sum of what it
// returns is at most 2^22 + MaxInputs. Up to 4 million tokens in a round they
// stay as they are.
func reduce(applied []Applied, indexes []int) []int64 {
	var sum uint64
	for _, i := range indexes {
		sum += applied[i].Weight
	}
	shift := max(0, bits.Len64(sum)-reducedBits)
	half := uint64(1) << shift >> 1
	reduced := make([]int64, len(indexes))
	for k, i := range indexes {
		reduced[k] = int64(max(1, (applied[i].Weight+half)>>shift))
	}
	return reduced
}

// clip sets the clip of every input to the median norm and returns, for each
// that counts, the smaller one of that and of the clip of each tensor to the
// median norm of that tensor.
func clip(inputs []Input, applied []Applied, indexes []int) [][]uint32 {
	norms := make([]uint64, len(indexes))
	medianOf := func(norm func(*Delta) uint64) uint64 {
		for k, i := range indexes {
			norms[k] = norm(inputs[i].Delta)
		}
		return median(norms)
	}
	m := medianOf(func(d *Delta) uint64 { return d.norm })
	for i := range inputs {
		applied[i].ClipQ16 = clipTo(m, inputs[i].Delta.norm)
	}
	tensors := len(inputs[0].Delta.norms)
	clips := make([][]uint32, len(indexes))
	for k := range clips {
		clips[k] = make([]uint32, tensors)
	}
	for t := range tensors {
		m := medianOf(func(d *Delta) uint64 { return d.norms[t] })
		for k, i := range indexes {
			clips[k][t] = min(applied[i].ClipQ16, clipTo(m, inputs[i].Delta.norms[t]))
		}
	}
	return clips
}

// clipTo returns the Q16 factor, rounded down, that brings norm to bound, at
// most 1; also for a norm of zero. Norms are below 2^46, so the shift keeps every bit.
func clipTo(bound, norm uint64) uint32 {
	if norm <= bound {
		return One
	}
	return uint32(bound << 16 / norm)
}

func checkInputs(l *Layout, inputs []Input) error {
	if len(inputs) > MaxInputs {
		return fmt.Errorf("inputs are %d, must be at most %d", len(inputs), MaxInputs)
	}
	for i, in := range inputs {
		switch {
		case in.Delta == nil || !in.Delta.layout.Equal(l):
			return fmt.Errorf("input %d: the delta is not of the layout of the state", i)
		case in.Tokens < 1 || in.Tokens > MaxInputTokens:
			return fmt.Errorf("input %d: tokens are %d, must be 1 to %d", i, in.Tokens, int64(MaxInputTokens))
		case in.FactorQ16 > One:
			return fmt.Errorf("input %d: factor is %d, must be at most %d", i, in.FactorQ16, One)
		}
	}
	return nil
}
