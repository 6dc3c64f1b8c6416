// Package fold is the integer arithmetic that every peer of a run has to agree
// on bit for bit: the codecs of a delta, the state, and the fold that makes
// the next state of a state and a set of deltas.
//
// There are no floats (but for the conversions in float.go, which no result
// that peers compare depends on), no clock and no unordered iteration, and a
// test holds that. Sums are of integers, so the order of the deltas, the
// number of goroutines and the hardware cannot matter. The specification is
// proto/README.md.
package fold
