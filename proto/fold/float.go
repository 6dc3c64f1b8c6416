package fold

import (
	"errors"
	"fmt"
	"math"
)

// This file is the border to the trainer's floats. Nothing that peers compare
// is computed here, and no other file of the package uses it; a test holds
// that.

// ErrNotFinite is wrapped by the errors for NaN and infinity.
var ErrNotFinite = errors.New("not a finite number")

const (
	unitsPerOne = 1 << 26
	oneUnit     = 1.0 / unitsPerOne
)

// ToFloat32 converts from units of 2^-26, rounding to the nearest float32.
func ToFloat32(dst []float32, src []int32) {
	dst = dst[:len(src)]
	for i, v := range src {
		dst[i] = float32(v) * oneUnit
	}
}

// FromFloat32 converts to units of 2^-26, rounding to the nearest, ties to
// even, and saturating.
func FromFloat32(dst []int32, src []float32) error {
	dst = dst[:len(src)]
	for i, v := range src {
		units, err := fromFloat(v)
		if err != nil {
			return fmt.Errorf("value %d is %w: %v", i, err, v)
		}
		dst[i] = units
	}
	return nil
}

// PseudoGradient writes start minus end in units of 2^-26. A parameter that
// did not move gives 0.
func PseudoGradient(dst []int32, start, end []float32) error {
	dst, end = dst[:len(start)], end[:len(start)]
	for i := range start {
		a, err := fromFloat(start[i])
		if err != nil {
			return fmt.Errorf("start of value %d is %w: %v", i, err, start[i])
		}
		b, err := fromFloat(end[i])
		if err != nil {
			return fmt.Errorf("end of value %d is %w: %v", i, err, end[i])
		}
		dst[i] = saturate(int64(a) - int64(b))
	}
	return nil
}

// fromFloat multiplies in float64, where the product is exact.
func fromFloat(v float32) (int32, error) {
	x := math.RoundToEven(float64(v) * unitsPerOne)
	switch {
	case x != x || math.IsInf(x, 0):
		return 0, ErrNotFinite
	case x > maxValue:
		return maxValue, nil
	case x < -maxValue:
		return -maxValue, nil
	}
	return int32(x), nil
}
