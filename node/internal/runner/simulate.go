package runner

import (
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// What follows is for a simulation, which has to train and judge as a node does.

// Copies tells copied deltas of a round from those that were trained. The zero
// value has seen none.
type Copies struct{ c copies }

// Announce notes that a commit came, in the order of arrival.
func (k *Copies) Announce(round msg.Round, commit cid.Cid) { k.c.announce(round, commit) }

// Found compares the delta of a commit with those before, and returns the
// commits whose deltas are copies, as far as that shows now, in a round of so
// many seats.
func (k *Copies) Found(round msg.Round, commit cid.Cid, d *fold.Delta, params, seats int) []cid.Cid {
	return k.c.found(round, commit, d, params, seats)
}

const (
	// AuditPart is how much of a delta an audit applies.
	AuditPart = auditPart
	// AuditPool is from how many times the samples of an audit they are drawn.
	AuditPool = auditPool
)

// AuditSamples returns the n samples of pool that a record draws.
func AuditSamples(pool []train.Sample, record cid.Cid, n int) []train.Sample {
	return drawSamples(pool, record, n)
}

// AuditGain is what an audit says of a loss before and after.
func AuditGain(before, after float64) int64 { return gainNano(before, after) }

// MergePasses says whether a merge of two states with these losses is good
// enough.
func MergePasses(ours, theirs, merged float64) bool { return passes(ours, theirs, merged) }

// SampleSeed draws the samples of a peer for the round after head.
func SampleSeed(head cid.Cid, peer peer.ID) [32]byte { return sampleSeed(head, peer) }

// MoveTo makes values that are some way from one origin as far from another, as
// early steps are moved to the state of the head.
func MoveTo(values, from, to []float32) { moveTo(values, from, to) }

// LearningRate is that of a step; see proto/README.md.
func LearningRate(m *run.Manifest, done Done, warm uint64) float64 {
	return learningRate(m, done, warm)
}
