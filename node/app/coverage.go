package app

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/shard"
)

// covered counts the draws of one run.
type covered struct {
	mu sync.Mutex
	// guarded by mu
	rows   []int     // by shard
	draws  [][]uint8 // by shard and row; 255 is as many or more
	sum    []uint64  // by shard
	lost   uint64
	grid   *grid
	data   *shard.Dataset
	leaks  leaks
	head   string // record up to which it was counted, "" is the genesis
	round  uint64
	opened bool
	// partial: older records were missing when it was counted.
	partial bool
	ended   *api.Coverage // of a run that is over; the counts are gone then
}

// maxPasses is how many numbers of draws are told apart.
const maxPasses = 9

// maxCoverRows bounds the memory for a run, a byte a row.
const maxCoverRows = 1 << 26

// maxCoverDraws bounds what one contribution is followed for: beyond, all rows
// were drawn many times, or its maker says so.
const maxCoverDraws = 1 << 24

// Coverage implements api.Backend.
func (n *node) Coverage(ctx context.Context, id string) (api.Coverage, error) {
	p, err := n.runs.opened(id)
	if err != nil {
		return api.Coverage{}, err
	}
	c := n.covered.of(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	m, now := p.Manifest(), p.Summary()
	if c.ended != nil && now.Final && now.Head == c.head {
		return *c.ended, nil
	}
	if !c.opened {
		d, err := shard.OpenDataset(ctx, n.store, m.Dataset)
		if errors.Is(err, shard.ErrIncomplete) {
			return api.Coverage{}, api.Errorf(api.CodeRetry, "the data set of run %s is not here yet", id)
		}
		if err != nil {
			return api.Coverage{}, api.Errorf(api.CodeData, "%w", err)
		}
		if rows := d.Index().Train.Rows; rows > maxCoverRows {
			return api.Coverage{}, api.Errorf(api.CodeRefused, "the data set has %d rows; coverage is followed up to %d", rows, int64(maxCoverRows))
		}
		for _, s := range d.Index().Train.Shards {
			c.rows = append(c.rows, int(s.Rows))
		}
		c.data, c.leaks = d, leaks{}
		c.reset()
		c.opened = true
	}
	until := time.Now().Add(coverFor)
	if err := c.follow(ctx, p, drawing{uint64(m.Inner.BatchSamples), uint64(m.Inner.MinSteps)}, until); err != nil {
		return api.Coverage{}, err
	}
	if err := c.leaks.read(ctx, c.data, until.Add(coverFor)); err != nil {
		return api.Coverage{}, api.Errorf(api.CodeData, "%w", err)
	}
	out := c.tell(id)
	out.EvalRows = uint64(c.data.Index().Eval.Rows)
	if c.leaks.done {
		out.Leaks = new(c.leaks.found)
	}
	c.settle(now, &out)
	return out, nil
}

// settle keeps the answer in the place of the counts, when the run is over.
func (c *covered) settle(now api.Run, out *api.Coverage) {
	c.ended = nil
	if now.Final && now.Head == c.head && !c.partial && (c.data == nil || c.leaks.done || c.leaks.skipped) {
		c.ended, c.rows, c.draws, c.sum, c.grid, c.data, c.opened = out, nil, nil, nil, nil, nil, false
	}
}

// reset forgets all draws.
func (c *covered) reset() {
	c.draws, c.sum = make([][]uint8, len(c.rows)), make([]uint64, len(c.rows))
	for i, n := range c.rows {
		c.draws[i] = make([]uint8, n)
	}
	c.lost, c.grid = 0, newGrid(c.rows)
	c.head, c.round = "", 0
}

// drawing is how many rows a run draws: for a step, and of a delta the fewest steps.
type drawing struct{ batch, minSteps uint64 }

// of is how many rows so many steps draw, as far as they are followed.
func (d drawing) of(steps uint64) uint64 {
	return min(steps, maxCoverDraws/max(d.batch, 1)) * d.batch
}

// coverFor bounds how long one question counts older rounds; the next goes on.
const coverFor = 500 * time.Millisecond

// follow counts the rounds that were decided since the last time, as many as until
// allows; all, when the head moved to another branch. What was counted when ctx
// ends stays.
func (c *covered) follow(ctx context.Context, p participant, d drawing, until time.Time) error {
	// Of a run that was joined late, older rounds come when newer ones are counted.
	partial := p.Summary().RecordsFrom > 0
	if c.partial && !partial {
		c.reset()
	}
	c.partial = partial
	if c.round > 0 {
		last, err := p.Rounds(c.round, 1)
		if err != nil {
			return err
		}
		if len(last) == 0 || last[0].Round != c.round || last[0].Record != c.head {
			c.reset()
		}
	}
	for {
		page, err := p.Rounds(c.round+1, digestPage)
		if err != nil {
			return err
		}
		for _, r := range page {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := c.count(r, d); err != nil {
				return err
			}
			c.head, c.round = r.Record, r.Round
		}
		if len(page) < digestPage || over(ctx, until) {
			return ctx.Err()
		}
	}
}

// count adds the draws of a round.
func (c *covered) count(r api.Round, d drawing) error {
	head, err := cid.Decode(r.Parent)
	if err != nil {
		return err
	}
	for _, x := range r.Contributions {
		id, err := peer.Decode(x.Peer)
		if err != nil {
			return err
		}
		if x.Steps == 0 && x.Tokens > 0 { // of a cell, whose seats alone know
			return api.Errorf(api.CodeRefused, "which rows a run with cells was trained on is not known: its records have no steps")
		}
		n := d.of(x.Steps)
		if x.Weight == 0 {
			c.lose(r.Round, head, id, n)
			continue
		}
		band := c.grid.band(r.Round)
		dataset.Drawn(runner.SampleSeed(head, id), n, c.rows, func(shard int, rows []int) {
			drawn := c.draws[shard]
			band.Draws[shard/c.grid.size] += uint64(len(rows))
			if rows == nil {
				band.Draws[shard/c.grid.size] += uint64(len(drawn))
			}
			if rows == nil {
				c.sum[shard] += uint64(len(drawn))
				for i := range drawn {
					drawn[i] = more(drawn[i])
				}
				return
			}
			c.sum[shard] += uint64(len(rows))
			for _, i := range rows {
				drawn[i] = more(drawn[i])
			}
		})
		c.grid.drawn += n
	}
	for _, x := range r.Refused {
		if id, err := peer.Decode(x.Peer); err == nil { // else it is of a cell
			c.lose(r.Round, head, id, d.of(d.minSteps))
		}
	}
	return nil
}

// lose counts what was drawn for nothing.
func (c *covered) lose(round uint64, head cid.Cid, id peer.ID, n uint64) {
	band := c.grid.band(round)
	dataset.Drawn(runner.SampleSeed(head, id), n, c.rows, func(shard int, rows []int) {
		k := uint64(len(rows))
		if rows == nil {
			k = uint64(c.rows[shard])
		}
		band.Lost[shard/c.grid.size] += k
	})
	c.lost += n
}

func more(n uint8) uint8 {
	if n == math.MaxUint8 {
		return n
	}
	return n + 1
}

// tell sums up.
func (c *covered) tell(id string) api.Coverage {
	out := api.Coverage{Run: id, Round: c.round, Passes: make([]uint64, maxPasses), ShardCount: len(c.rows), Lost: c.lost, Grid: c.grid.tell()}
	size := (len(c.rows) + api.MaxCoverageShards - 1) / api.MaxCoverageShards
	for i := range c.rows {
		if i%size == 0 {
			out.Shards = append(out.Shards, api.CoverageShard{First: i})
		}
		s := &out.Shards[len(out.Shards)-1]
		s.Last = i
		s.Rows += uint64(c.rows[i])
		s.Draws += c.sum[i]
		if c.sum[i] > 0 {
			out.ShardsSeen++
		}
		for _, n := range c.draws[i] {
			out.Passes[min(int(n), maxPasses-1)]++
			if n > 0 {
				s.Seen++
			}
		}
		out.Rows += uint64(c.rows[i])
		out.Draws += c.sum[i]
	}
	for _, s := range out.Shards {
		out.Seen += s.Seen
	}
	for len(out.Passes) > 1 && out.Passes[len(out.Passes)-1] == 0 {
		out.Passes = slices.Delete(out.Passes, len(out.Passes)-1, len(out.Passes))
	}
	return out
}
