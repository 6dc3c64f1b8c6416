package round

import (
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// Effect is something to be done. Effects are carried out in their order; what
// is not immediate (Train, Check, Fold, Sync) only has to be begun in it. The
// set is closed.
type Effect interface{ effect() }

// Store makes an own message durable. The effects after it may be carried out
// only when it is.
type Store struct{ Signed msg.Signed }

// Publish gossips an own message. It need not arrive: what has to is published
// again.
type Publish struct{ Signed msg.Signed }

// Adopt makes the last of Links the head, durably. The parent of the first is
// in the chain, and what followed it there is dropped. Links is never empty.
type Adopt struct{ Links []Link }

// Certify keeps a certificate for a record of the chain that had none.
type Certify struct{ Certificate *msg.Certificate }

// Train asks for a delta; Trained answers. A Train, a TrainEarly or a
// StopTraining ends the one before.
type Train struct {
	Round     msg.Round
	Head      cid.Cid
	State     cid.Cid
	Trained   uint64    // rounds trained before this one
	Tokens    uint64    // likewise
	CodecBits uint32    // of the delta
	Steps     uint32    // at most
	Until     time.Time // when the last step should be over
	// Earlier is the round before, if steps that TrainEarly asked for in it count;
	// zero: none do.
	Earlier Earlier
}

// TrainEarly asks for steps of a round whose head is not known yet, from what the
// own delta alone would make of the state; the Train of that round goes on from
// them. They are for when there is nothing else to do.
type TrainEarly struct {
	Round   msg.Round // that they are of
	Earlier Earlier
	Trace   cid.Cid // of the delta; cid.Undef in a run without
}

// StopTraining ends training without a result.
type StopTraining struct{}

// Check asks to pull the delta of a commit and to compare it with what the
// commit says, and with the deltas of commits for which it was asked before;
// Checked answers, with msg.Copy also a second time. A check is worth nothing any more when another
// head is adopted.
type Check struct {
	Round  msg.Round
	Commit *msg.Commit
	CID    cid.Cid // of the commit's envelope
}

// Pull asks to bring what a cell came to, and to see that it is a delta of
// fold.CellBits; Checked answers, with the commit's CID.
type Pull struct {
	Round     msg.Round
	Commit    cid.Cid // of the cell's summary
	Aggregate cid.Cid
	From      peer.ID // a peer that has it
}

// Audit asks how much better the state is with a fifth of each delta, clipped
// as it was in its fold, on samples that Record draws; Audited answers. It is
// for when there is nothing to train, and worth nothing any more when another
// head is adopted.
type Audit struct {
	Round  msg.Round // under way: the deltas are of the round before
	Record cid.Cid   // that the deltas entered
	State  cid.Cid   // that they were made from
	Items  []AuditItem
	// Retraces are of which of them a part of the training is to be done again.
	// It began on Head, in a run of which Trained rounds were done.
	Retraces []RetraceItem
	Head     cid.Cid
	Trained  uint64
	Tokens   uint64 // likewise
}

// Evaluate asks for the mean held-out loss of a state; Evaluated answers. It is
// for when there is nothing to train, and worth nothing any more when another
// head is adopted.
type Evaluate struct {
	Round  msg.Round // under way
	Record cid.Cid
	State  cid.Cid
}

// Gate asks whether a state has, after a merge, a loss on held-out samples of at
// most 1.005 times that which it has without, and of the branch's state; Gated
// answers. It is for when there is nothing to train.
type Gate struct {
	Round msg.Round
	State cid.Cid
	Merge msg.Merge
}

// FoldID names a Fold by all that its result depends on.
type FoldID string

// Fold asks for the next state; Folded answers. Deltas and state are pulled if
// they are not local, for as long as it takes; it is worth nothing any more
// when a head of its round or a later one is adopted.
type Fold struct {
	ID     FoldID
	Round  msg.Round
	State  cid.Cid // before
	Inputs []Input
	// Back, if not nil, is applied to the state before the fold.
	Back *Back
	// Merge, if not nil, is applied after it.
	Merge *msg.Merge
	// Rest: the next state is State without its momentum, and there is nothing
	// else.
	Rest bool
	// Cell: what is asked for is the mean of a cell (ComputeCell), and not a
	// state; Folded has its CID.
	Cell bool
}

// Back undoes what some deltas of the round before did to the state: the state
// moves by what their round gives without them, less what it gave.
type Back struct {
	State cid.Cid // that the round before began from
	With  []Input // all that counted in it
	Keep  []Input // of them those that stay
}

// Input is a delta that enters a fold.
type Input struct {
	Peer      peer.ID // its maker
	Delta     cid.Cid
	Bits      uint32 // of its codec; 0: that of the run
	Tokens    uint64
	FactorQ16 uint32
}

// Sync asks a peer for the records that follow ours; Offered answers.
type Sync struct {
	From peer.ID
	// After, if defined, is a record of the peer's chain up to which all is
	// here, though not in ours. In the request it goes before the records of
	// our chain. Without it a branch that is too long for one answer would
	// never be known to be better.
	After cid.Cid
	// Branch, if defined, is asked for in place of what follows ours: the records
	// of a branch that lost, from where it parted to this head.
	Branch cid.Cid
}

// Evidence is two messages that no honest peer signs both of.
type Evidence struct{ A, B msg.Signed }

// Fraud says that a quorum voted for a record whose state is not what its deltas
// give. The record is not followed, whatever comes after it. The votes and the
// deltas prove it to everybody who computes the state.
type Fraud struct {
	Certificate *msg.Certificate
	Claimed     cid.Cid // state
	Computed    cid.Cid // state
}

// Misbehaved says that what a peer offered is against the rules.
type Misbehaved struct {
	Peer peer.ID
	Err  error
}

// Doubt says that nothing is signed for a head, in a round: the record shows that Self had
// part in the round before, and it knows nothing of that.
type Doubt struct {
	Round msg.Round
	Head  cid.Cid
}

func (Store) effect()        {}
func (Publish) effect()      {}
func (Adopt) effect()        {}
func (Certify) effect()      {}
func (Train) effect()        {}
func (StopTraining) effect() {}
func (TrainEarly) effect()   {}
func (Check) effect()        {}
func (Pull) effect()         {}
func (Audit) effect()        {}
func (Evaluate) effect()     {}
func (Gate) effect()         {}
func (Fold) effect()         {}
func (Sync) effect()         {}
func (Evidence) effect()     {}
func (Fraud) effect()        {}
func (Misbehaved) effect()   {}
func (Doubt) effect()        {}
