package fold

import "errors"

// One is 1 in Q16.
const One = 1 << 16

// Factors for Input.FactorQ16.
const (
	FactorFull  = One     // a delta for this head
	FactorStale = One / 2 // one for the head before
	FactorFresh = 0       // the first one of a peer that joined late
)

// Input is one delta that enters a fold.
type Input struct {
	Delta     *Delta
	Tokens    uint64 // as committed
	FactorQ16 uint32 // FactorFull, FactorStale or FactorFresh
}

// Outer is the outer step: Nesterov momentum as in PyTorch's SGD.
type Outer struct {
	LearningRateQ16 uint32
	MomentumQ16     uint32
}

// Applied is what became of an input.
type Applied struct {
	Weight  uint64 // in the weighted mean
	ClipQ16 uint32 // factor of the clip to the median norm; tensors may be clipped more
}

// Fold returns the state after the round, and for each input, in the given
// order, with which weight and clip it entered. The order does not matter for
// the state. If every input has factor 0 they all count in full. Without
// inputs the state is prev itself.
func Fold(prev *State, inputs []Input, outer Outer) (*State, []Applied, error) {
	return nil, nil, errors.New("fold")
}
