package msg

import (
	"cmp"

	"github.com/ipfs/go-cid"

	wirev1 "github.com/moot-net/moot/proto/wire/v1"
)

// Merge says that the state at the end of a branch that lost makes the run's
// state better, and with which weight it should enter it.
type Merge struct {
	Fork      cid.Cid // the last record that both chains have
	First     cid.Cid // the first record of the branch after it
	Head      cid.Cid // the last one
	State     cid.Cid // the head's
	Base      cid.Cid // the state of the chain itself that it is compared with
	Tokens    uint64  // trained in the branch since the fork
	WeightQ16 uint32  // the part of the way from Base to State that the next state is moved
}

// Compare orders merges by their heads, then by all else.
func (m Merge) Compare(n Merge) int {
	return cmp.Or(
		compareCIDs(m.Head, n.Head), compareCIDs(m.Fork, n.Fork), compareCIDs(m.First, n.First), compareCIDs(m.State, n.State),
		compareCIDs(m.Base, n.Base),
		cmp.Compare(m.Tokens, n.Tokens), cmp.Compare(m.WeightQ16, n.WeightQ16),
	)
}

func (c *checker) merge(m Merge) {
	c.rawCID("merge: fork", m.Fork)
	c.rawCID("merge: first", m.First)
	c.rawCID("merge: head", m.Head)
	c.fileCID("merge: state", m.State)
	c.fileCID("merge: base", m.Base)
	c.between("merge: tokens", m.Tokens, 1, MaxRunTokens)
	c.between("merge: weight", uint64(m.WeightQ16), 1, 1<<16)
}

func (m Merge) toWire() *wirev1.Merge {
	return &wirev1.Merge{
		Fork: m.Fork.Bytes(), First: m.First.Bytes(), Head: m.Head.Bytes(), State: m.State.Bytes(), Tokens: m.Tokens, WeightQ16: m.WeightQ16,
		Base: m.Base.Bytes(),
	}
}

func mergeFromWire(r *cidReader, w *wirev1.Merge) Merge {
	return Merge{
		Fork: r.read(w.Fork), First: r.read(w.First), Head: r.read(w.Head), State: r.read(w.State), Tokens: w.Tokens, WeightQ16: w.WeightQ16,
		Base: r.read(w.Base),
	}
}
