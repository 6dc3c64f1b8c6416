package p2p

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
)

const (
	mdnsService  = "_moot-p2p._udp"
	maxMDNSQueue = 64
)

// mdnsFound hands on what the LAN said. When more arrive than can be dialled,
// they are dropped: their nodes will be heard again.
type mdnsFound chan peer.AddrInfo

func (f mdnsFound) HandlePeerFound(ai peer.AddrInfo) {
	select {
	case f <- ai:
	default:
	}
}

// runMDNS finds nodes on the LAN. Where there is no multicast, it says so.
func (h *Host) runMDNS(ctx context.Context) error {
	if onlyLoopback(h.opt.listen) {
		return nil // nobody on the LAN could dial us
	}
	found := make(mdnsFound, maxMDNSQueue)
	s := mdns.NewMdnsService(h.host, mdnsService, found)
	if err := s.Start(); err != nil {
		h.log.WarnContext(ctx, "nodes on the LAN are not found by mDNS", "err", err)
		return nil
	}
	defer func() { _ = s.Close() }() // it only stops listening
	sem := make(chan struct{}, dialsAtOnce)
	defer func() {
		for range dialsAtOnce {
			sem <- struct{}{} // every dial has ended
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case ai := <-found:
			select {
			case <-ctx.Done():
				return nil
			case sem <- struct{}{}:
			}
			go func() {
				defer func() { <-sem }()
				h.reachAll(ctx, "mdns", []peer.AddrInfo{ai})
			}()
		}
	}
}
