package runner

import (
	"context"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
)

// branchWait is how long a delta of a branch is waited for.
const branchWait = 2 * time.Minute

// bringBranch pulls the deltas of a branch that this node left its own for, and
// did not fold itself: the run can be replayed from its folder then, and others
// can have them from one more. Of branches that are longer than what stays on
// the disk it pulls the end.
func (r *Runner) bringBranch(ctx context.Context, links []round.Link) {
	size := fold.EncodedBytes(r.layout, int(r.manifest.CodecBits))
	room := keepRoundBytes / size
	r.running.Go(func() {
		lacking := 0
		for i := len(links) - 1; i >= 0 && room > 0; i-- {
			rec := links[i].Record
			if round.Cells(len(rec.Seats)) > 0 {
				continue // what cells came to; each brings its own
			}
			for _, c := range rec.Contributions {
				if room--; !r.bringDelta(ctx, rec.Seats[c.Seat].Peer, c.Delta, size) {
					lacking++
				}
				if ctx.Err() != nil {
					return
				}
			}
		}
		if lacking > 0 {
			r.log.WarnContext(ctx, "deltas of the branch that is followed now were not brought", "deltas", lacking)
		}
	})
}

func (r *Runner) bringDelta(ctx context.Context, from peer.ID, id cid.Cid, size int64) bool {
	ctx, cancel := context.WithTimeout(ctx, branchWait)
	defer cancel()
	return r.deltas.fetcher.Fetch(ctx, id, size+dagOverhead(size), []peer.ID{from}) == nil
}
