package msg

// The limits of the protocol, version 1.
const (
	MaxSeats         = 48        // seats of a round
	MaxJoins         = 64        // join requests in a have or record
	MaxAttempt       = 3         // attempts 0 to 2 are voted on, 3 is the fallback
	MaxMessageBytes  = 16 << 10  // envelope of any message but a proposal
	MaxProposalBytes = 256 << 10 // envelope of a proposal
	MaxRecordBytes   = 255 << 10 // encoded record
	MaxDeltaBytes    = 1<<28 + 1<<20
)
