package sim

import (
	"context"
	"flag"
	"math"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/demo"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

var (
	alikeRounds = flag.Int("alike", 0, "rounds of TestHonestAlike; a hundred take a minute or two of processor time")
	alikeSorted = flag.Bool("alike-sorted", false, "TestHonestAlike has the rows sorted by subject")
	alikeSeed   = flag.Uint64("alike-seed", 1, "seed of TestHonestAlike")
)

// watched notes what seats train.
type watched struct {
	*realTask
	trained map[cid.Cid][][]int32
}

func (t watched) train(ctx context.Context, a assignment) (learned, error) {
	l, err := t.realTask.train(ctx, a)
	t.trained[a.head] = append(t.trained[a.head], l.values)
	return l, err
}

// TestHonestAlike measures how near honest deltas come to each other when nearly all
// is learned, and that few are taken for copies for it: five peers with the
// demo's model and data, at a learning rate that stays.
func TestHonestAlike(t *testing.T) {
	if *alikeRounds == 0 {
		t.Skip("trains for a minute or more: set -alike 100")
	}
	dir := t.TempDir()
	a, err := demo.Write(filepath.Join(dir, "assets"))
	if err != nil {
		t.Fatal(err)
	}
	s := &subject{model: a.ModelDir, steps: 8, usual: tuning{rate: 4_000_000, outer: baseManifest().Outer}}
	err = s.open(t.Context(), filepath.Join(dir, "shards"), shard.DatasetOptions{
		Files: a.Data.Files, EvalFile: a.Data.EvalFile, Seed: a.Data.Seed, Shuffle: !*alikeSorted, ShardBytes: a.Data.ShardBytes,
		Licence: a.Data.Licence, Source: a.Data.Source, Template: a.Data.Template,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.store.Close(); err != nil {
			t.Error(err)
		}
	}()
	s.base.Schedule, s.base.Trust = run.ScheduleConstant, run.Trust{}
	tr := &trial{ctx: t.Context(), demo: true, Options: Options{Seed: *alikeSeed, Lab: &Lab{dir: dir, demo: s}}}
	w, err := tr.realWorld(5, *alikeRounds, wide(), tuning{})
	if err != nil {
		t.Fatal(err)
	}
	task := watched{w.task.(*realTask), make(map[cid.Cid][][]int32)}
	w.task = task
	w.start(w.nodes...)
	if ok, err := tr.finish(w, 4**alikeRounds); err != nil || !ok {
		t.Fatalf("the run did not end: %v", err)
	}
	pairs, near, sum, most := 0, 0, 0.0, 0.0
	for _, l := range w.nodes[0].chain.links {
		if l.Record.TrainedRounds < 20 {
			continue // all still go the same way
		}
		list := task.trained[l.ID]
		for i := range list {
			for j := range i {
				c := cosineOf(list[i], list[j])
				pairs, sum, most = pairs+1, sum+c, max(most, c)
				if c > 0.5 {
					near++
				}
			}
		}
	}
	tally := w.tally(w.nodes[0], 0, roundOf(w.nodes[0]))
	t.Logf("cosines of %d pairs after the 20th round: %.3f on average, %.3f at most, %d above 0.5; of %d deltas %d were refused as copies",
		pairs, sum/float64(max(pairs, 1)), most, near, tally.honestSeats, tally.takenForCopies)
	if tally.takenForCopies*33 > tally.honestSeats {
		t.Errorf("of %d honest deltas %d were taken for copies, want 3 %% at most", tally.honestSeats, tally.takenForCopies)
	}
}

func cosineOf(a, b []int32) float64 {
	var ab, aa, bb float64
	for i, x := range a {
		x, y := float64(x), float64(b[i])
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	return ab / math.Sqrt(aa*bb)
}
