package msg

import "fmt"

// Reason says why a commit was refused; Held, that it was not.
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
	reasonEnd
)

var reasonNames = [reasonEnd]string{
	"held", "not-held", "timeout", "too-large", "bad-hash", "bad-size", "bad-codec",
	"bad-range", "bad-norm", "wrong-head", "equivocation", "not-finite",
}

// String returns the name of the reason as it is printed and put into JSON.
func (r Reason) String() string {
	if r < reasonEnd {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason-%d", uint32(r))
}
