package app

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/shard"
)

// chain is a participant that has rounds.
type chain struct {
	participant
	rounds []api.Round
	told   int // rounds, so far
}

func (c *chain) Summary() api.Run { return api.Run{Round: uint64(len(c.rounds))} }

func (c *chain) Rounds(from uint64, limit int) ([]api.Round, error) {
	var out []api.Round
	for _, r := range c.rounds {
		if r.Round >= from && len(out) < limit {
			out = append(out, r)
			c.told++
		}
	}
	return out, nil
}

// Rows are counted once for each round, also when the head moves to another
// branch.
func TestCoverage(t *testing.T) {
	peers := []string{"12D3KooWGRUfgbkZ8yGvnaXKcA5QfDBJUE4RbqTnc8WBzeVPr5qC", "12D3KooWCUNPg3qPTxFUSPYUDPgGhUSaLKXzYTHxfXXnWvdQmuYk"}
	round := func(n uint64, branch string, steps ...uint64) api.Round {
		r := api.Round{Round: n, Parent: recordCID(n-1, branch), Record: recordCID(n, branch)}
		for i, s := range steps {
			r.Contributions = append(r.Contributions, api.Contribution{Peer: peers[i], Steps: s, Weight: 1})
		}
		return r
	}
	fresh := func() *covered {
		c := &covered{rows: []int{10, 0, 20, 5}}
		c.reset()
		return c
	}
	c, p := fresh(), &chain{rounds: []api.Round{round(1, "a", 1, 2), round(2, "a", 3)}}
	follow := func(c *covered) api.Coverage {
		t.Helper()
		if err := c.follow(t.Context(), p, drawing{4, 1}, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		return c.tell("x")
	}
	got := follow(c)
	if got.Rows != 35 || got.Draws != 4*(1+2+3) || got.Seen == 0 || got.Seen > 24 || got.Round != 2 {
		t.Errorf("%+v", got)
	}
	sum := uint64(0)
	for i, n := range got.Passes {
		sum += uint64(i) * n
	}
	if sum != got.Draws || len(got.Shards) != 4 || got.Shards[2].Rows != 20 {
		t.Errorf("passes %v, shards %+v", got.Passes, got.Shards)
	}
	p.rounds = append(p.rounds, round(3, "a", 9, 9)) // more than all rows
	if diff := cmp.Diff(follow(fresh()), follow(c)); diff != "" {
		t.Errorf("round by round it is another (-at once +step by step):\n%s", diff)
	}
	p.told = 0
	if got := follow(c); got.Seen != 35 || p.told != 1 { // the last, to see that it still is
		t.Errorf("after a whole pass, looking at %d rounds again: %+v", p.told, got)
	}
	p.rounds = []api.Round{round(1, "b", 1), round(2, "b", 1), round(3, "b", 1), round(4, "b", 1)}
	if got := follow(c); got.Draws != 16 || got.Round != 4 {
		t.Errorf("on another branch: %+v", got)
	}
	// By pass and shard it is the same in all; a refused delta, and one that counts
	// for nothing, was drawn for nothing.
	c = &covered{rows: []int{10, 0, 20, 5}}
	c.reset()
	p.rounds = nil
	for n := uint64(1); n <= 400; n++ {
		r := round(n, "c", 3, 2)
		r.Contributions[1].Weight = n % 2
		if n%3 == 0 {
			r.Refused = []api.Refusal{{Peer: peers[0], Reason: "timeout"}, {Peer: "cell 1", Reason: "timeout"}}
		}
		p.rounds = append(p.rounds, r)
	}
	got = follow(c)
	draws, lost := uint64(0), uint64(0)
	for i, b := range got.Grid.Passes {
		for j := range b.Draws {
			draws += b.Draws[j]
			lost += b.Lost[j]
		}
		if i > 0 && (b.First <= got.Grid.Passes[i-1].Last || b.FromRound < got.Grid.Passes[i-1].ToRound) {
			t.Errorf("passes %d to %d of rounds %d to %d follow %+v", b.First, b.Last, b.FromRound, b.ToRound, got.Grid.Passes[i-1])
		}
	}
	if want := uint64(400*3*4 + 200*2*4); draws != want || got.Draws != want {
		t.Errorf("%d draws by pass, %d in all, want %d", draws, got.Draws, want)
	}
	if want := uint64(200*2*4 + 133*4); lost != want || got.Lost != want {
		t.Errorf("%d draws for nothing by pass, %d in all, want %d", lost, got.Lost, want)
	}
	if n := len(got.Grid.Passes); n > api.MaxGridPasses || n < api.MaxGridPasses/2 || got.Grid.Passes[n-1].Last != (draws-20)/35+1 || len(got.Grid.Shards) != 4 || got.ShardCount != 4 || got.ShardsSeen != 3 {
		t.Errorf("%d passes, the last %+v, %d columns, %d of %d shards seen", n, got.Grid.Passes[n-1], len(got.Grid.Shards), got.ShardsSeen, got.ShardCount)
	}
	// However many steps the manifest wants, a refused delta is not followed for
	// ever.
	c = &covered{rows: []int{100}}
	c.reset()
	if err := c.count(api.Round{Round: 1, Parent: recordCID(0, "d"), Refused: []api.Refusal{{Peer: peers[0]}}}, drawing{1 << 16, 1e6}); err != nil || c.lost != maxCoverDraws {
		t.Errorf("%d draws for nothing, %v", c.lost, err)
	}
	// Many shards are told together.
	c = &covered{rows: slices.Repeat([]int{1}, 3*api.MaxCoverageShards+1)}
	c.reset()
	if got := c.tell("x"); len(got.Shards) > api.MaxCoverageShards || got.Shards[len(got.Shards)-1].Last != len(c.rows)-1 || got.Rows != uint64(len(c.rows)) ||
		len(got.Grid.Shards) > api.MaxGridShards || got.Grid.Shards[len(got.Grid.Shards)-1].Last != len(c.rows)-1 {
		t.Errorf("%d shards are told as %d", len(c.rows), len(got.Shards))
	}
}

func recordCID(n uint64, branch string) string {
	sum, err := multihash.Sum(fmt.Append(nil, n, branch), multihash.SHA2_256, -1)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.Raw, sum).String()
}

