package app

import (
	"context"
	"sync"
	"time"

	"github.com/moot-net/moot/node/api"
)

// digest sums up the rounds of one run, so that each is read once.
type digest struct {
	mu sync.Mutex
	// guarded by mu
	settled api.Digest // rounds that do not change any more
	// partial: older records were missing when it was summed up.
	partial bool
}

const (
	// settledAfter is how many rounds later nothing is told anew of a round: its
	// certificate, its held-out loss, and what is taken back come before.
	settledAfter = 20
	// digestPage is how many rounds are read at once.
	digestPage = 50
	// digestFor bounds how long one question reads older rounds.
	digestFor = 500 * time.Millisecond
)

// read reads the rounds that were decided since the last time, of many older ones
// as many as until allows, and returns the sum, and the last round that is decided.
func (d *digest) read(ctx context.Context, p participant, self string, until time.Time) (*api.Digest, uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := p.Summary()
	// Of a run that was joined late, older rounds come when newer ones are counted.
	partial := now.RecordsFrom > 0
	if last, record := d.settled.Last(); last > 0 && (d.partial && !partial || !isAt(p, last, record)) {
		d.settled = api.Digest{}
	}
	d.partial, d.settled.Self = partial, self
	for {
		last, _ := d.settled.Last()
		page, err := p.Rounds(last+1, digestPage)
		if err != nil {
			return nil, 0, err
		}
		tail := page
		for len(tail) > 0 && tail[0].Round+settledAfter <= now.Round {
			d.settled.Add(tail[0])
			tail = tail[1:]
		}
		if len(page) < digestPage || len(tail) == len(page) {
			return d.settled.With(tail), max(now.Round, lastOf(page)), nil
		}
		if ctx.Err() != nil || !time.Now().Before(until) {
			return d.settled.With(nil), now.Round, ctx.Err()
		}
	}
}

// isAt reports whether a round of p has this record.
func isAt(p participant, round uint64, record string) bool {
	r, err := p.Rounds(round, 1)
	return err == nil && len(r) == 1 && r[0].Round == round && r[0].Record == record
}

func lastOf(page []api.Round) uint64 {
	if len(page) == 0 {
		return 0
	}
	return page[len(page)-1].Round
}

// Series implements api.Backend.
func (n *node) Series(ctx context.Context, id string, limit int) (api.Series, error) {
	d, head, err := n.digest(ctx, id)
	if err != nil {
		return api.Series{}, err
	}
	s := d.Series(limit)
	s.Run, s.Head = id, head
	return s, nil
}

// RunPeers implements api.Backend.
func (n *node) RunPeers(ctx context.Context, id string) (api.RunPeers, error) {
	d, head, err := n.digest(ctx, id)
	if err != nil {
		return api.RunPeers{}, err
	}
	v := d.Peers()
	v.Run, v.Head = id, head
	return v, nil
}

func (n *node) digest(ctx context.Context, id string) (*api.Digest, uint64, error) {
	p, err := n.runs.opened(id)
	if err != nil {
		return nil, 0, err
	}
	return n.digests.of(id).read(ctx, p, n.host.ID().String(), time.Now().Add(digestFor))
}
