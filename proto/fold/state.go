package fold

import (
	"errors"

	"github.com/ipfs/go-cid"
)

// State is the adapter and the outer momentum in units of 2^-26. A state that
// others may see is not changed any more.
type State struct {
	Layout   *Layout
	Theta    []int32
	Momentum []int32
}

// NewState returns the state of zeros.
func NewState(l *Layout) *State {
	return &State{Layout: l, Theta: make([]int32, l.params), Momentum: make([]int32, l.params)}
}

// Marshal returns the canonical bytes of s.
func (s *State) Marshal() []byte { return nil }

// StateBytes returns the length of the canonical bytes of a state of l.
func StateBytes(l *Layout) int64 { return 0 }

// UnmarshalState decodes a state, which must be of layout l and canonical.
func UnmarshalState(l *Layout, b []byte) (*State, error) { return nil, errors.New("state") }

// CID returns the CID of the canonical bytes of s as a UnixFS file.
func (s *State) CID() cid.Cid { return cid.Undef }

// FileCID returns the CID of b as a UnixFS file of raw 1 MiB leaves: the root
// under which a shard store keeps the same bytes.
func FileCID(b []byte) cid.Cid { return cid.Undef }
