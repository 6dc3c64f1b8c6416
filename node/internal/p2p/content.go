package p2p

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	provideTimeout  = time.Minute
	provideAgain    = 11 * time.Hour // other nodes forget after 48 hours
	provideRetry    = 15 * time.Second
	provideAlone    = 500 * time.Millisecond
	maxProvided     = 4096
	maxProvidersRun = 64
)

// Provide tells the network that this node has c, and says so again from time
// to time while the host runs. It returns at once; it is no error to be
// alone, for the announcement is repeated until somebody heard it. The oldest
// of more than 4096 are not repeated.
func (h *Host) Provide(_ context.Context, c cid.Cid) error {
	if !c.Defined() {
		return fmt.Errorf("provide: no CID")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.provided[c]; ok {
		return nil
	}
	if len(h.provided) >= maxProvided {
		oldest := c
		for k, t := range h.provided {
			if oldest == c || t.Before(h.provided[oldest]) {
				oldest = k
			}
		}
		delete(h.provided, oldest)
	}
	h.provided[c] = time.Time{}
	select {
	case h.provideWake <- struct{}{}:
	default:
	}
	return nil
}

// runProvide announces what is due.
func (h *Host) runProvide(ctx context.Context) error {
	for {
		wait := provideRetry
		if h.dht.RoutingTable().Size() == 0 && (h.ipfs == nil || h.ipfs.RoutingTable().Size() == 0) {
			wait = provideAlone // nobody to tell yet
		} else {
			h.provideDue(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		case <-h.provideWake:
		}
	}
}

func (h *Host) provideDue(ctx context.Context) {
	for _, c := range h.dueProvides(time.Now()) {
		pctx, cancel := context.WithTimeout(ctx, provideTimeout)
		err := h.provide(pctx, c)
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			h.log.DebugContext(ctx, "cid was not announced", "cid", c, "err", err)
			continue
		}
		h.mu.Lock()
		if _, ok := h.provided[c]; ok {
			h.provided[c] = time.Now()
		}
		h.mu.Unlock()
	}
}

// provide tells both networks; it is enough that one of them heard it.
func (h *Host) provide(ctx context.Context, c cid.Cid) error {
	err := h.dht.Provide(ctx, c, true)
	if h.ipfs == nil {
		return err
	}
	if ierr := h.ipfs.Provide(ctx, c, true); ierr != nil && err != nil {
		return errors.Join(err, ierr)
	}
	return nil
}

func (h *Host) dueProvides(now time.Time) []cid.Cid {
	h.mu.Lock()
	defer h.mu.Unlock()
	var due []cid.Cid
	for c, at := range h.provided {
		if now.Sub(at) > provideAgain {
			due = append(due, c)
		}
	}
	return due
}

// FindProviders asks the network who has c. It returns what it found when ctx
// ends or nobody is left to ask.
func (h *Host) FindProviders(ctx context.Context, c cid.Cid) ([]peer.AddrInfo, error) {
	if !c.Defined() {
		return nil, fmt.Errorf("find providers: no CID")
	}
	var out []peer.AddrInfo
	for ai := range h.FindProvidersAsync(ctx, c, maxProvidersRun) {
		out = append(out, ai)
	}
	return out, nil
}

// FindProvidersAsync is [Host.FindProviders] one by one, as bitswap wants it.
// The channel must be read until it is closed, or ctx must end. This node
// itself and peers that are blocked are left out.
func (h *Host) FindProvidersAsync(ctx context.Context, c cid.Cid, limit int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo)
	var wg sync.WaitGroup
	for _, d := range []*dht.IpfsDHT{h.dht, h.ipfs} {
		if d == nil {
			continue
		}
		wg.Go(func() {
			for ai := range d.FindProvidersAsync(ctx, c, limit) {
				if ai.ID == h.ID() || h.Blocked(ai.ID) {
					continue
				}
				select {
				case out <- ai:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	go func() {
		wg.Wait()
		close(out)
	}()
	return out
}
