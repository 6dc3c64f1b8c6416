package fold

import (
	"fmt"
	"runtime"
)

// Outer is the outer step: Nesterov momentum as in PyTorch's SGD.
type Outer struct {
	LearningRateQ16 uint32 // at most 4
	MomentumQ16     uint32 // below 1
}

// Validate reports what is out of bounds.
func (o Outer) Validate() error {
	if o.LearningRateQ16 > MaxLearningRateQ16 {
		return fmt.Errorf("outer learning rate is %d/65536, must be at most %d/65536", o.LearningRateQ16, MaxLearningRateQ16)
	}
	if o.MomentumQ16 > MaxMomentumQ16 {
		return fmt.Errorf("outer momentum is %d/65536, must be at most %d/65536", o.MomentumQ16, MaxMomentumQ16)
	}
	return nil
}

// Fold returns the state after the round, and for each input, in the given
// order, with which weight and clip it entered. The order does not matter for
// the state. If every input has factor 0 they all count in full. Without
// inputs the state is prev itself.
//
// The time it takes is linear in parameters times inputs: 32 deltas of 2 bits
// and 10 million parameters take a fraction of a second on one core.
func Fold(prev *State, inputs []Input, outer Outer) (*State, []Applied, error) {
	return foldOn(runtime.GOMAXPROCS(0), prev, inputs, outer)
}

func foldOn(workers int, prev *State, inputs []Input, outer Outer) (*State, []Applied, error) {
	if err := outer.Validate(); err != nil {
		return nil, nil, fmt.Errorf("fold: %w", err)
	}
	if err := checkInputs(prev.Layout, inputs); err != nil {
		return nil, nil, fmt.Errorf("fold: %w", err)
	}
	if len(inputs) == 0 {
		return prev, nil, nil
	}
	s, applied := newSum(inputs, outer)
	next := NewState(prev.Layout)
	parallelOn(workers, len(prev.Layout.chunks), func(lo, hi int) {
		w := newWorker(s)
		for i := lo; i < hi; i++ {
			w.chunk(prev, next, i)
		}
	})
	return next, applied, nil
}

// step makes the outer step for one chunk: g is the mean pseudo-gradient.
//
//	momentum = mu * momentum + g
//	theta    = theta - lr * (g + mu * momentum)
//
// Products round to the nearest, results saturate. With lr below 2^3 and all
// else below 2^32 nothing overflows.
func (o Outer) step(theta, momentum []int32, g []int64) {
	theta, momentum = theta[:len(g)], momentum[:len(g)]
	for j, gj := range g {
		m := saturate(mulQ16(int64(momentum[j]), o.MomentumQ16) + gj)
		d := gj + mulQ16(int64(m), o.MomentumQ16)
		theta[j] = saturate(int64(theta[j]) - mulQ16(d, o.LearningRateQ16))
		momentum[j] = m
	}
}
