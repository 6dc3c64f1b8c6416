package round

import (
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

// Event is something that happened: a message that arrived, the result of an
// effect, a wish of the user. The set is closed.
type Event interface{ event() }

// Tick is that time went by. Step must be called with it at Deadline, or any
// event that comes first will do.
type Tick struct{}

// Received is a message of the run that somebody published. It was opened by
// msg.Open, so its form and signature are right; nothing else is known of it.
type Received struct{ Signed msg.Signed }

// Checked answers Check: msg.Held, or why the delta cannot be used.
type Checked struct {
	Commit cid.Cid
	Reason msg.Reason
}

// Audited answers Audit: what was measured, in any order.
type Audited struct {
	Record cid.Cid // of the Audit that it answers
	Gains  []msg.Audit
	// Retraces say what those came to that were done.
	Retraces []msg.Retrace
}

// Evaluated answers Evaluate.
type Evaluated struct {
	Record    cid.Cid // of the Evaluate that it answers
	LossMicro uint64  // in 1e-6 nats; 0: there is nothing to measure it with
}

// Gated answers Gate.
type Gated struct {
	Head   cid.Cid // of the branch
	Passes bool
}

// Trained answers Train. The delta is in the store already.
type Trained struct {
	Head       cid.Cid // of the Train that it answers
	Delta      cid.Cid
	DeltaBytes uint64
	Tokens     uint64
	Steps      uint64
	Norm       uint64
	LossMicro  uint64
	Trace      cid.Cid // cid.Undef in a run that asks for none
}

// Folded answers Fold. The state is in the store already.
type Folded struct {
	ID      FoldID
	State   cid.Cid
	Applied []fold.Applied // in the order of Fold.Inputs
}

// Offered answers Sync: what a peer says comes after a record that both know,
// oldest first.
type Offered struct {
	From  peer.ID
	Items []Item
}

// Item is an encoded record, and its certificate if the peer has one.
type Item struct {
	Record      []byte
	Certificate []byte // empty: none
}

// Give signs an order of Self's, of which Run, Peer and Seq are filled in, and
// publishes it until it takes effect or is replaced by another one.
type Give struct{ Order msg.Order }

// Want says whether this peer wants a seat. Without a Want it only follows.
type Want struct{ Seat bool }

func (Tick) event()      {}
func (Received) event()  {}
func (Checked) event()   {}
func (Audited) event()   {}
func (Evaluated) event() {}
func (Gated) event()     {}
func (Trained) event()   {}
func (Folded) event()    {}
func (Offered) event()   {}
func (Give) event()      {}
func (Want) event()      {}
