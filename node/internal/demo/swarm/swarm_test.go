package swarm_test

import (
	"errors"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/demo"
	"github.com/moot-net/moot/node/internal/demo/swarm"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/shard"
)

func newSwarm(t *testing.T) *swarm.Swarm {
	t.Helper()
	a, err := demo.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := a.Data
	s, err := swarm.New(t.Context(), swarm.Options{
		Dir: t.TempDir(), ModelDir: a.ModelDir, RunFile: a.RunFile,
		Data: shard.DatasetOptions{Files: d.Files, EvalFile: d.EvalFile, ShardBytes: d.ShardBytes, Template: d.Template},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// heads trains three rounds and returns the states after each.
func heads(t *testing.T, s *swarm.Swarm, peers []swarm.Peer) (heads []cid.Cid, contributions []int) {
	t.Helper()
	enough := errors.New("enough")
	_, err := s.Run(t.Context(), peers, func(r swarm.Round, state *fold.State) error {
		heads = append(heads, state.CID())
		contributions = append(contributions, r.Contributions)
		if r.Number == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	return heads, contributions
}

// A run is the same each time; and the first contribution of a peer that joins
// late has no weight, the second one has.
func TestLateJoiner(t *testing.T) {
	s := newSwarm(t)
	one := func(int) int { return 1 }
	peers := []swarm.Peer{{Joins: 1, Steps: one}, {Joins: 1, Steps: one}}
	alone, _ := heads(t, s, peers)
	joined, contributions := heads(t, s, append(peers, swarm.Peer{Joins: 2, Steps: one}))
	if alone[0] != joined[0] || alone[1] != joined[1] {
		t.Errorf("the states are %v, then %v", alone, joined)
	}
	if alone[2] == joined[2] {
		t.Error("the late joiner changes nothing in round 3")
	}
	if contributions[0] != 2 || contributions[1] != 3 || contributions[2] != 3 {
		t.Errorf("contributions %v", contributions)
	}
}

func TestLeaves(t *testing.T) {
	one := func(int) int { return 1 }
	_, contributions := heads(t, newSwarm(t), []swarm.Peer{{Joins: 1, Steps: one}, {Joins: 1, Leaves: 3, Steps: one}})
	if contributions[1] != 2 || contributions[2] != 1 {
		t.Errorf("contributions %v", contributions)
	}
}
