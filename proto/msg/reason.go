package msg

import "fmt"

// Reason says why a commit was refused, or counts for nothing; Held, that it
// was not.
type Reason uint32

// The reasons. Their numbers are on the wire and never change.
const (
	Held         Reason = iota // the delta is here and valid
	NotHeld                    // too few witnesses hold it, or no reason is known
	Timeout                    // the delta did not arrive before the deadline
	TooLarge                   // more bytes than a delta of the run can have
	BadHash                    // a block does not have the CID it was asked by
	BadSize                    // not as many bytes as the commit says
	BadCodec                   // not a delta of the codec and layout of the run
	BadRange                   // a scale or a code out of range, or not canonical
	BadNorm                    // not the norm that the commit says
	WrongHead                  // made for another head
	Equivocation               // the seat signed several commits for one head
	NotFinite                  // not from finite numbers
	Zero                       // all values are zero
	Copy                       // that of another seat, as a whole or nearly
	Replayed                   // that of an earlier round
	Untraced                   // has no trace, in a run that asks for one
	haveEnd                    // the ones after this are not for haves
)

// Why a contribution, or a peer, counts for nothing. Not in haves.
const (
	Fresh      Reason = iota + 32 // the first of a seat that joined late
	Probation                     // audits have not confirmed the peer often enough yet
	Harmful                       // an audit found that the peer made the loss worse
	Banned                        // signed what nobody honest signs, or was harmful again and again
	TakenBack                     // what it did to the state was undone, a round later
	RolledBack                    // the run went back to an earlier state in that round
	Worthless                     // audits found nothing in what the peer sent, again and again
	reasonEnd
)

var reasonNames = [reasonEnd]string{
	Held: "held", NotHeld: "not-held", Timeout: "timeout", TooLarge: "too-large", BadHash: "bad-hash", BadSize: "bad-size",
	BadCodec: "bad-codec", BadRange: "bad-range", BadNorm: "bad-norm", WrongHead: "wrong-head",
	Equivocation: "equivocation", NotFinite: "not-finite", Zero: "zero", Copy: "copy", Replayed: "replayed", Untraced: "untraced",
	Fresh: "fresh", Probation: "probation", Harmful: "harmful", Banned: "banned",
	TakenBack: "taken-back", RolledBack: "rolled-back", Worthless: "worthless",
}

// Refuses reports whether r is a reason for which a have may refuse a commit.
func (r Reason) Refuses() bool { return r > Held && r < haveEnd }

// Last is the highest reason that a have may give.
const Last = haveEnd - 1

// String returns the name of the reason as it is printed and put into JSON.
func (r Reason) String() string {
	if r < reasonEnd && reasonNames[r] != "" {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason-%d", uint32(r))
}
