package msg

import (
	"math/bits"

	"github.com/ipfs/go-cid"

	wirev1 "github.com/moot-net/moot/proto/wire/v1"
)

// Trend is what the held-out losses of a run's states came to, by which it ends
// early or goes back. Losses are in 1e-6 nats, and 0 if there was none yet.
type Trend struct {
	LossMicro uint64  // of the parent's state; 0: too few measured it, or it was not new
	BestMicro uint64  // the lowest so far
	BestState cid.Cid // that had it; cid.Undef: none yet
	BestRound Round   // whose state that is
	MarkMicro uint64  // what the next has to be lower than to be an improvement
	Stale     uint32  // losses in a row that were none
	Worse     uint32  // losses in a row that were worse than the best by more than the run bears
	Back      bool    // State is BestState without momentum
}

func (c *checker) trend(m Trend, round Round) {
	c.between("trend: loss", m.LossMicro, 0, MaxLossMicro)
	c.between("trend: best", m.BestMicro, 0, MaxLossMicro)
	c.between("trend: mark", m.MarkMicro, 0, MaxLossMicro)
	c.between("trend: best round", uint64(m.BestRound), 0, uint64(round-1))
	c.between("trend: stale", uint64(m.Stale), 0, MaxRound)
	c.between("trend: worse", uint64(m.Worse), 0, MaxRound)
	c.that((m.BestMicro == 0) == !m.BestState.Defined(), "trend: a best loss without a state, or a state without a loss")
	if m.BestState.Defined() {
		c.fileCID("trend: best state", m.BestState)
	}
	c.that(!m.Back || m.BestState.Defined(), "trend: goes back to no state")
}

// skips checks that there are as many as the round has.
func (c *checker) skips(list []cid.Cid, round Round) {
	want := SkipCount(round)
	c.that(len(list) == want, "skips are %d, must be %d", len(list), want)
	for _, id := range list {
		c.rawCID("skips", id)
	}
}

// SkipCount is how many skips a record of a round has, in a run with skip links.
func SkipCount(round Round) int {
	if round < 3 {
		return 0
	}
	return bits.Len64(uint64(round-1)) - 1
}

func (m *Trend) toWire() *wirev1.Trend {
	return &wirev1.Trend{
		LossMicro: m.LossMicro, BestMicro: m.BestMicro, BestState: m.BestState.Bytes(), BestRound: uint64(m.BestRound),
		MarkMicro: m.MarkMicro, Stale: m.Stale, Worse: m.Worse, Back: m.Back,
	}
}

func trendFromWire(r *cidReader, w *wirev1.Trend) *Trend {
	return &Trend{
		LossMicro: w.LossMicro, BestMicro: w.BestMicro, BestState: r.read(w.BestState), BestRound: Round(w.BestRound),
		MarkMicro: w.MarkMicro, Stale: w.Stale, Worse: w.Worse, Back: w.Back,
	}
}
