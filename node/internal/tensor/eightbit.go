package tensor

// EightBit is a backend elsewhere that does steps of AdamW with moments in eight
// bits, so that neither gradients nor values need come to the host for it.
type EightBit interface {
	// AdamW8 updates parameters p, and their moments s, by gradient g, both
	// (1,N). Each moment is a value of a map of 256 times the scale of its block,
	// the largest magnitude of 256 moments.
	AdamW8(p, g Mat, s Moments8, o AdamW)
}

// Moments8 are the moments of one tensor, in buffers of several.
type Moments8 struct {
	// Codes are bytes, four to a value; those of the first and of the second
	// moments begin at bytes M and V.
	Codes Mat
	M, V  int
	// Scales are those of the blocks, from values MScale and VScale on.
	Scales         Mat
	MScale, VScale int
	// Maps (1,512) has the signed map of the first moments, then the unsigned
	// one of the second, both rising.
	Maps Mat
}
