package p2p

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
)

// preferences are the peers that runs of this node depend on.
type preferences struct {
	mu    sync.RWMutex
	byRun map[string]map[peer.ID]bool // guarded by mu
}

// Prefer names the peers on which the run called name depends, in the place of
// those that were named before: those with a seat. They are served when strangers
// take all that there is for them, for identities cost nothing, and stay connected
// if they are few.
func (h *Host) Prefer(name string, peers []peer.ID) {
	next := make(map[peer.ID]bool, len(peers))
	for _, p := range peers {
		next[p] = p != h.ID()
	}
	h.preferred.mu.Lock()
	defer h.preferred.mu.Unlock()
	if h.preferred.byRun == nil {
		h.preferred.byRun = make(map[string]map[peer.ID]bool)
	}
	for p := range h.preferred.byRun[name] {
		if !next[p] {
			h.host.ConnManager().Unprotect(p, "seat "+name)
		}
	}
	for p := range next {
		if next[p] && len(next) <= maxMeetConns {
			h.host.ConnManager().Protect(p, "seat "+name)
		}
	}
	if h.preferred.byRun[name] = next; len(next) == 0 {
		delete(h.preferred.byRun, name)
	}
}

// Preferred says whether a run of this node depends on a peer.
func (h *Host) Preferred(p peer.ID) bool {
	h.preferred.mu.RLock()
	defer h.preferred.mu.RUnlock()
	for _, run := range h.preferred.byRun {
		if run[p] {
			return true
		}
	}
	return false
}
