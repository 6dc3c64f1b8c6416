// Package ledger keeps on disk what was decided in a run, and what this peer
// said in it: the chain of records with their certificates, when each was
// adopted, what was measured afterwards, evidence, and the own messages that
// must not be made anew after a restart.
//
// # On disk
//
// A folder with two logs, chain.log and own.log. A log is its name as a magic
// ("mootchn1", "mootown1") and frames, each
//
//	length (u32, little-endian, of the payload), kind (1 byte), payload,
//	CRC-32C of all that (u32, little-endian)
//
// A frame is synced before anything that depends on it leaves the peer. What
// follows the last complete frame is what a crash left behind, and is cut off
// when the log is opened.
//
// Frames of chain.log:
//
//	1  record: time of adoption (i64, ms), seconds since the record before
//	   (u32, ms), the record. Its parent is in the chain; what followed the
//	   parent there is dropped.
//	2  certificate, of a record that is in the chain
//	3  evaluation: CID of the record (36 bytes), loss (u64, float64 bits)
//	4  evidence: two envelopes, each with its length (u32) before it
//	5  record whose parent is not in the chain yet, or which comes before
//	   those that are: as 1
//	6  jump: CIDs of a record in the chain and of the new head (36 bytes
//	   each). What followed the first is dropped, and frames 5 since the
//	   last jump, if they are between the two, are the chain's. What is still
//	   missing comes in further frames 5, newest first. With the same CID
//	   twice nothing follows it.
//
// So the chain can have gaps: of a run that was joined late, the records up to
// the head come first, and the older ones later.
//
// Frames of own.log are envelopes, of kind 1. It is written anew when it has
// grown, with what still matters.
package ledger
