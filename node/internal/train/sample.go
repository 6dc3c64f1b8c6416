package train

import "fmt"

// NotCounted is the label of a token that the loss does not count.
const NotCounted = -100

// Sample is one training text. Labels has the length of IDs; Labels[i] is
// IDs[i] where the model is to learn to produce that token from those before
// it, and NotCounted elsewhere. Labels[0] is never counted: nothing comes
// before it.
type Sample struct {
	IDs    []int32
	Labels []int32
}

// Counted returns how many tokens the loss counts.
func (s Sample) Counted() int {
	n := 0
	for i, l := range s.Labels {
		if i > 0 && l != NotCounted {
			n++
		}
	}
	return n
}

func (s Sample) check(maxTokens int) error {
	switch {
	case len(s.IDs) != len(s.Labels):
		return fmt.Errorf("sample has %d tokens and %d labels", len(s.IDs), len(s.Labels))
	case len(s.IDs) > maxTokens:
		return fmt.Errorf("sample has %d tokens, at most %d", len(s.IDs), maxTokens)
	}
	return nil
}
