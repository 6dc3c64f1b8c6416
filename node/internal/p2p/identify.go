package p2p

import (
	"context"
	"time"
)

const (
	unidentifiedEvery = 15 * time.Second
	unidentifiedFor   = 45 * time.Second // nine times what libp2p gives a peer to say what it speaks
)

// runUnidentified ends connections to peers of which nobody knows what they speak, until
// ctx is done. Libp2p asks once for each connection; when that is lost, on a line or a
// machine that is busy, the peer is asked for nothing for as long as it is connected.
// With a new connection it is asked again.
func (h *Host) runUnidentified(ctx context.Context) error {
	t := time.NewTicker(unidentifiedEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			h.closeUnidentified(ctx, time.Now())
		}
	}
}

func (h *Host) closeUnidentified(ctx context.Context, now time.Time) {
	for _, c := range h.host.Network().Conns() {
		p := c.RemotePeer()
		if now.Sub(c.Stat().Opened) < unidentifiedFor {
			continue
		}
		if known, err := h.host.Peerstore().GetProtocols(p); err != nil || len(known) > 0 {
			continue
		}
		h.log.DebugContext(ctx, "connection to a peer that was not identified was closed", "peer", p)
		_ = c.Close() // it is of no use either way
	}
}
