package runner

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/proto/msg"
)

// sorted is a data set whose rows are sorted by subject, near the end of what can
// be learned: rows pull in directions of their own, few of them hard, and those of
// a shard a little in that of its subject.
type sorted struct {
	rows []int       // of shards
	pull [][]float64 // how hard rows are
}

const (
	sortedValues = 2048
	sortedShards = 15
	sortedRows   = 160 // of each shard
	sortedDrawn  = 64  // that a seat reads in a round
)

func newSorted() *sorted {
	s := &sorted{}
	rnd := rand.New(rand.NewPCG(5, 5))
	for range sortedShards {
		pull := make([]float64, sortedRows)
		for i := range pull {
			pull[i] = math.Exp(0.7 * rnd.NormFloat64())
		}
		s.rows, s.pull = append(s.rows, sortedRows), append(s.pull, pull)
	}
	return s
}

// delta is what an honest seat trains on the rows that it draws.
func (s *sorted) delta(head cid.Cid, id peer.ID) []float64 {
	out := make([]float64, sortedValues)
	dataset.Drawn(sampleSeed(head, id), sortedDrawn, s.rows, func(shard int, rows []int) {
		rnd := rand.New(rand.NewPCG(uint64(shard), 1<<32))
		subject := make([]float64, len(out))
		for i := range subject {
			subject[i] = 0.05 * rnd.NormFloat64()
		}
		for _, row := range rows {
			own := rand.New(rand.NewPCG(uint64(row), uint64(shard)))
			for i := range out {
				out[i] += s.pull[shard][row]*own.NormFloat64() + subject[i]
			}
		}
	})
	return out
}

// TestSortedBySubject: of honest seats that now and then have read the same shard
// hardly any is refused, and whoever copies each time is, but for the first time if
// it adds much noise.
func TestSortedBySubject(t *testing.T) {
	const rounds, seats = 60, 5
	data, d := newSorted(), newDrawnOf(t, sortedValues)
	var order []int
	for i := range seats {
		order = append(order, i)
	}
	var trained [rounds][][]float64
	for r := range rounds {
		for i := range seats {
			trained[r] = append(trained[r], data.delta(msg.RawCID([]byte(fmt.Sprint("sorted", r))), peer.ID(fmt.Sprint(i))))
		}
	}
	var k copies
	alike, refused := 0, 0
	for r, list := range trained {
		refused += len(d.copiedIn(&k, msg.Round(r), list, order))
		for _, a := range k.list {
			if a.alike {
				alike++
			}
		}
	}
	t.Logf("of %d honest deltas %d came near to an earlier one, and %d were refused", rounds*seats, alike, refused)
	if alike < 3 || refused > 1 {
		t.Errorf("of %d honest deltas %d came near to an earlier one, and %d were refused", rounds*seats, alike, refused)
	}
	for _, noise := range []float64{0.1, 0.3, 0.5, 0.8} {
		var k copies
		missed := 0
		for r, list := range trained {
			many := append([][]float64(nil), list...)
			length := math.Sqrt(dot64(list[0], list[0]) / sortedValues)
			many[seats-1] = d.noisy(list[0], noise*length)
			if got := d.copiedIn(&k, msg.Round(r), many, order); len(got) == 0 || got[len(got)-1] != seats-1 {
				missed++
			}
		}
		if missed > 1 || noise < 0.4 && missed > 0 {
			t.Errorf("with noise %v %d of %d copies are not found", noise, missed, rounds)
		}
	}
}

func dot64(a, b []float64) (sum float64) {
	for i, x := range a {
		sum += x * b[i]
	}
	return sum
}
