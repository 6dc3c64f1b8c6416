package fold

import "fmt"

// Merge moves next by a part, weightQ16, of the way from base to other. Other is
// the state at the end of a branch that lost, base that of the run's own chain
// at the same time, so that next keeps what was learned since. With next equal
// to base it is the weighted mean of the two.
func Merge(next, base, other *State, weightQ16 uint32) (*State, error) {
	if weightQ16 > One {
		return nil, fmt.Errorf("merge: weight is %d/65536, must be at most 1", weightQ16)
	}
	for _, s := range []*State{base, other} {
		if s.Layout.digest != next.Layout.digest {
			return nil, fmt.Errorf("merge: the states have different layouts")
		}
	}
	out := NewState(next.Layout)
	for i := range out.Theta {
		out.Theta[i] = towards(next.Theta[i], base.Theta[i], other.Theta[i], weightQ16)
		out.Momentum[i] = towards(next.Momentum[i], base.Momentum[i], other.Momentum[i], weightQ16)
	}
	return out, nil
}

func towards(next, base, other int32, q16 uint32) int32 {
	return saturate(int64(next) + mulQ16(int64(other)-int64(base), q16))
}
