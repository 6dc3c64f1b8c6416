package fold

import "errors"

// ErrCodec is wrapped by the errors of Decode for bytes that are no delta of
// the layout at all; ErrRange, for a scale or a code that is out of range or
// not canonical.
var (
	ErrCodec = errors.New("not a delta of this layout and codec")
	ErrRange = errors.New("out of range or not canonical")
)

// Delta is a decoded pseudo-gradient. It does not change after Decode.
type Delta struct {
	layout *Layout
	bits   int
	norm   uint64
	norms  []uint64
}

// EncodedBytes returns the exact length of a delta of l in a codec of 1, 2, 4
// or 8 bits.
func EncodedBytes(l *Layout, bits int) int64 { return 0 }

// Encode encodes values, the pseudo-gradient in units of 2^-26, with bits (1,
// 2, 4 or 8) for each value.
//
// residual is the error feedback, private to the peer: nil, or as long as
// values. What is encoded is values + 0.95 residual, and residual becomes what
// the encoding lost of that.
func Encode(l *Layout, bits int, values, residual []int32) ([]byte, error) {
	return nil, errors.New("encode delta")
}

// Decode checks b against the layout and keeps it; b must not change.
// The error wraps ErrCodec or ErrRange.
func Decode(l *Layout, b []byte) (*Delta, error) { return nil, ErrCodec }

// Bits returns the bits of the codec.
func (d *Delta) Bits() int { return d.bits }

// Norm returns the L2 norm, rounded down, in units of 2^-26.
func (d *Delta) Norm() uint64 { return d.norm }

// TensorNorms returns the L2 norm of each tensor, rounded down.
func (d *Delta) TensorNorms() []uint64 { return append([]uint64(nil), d.norms...) }

// Values writes the decoded values to dst, which has Params values.
func (d *Delta) Values(dst []int32) {}