// TestCoverageIsFreed: of a run that is over the answer stays and the counts go;
// what nobody asks for goes too, and what is asked for stays.
func TestCoverageIsFreed(t *testing.T) {
	for _, l := range []leaks{{}, {skipped: true}, {done: true}} {
		c := &covered{head: "b", data: new(shard.Dataset), leaks: l}
		if c.settle(api.Run{Head: "b", Final: true}, new(api.Coverage)); (c.ended != nil) != (l.done || l.skipped) {
			t.Errorf("settled %v with leaks %+v", c.ended != nil, l)
		}
	}
	c := &covered{rows: []int{3}}
	c.reset()
	c.head, c.opened = "b", true
	out := api.Coverage{Run: "x", Round: 2, Rows: 3}
	c.settle(api.Run{Head: "b"}, &out)
	if c.ended != nil || c.draws == nil {
		t.Error("the counts of a run that goes on are gone")
	}
	c.settle(api.Run{Head: "c", Final: true}, &out)
	if c.ended != nil || c.draws == nil {
		t.Error("the counts are gone before the last round was counted")
	}
	c.settle(api.Run{Head: "b", Final: true}, &out)
	if c.ended == nil || c.draws != nil || c.rows != nil || c.opened || c.ended.Rows != 3 {
		t.Errorf("the counts of a run that is over: %+v", c)
	}

	synctest.Test(t, func(t *testing.T) {
		l := new(perRun[covered])
		idle, asked := l.of("idle"), l.of("asked")
		time.Sleep(keptFor / 2)
		if l.of("asked") != asked {
			t.Error("other counts at once")
		}
		time.Sleep(keptFor * 3 / 4)
		synctest.Wait()
		if len(l.runs) != 1 || l.runs["asked"].value != asked || l.of("idle") == idle {
			t.Errorf("%d runs are kept", len(l.runs))
		}
		time.Sleep(2 * keptFor)
		synctest.Wait()
		if len(l.runs) > 0 {
			t.Errorf("%d runs are kept for ever", len(l.runs))
		}
	})
}
