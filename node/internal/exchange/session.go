package exchange

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	firstStall  = 20 * time.Second // without any block; then peers are chosen anew
	maxStall    = 2 * time.Minute
	dialTimeout = 15 * time.Second
	maxDialled  = 32 // of the providers that were named
	namedPeers  = 4  // in an error
)

// session is one choice of peers.
type session struct {
	get   getter
	ctx   context.Context
	end   context.CancelFunc
	begun time.Time
}

// current returns the session, which it begins if there is none.
func (f *fetch) current(ctx context.Context) (*session, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-f.e.ready:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.session == nil {
		// The first to need one also sets the watch, which ends with ctx.
		f.begin(ctx)
		f.e.fetching.Go(func() { f.watch(ctx) })
	}
	return f.session, nil
}

// begin is called with f.mu held.
func (f *fetch) begin(ctx context.Context) {
	sctx, end := context.WithCancel(ctx)
	f.session = &session{get: f.e.proto.session(sctx), ctx: sctx, end: end, begun: time.Now()}
}

// watch begins a new session when the present one stalls: its peers hold the
// blocks and do not give them, while others may have come that do.
func (f *fetch) watch(ctx context.Context) {
	f.dial(ctx)
	for stall := firstStall; ; {
		select {
		case <-ctx.Done():
			return
		case <-f.e.ctx.Done():
			f.fail(ErrClosed)
			return
		case <-time.After(f.patience(stall)):
		}
		old, stalled := f.renew(ctx, &stall)
		if !stalled {
			continue
		}
		old.end()
		f.e.log.InfoContext(ctx, "fetch stalled, asking anew", "root", f.root, "peers", f.asked())
		f.dial(ctx)
	}
}

// patience is how long until the session will have stalled.
func (f *fetch) patience(stall time.Duration) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Until(f.lastSign().Add(stall))
}

// lastSign is called with f.mu held.
func (f *fetch) lastSign() time.Time {
	if f.arrived.After(f.session.begun) {
		return f.arrived
	}
	return f.session.begun
}

// renew replaces a session that stalled and adjusts the patience with the next.
func (f *fetch) renew(ctx context.Context, stall *time.Duration) (old *session, stalled bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.arrived.After(f.session.begun) {
		*stall = firstStall
	}
	if time.Since(f.lastSign()) < *stall {
		return nil, false
	}
	*stall = min(2**stall, maxStall)
	old = f.session
	f.begin(ctx)
	return old, true
}

// dial connects to the providers that were named.
func (f *fetch) dial(ctx context.Context) {
	for _, p := range f.o.Providers[:min(len(f.o.Providers), maxDialled)] {
		if p == f.e.host.ID() {
			continue
		}
		f.e.fetching.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			if err := f.e.host.Connect(ctx, peer.AddrInfo{ID: p}); err != nil {
				f.e.log.DebugContext(ctx, "provider was not reached", "peer", p, "err", err)
			}
		})
	}
}

// asked names the peers that know what is wanted: the providers, and those
// that are connected and speak bitswap.
func (f *fetch) asked() []peer.ID {
	out := append([]peer.ID(nil), f.o.Providers...)
	have := make(map[peer.ID]bool)
	for _, p := range out {
		have[p] = true
	}
	for _, p := range f.e.host.Network().Peers() {
		if have[p] {
			continue
		}
		if ok, err := f.e.host.Peerstore().SupportsProtocols(p, protocols...); err == nil && len(ok) > 0 {
			out = append(out, p)
		}
	}
	return out
}

// explain says how far a fetch came that was ended from outside.
func (f *fetch) explain(cause error) error {
	f.mu.Lock()
	have, met, done, total := f.blocks, len(f.known), f.done, f.total
	f.mu.Unlock()
	asked := f.asked()
	who := "no peer to ask"
	if n := len(asked); n > 0 {
		var names []string
		for _, p := range asked[:min(n, namedPeers)] {
			names = append(names, p.String())
		}
		if n > namedPeers {
			names = append(names, fmt.Sprintf("%d more", n-namedPeers))
		}
		who = "asked " + strings.Join(names, ", ")
	}
	if have == 0 {
		return fmt.Errorf("nothing of it came, %s: %w", who, cause)
	}
	return fmt.Errorf("%d of %d blocks, %d of %d bytes, %s: %w", have, met, done, total, who, cause)
}
