package app

import "github.com/moot-net/moot/node/api"

// grid counts draws by shard and pass, in a bounded number of columns and bands.
type grid struct {
	rows  uint64 // of the data set
	size  int    // shards in a column
	cols  []api.CoverageSpan
	per   uint64 // passes in a band; it doubles when there are too many
	bands []api.CoveragePass
	drawn uint64 // in all, which says what pass it is
}

// newGrid makes the grid of shards that have so many rows each.
func newGrid(rows []int) *grid {
	g := &grid{size: max(1, (len(rows)+api.MaxGridShards-1)/api.MaxGridShards), per: 1}
	for i, n := range rows {
		if i%g.size == 0 {
			g.cols = append(g.cols, api.CoverageSpan{First: i})
		}
		c := &g.cols[len(g.cols)-1]
		c.Last = i
		c.Rows += uint64(n)
		g.rows += uint64(n)
	}
	return g
}

// band is where what is drawn in a round is counted.
func (g *grid) band(round uint64) *api.CoveragePass {
	pass := g.drawn/max(1, g.rows) + 1
	for (pass-1)/g.per >= api.MaxGridPasses {
		g.fold()
	}
	first := (pass-1)/g.per*g.per + 1
	if n := len(g.bands); n == 0 || g.bands[n-1].First != first {
		g.bands = append(g.bands, api.CoveragePass{First: first, FromRound: round, Draws: make([]uint64, len(g.cols)), Lost: make([]uint64, len(g.cols))})
	}
	b := &g.bands[len(g.bands)-1]
	b.Last, b.ToRound = pass, round
	return b
}

// fold puts each two bands together.
func (g *grid) fold() {
	g.per *= 2
	var out []api.CoveragePass
	for _, b := range g.bands {
		first := (b.First-1)/g.per*g.per + 1
		if n := len(out); n > 0 && out[n-1].First == first {
			a := &out[n-1]
			a.Last, a.ToRound = b.Last, b.ToRound
			for i := range b.Draws {
				a.Draws[i] += b.Draws[i]
				a.Lost[i] += b.Lost[i]
			}
			continue
		}
		b.First = first
		out = append(out, b)
	}
	g.bands = out
}

// tell copies the grid.
func (g *grid) tell() api.CoverageGrid {
	out := api.CoverageGrid{Shards: append([]api.CoverageSpan{}, g.cols...), Passes: []api.CoveragePass{}}
	for _, b := range g.bands {
		b.Draws, b.Lost = append([]uint64{}, b.Draws...), append([]uint64{}, b.Lost...)
		out.Passes = append(out.Passes, b)
	}
	return out
}
