package p2p

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"
)

const (
	bootstrapCheck  = 5 * time.Second  // how often a lost bootstrap peer is noticed
	bootstrapAlone  = 15 * time.Second // at most between two tries of a node that has no peer at all
	bootstrapRemind = 10 * time.Minute // between warnings about one that stays away
)

// runBootstrap keeps connections to the configured peers for ever.
func (h *Host) runBootstrap(ctx context.Context) error {
	var g errgroup.Group
	for _, ai := range h.opt.bootstrap {
		if ai.ID == h.ID() {
			continue
		}
		g.Go(func() error {
			h.keepBootstrap(ctx, ai)
			return nil
		})
	}
	return g.Wait()
}

func (h *Host) keepBootstrap(ctx context.Context, ai peer.AddrInfo) {
	var fails int
	var told time.Time
	for ctx.Err() == nil {
		wait := bootstrapCheck
		if !h.connected(ai.ID) {
			err := h.dial(ctx, ai)
			switch {
			case ctx.Err() != nil:
				return
			case err == nil:
				h.log.InfoContext(ctx, "connected to bootstrap peer", "peer", ai.ID, "address", ai.Addrs[0].String())
				fails, told = 0, time.Time{}
			default:
				wait = bootstrapWait(fails, len(h.host.Network().Peers()) == 0)
				fails++
				if time.Since(told) > bootstrapRemind {
					told = time.Now()
					h.log.WarnContext(ctx, "bootstrap peer was not reached, trying on",
						"address", ai.Addrs[0].String(), "peer", ai.ID, "err", err)
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// bootstrapWait is how long to wait after n earlier failures. A node without any
// peer has nothing better to do than to try.
func bootstrapWait(n int, alone bool) time.Duration {
	if alone {
		return min(backoff(n), bootstrapAlone)
	}
	return backoff(n)
}
