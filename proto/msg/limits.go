package msg

// The limits of the protocol, version 1. No sum or product of values within
// them overflows 64 bits where the protocol has to form it.
const (
	MaxSeats         = 48            // seats of a round without cells; of a cell
	MaxAllSeats      = 1024          // seats of a round with cells
	MaxCells         = 32            //
	MaxCalm          = 15            // rounds, after which the codec becomes finer
	MaxMissed        = 1             // of a seat that stays
	MaxJoins         = 64            // join requests in a have or record
	MaxOrders        = 64            // in a have or record
	MaxAttempt       = 3             // attempts 0 to 2 are voted on, 3 is the fallback
	MaxRound         = 1 << 32       //
	MaxMessageBytes  = 16 << 10      // envelope of any message but a proposal
	MaxProposalBytes = 320 << 10     // envelope of a proposal
	MaxRecordBytes   = 319 << 10     // encoded record
	MaxAudits        = 16            // in a have
	MaxRetraces      = 4             // in a have or report
	MaxReports       = 32            // in a record
	MaxReportAudits  = 8             // in a report
	MaxErrorPPM      = 1e9           // of a retrace
	MaxDeltaBytes    = 1<<28 + 1<<20 // encoded delta
	MaxTokens        = 1 << 40       // of one commit
	MaxSteps         = 1 << 32       // of one commit
	MaxNorm          = 1 << 46       // sqrt(2^28 values) * 2^31, and some room
	MaxLossMicro     = 1 << 40       //
	MaxRunTokens     = 1 << 62       // of a run
	MaxGainNano      = 1 << 50       // of an audit, either sign, 1e-9 nats
	MaxOwed          = 1 << 16       // audited rounds at weight 0
	MaxStrikesQ8     = 1 << 16       // of one peer, 1/256
	MaxStandings     = 128           // in a record with at most MaxSeats next seats
	MaxOthers        = 64            // standings of peers without a seat, in a record with more next seats
	MaxProofs        = 4             // in a record
	MaxMerges        = 2             // in a have
	MaxNameBytes     = 64            // agent and device in a status
	MaxNoteBytes     = 256           // of an order
	MaxSeq           = 1 << 53       // of an order
	MaxRunRounds     = 1e6           // of a run, as in manifests
	MaxRatePermille  = 100_000       // of an order
	MaxKappaPPM      = 1e9           // of a round, 1e-6
	MaxLow           = 2             // rounds, after which steps become more
	MaxArrivalMillis = 1 << 30       // since a round began; a deadline
	MaxArrivals      = 8             // rounds that a deadline follows
)
