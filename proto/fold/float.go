package fold

import "errors"

// ErrNotFinite is returned for NaN and infinity.
var ErrNotFinite = errors.New("not a finite number")

// ToFloat32 converts from units of 2^-26, rounding to the nearest float32.
func ToFloat32(dst []float32, src []int32) {}

// FromFloat32 converts to units of 2^-26, rounding to the nearest, ties to
// even, and saturating.
func FromFloat32(dst []int32, src []float32) error { return ErrNotFinite }

// PseudoGradient writes start minus end in units of 2^-26.
func PseudoGradient(dst []int32, start, end []float32) error { return ErrNotFinite }
