package fold

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
)

// The canonical bytes of a state are its header, theta and momentum. The
// header is filled with zeros to a multiple of 8 bytes.
const (
	stateMagic   = "mootstat"
	stateVersion = 1
)

// ErrState is wrapped by the errors of UnmarshalState.
var ErrState = errors.New("not a state of this layout and version")

// State is the adapter and the outer momentum in units of 2^-26. A state that
// others may see is not changed any more.
//
// Invariant: every value is at least -2^31+1.
type State struct {
	Layout   *Layout
	Theta    []int32
	Momentum []int32
}

// NewState returns the state of zeros.
func NewState(l *Layout) *State {
	return &State{Layout: l, Theta: make([]int32, l.params), Momentum: make([]int32, l.params)}
}

func stateHeader(l *Layout) []byte {
	b := append([]byte(nil), stateMagic...)
	b = binary.LittleEndian.AppendUint32(b, stateVersion)
	b = append(b, l.bytes...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

// StateBytes returns the length of the canonical bytes of a state of l.
func StateBytes(l *Layout) int64 {
	return int64(len(stateHeader(l))) + 8*int64(l.params)
}

// Marshal returns the canonical bytes of s.
func (s *State) Marshal() []byte {
	header := stateHeader(s.Layout)
	b := make([]byte, StateBytes(s.Layout))
	copy(b, header)
	putValues(b[len(header):], s.Theta)
	putValues(b[len(header)+4*len(s.Theta):], s.Momentum)
	return b
}

// UnmarshalState decodes a state, which must be of layout l and canonical.
func UnmarshalState(l *Layout, b []byte) (*State, error) {
	header := stateHeader(l)
	if len(b) < len(header) || string(b[:len(header)]) != string(header) {
		return nil, fmt.Errorf("decode state: the header is %w", ErrState)
	}
	if want := StateBytes(l); int64(len(b)) != want {
		return nil, fmt.Errorf("decode state: %d bytes in place of %d are %w", len(b), want, ErrState)
	}
	s := NewState(l)
	theta := b[len(header):]
	if !readValues(s.Theta, theta) || !readValues(s.Momentum, theta[4*l.params:]) {
		return nil, fmt.Errorf("decode state: a value of -2^31 is %w", ErrState)
	}
	return s, nil
}

// CID returns the CID of the canonical bytes of s as a UnixFS file.
func (s *State) CID() cid.Cid {
	header := stateHeader(s.Layout)
	return fileCID(StateBytes(s.Layout), leafBytes, nodeLinks, func(from, to int64, buf []byte) []byte {
		return s.read(header, from, to, buf)
	})
}

// read writes the bytes from, from+1, … to-1 of the canonical bytes to buf.
// All of its bounds are multiples of 4.
func (s *State) read(header []byte, from, to int64, buf []byte) []byte {
	buf = buf[:to-from]
	n := 0
	h := int64(len(header))
	if from < h {
		n = copy(buf, header[from:])
	}
	for _, part := range [][]int32{s.Theta, s.Momentum} {
		lo := max(0, (from+int64(n)-h)/4)
		if n < len(buf) && lo < int64(len(part)) {
			hi := min(int64(len(part)), lo+int64(len(buf)-n)/4)
			putValues(buf[n:], part[lo:hi])
			n += int(4 * (hi - lo))
		}
		h += 4 * int64(len(part))
	}
	return buf
}

func putValues(b []byte, values []int32) {
	b = b[:4*len(values)]
	for i, v := range values {
		binary.LittleEndian.PutUint32(b[4*i:], uint32(v))
	}
}

// readValues reports whether all of them are values.
func readValues(values []int32, b []byte) bool {
	b = b[:4*len(values)]
	ok := true
	for i := range values {
		values[i] = int32(binary.LittleEndian.Uint32(b[4*i:]))
		ok = ok && values[i] >= -maxValue
	}
	return ok
}
