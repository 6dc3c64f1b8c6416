package gossip

import (
	"context"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// meetTime is how long what a peer says waits until this node has a stream to it.
// Then it is read all the same, but for what the peer wants to hear.
const meetTime = 10 * time.Second

// met knows to whom this node has a stream. Pubsub has no score of anybody else, so
// that no fence keeps own messages from them: they wait for the stream, and the first
// thing on it would be what they must not hear.
type met struct {
	untraced
	connected func(peer.ID) bool

	mu       sync.Mutex
	patience time.Duration    // guarded by mu; meetTime but in tests
	open     map[peer.ID]bool // guarded by mu
	missed   map[peer.ID]bool // guarded by mu; they said what they want to hear too early
	more     chan struct{}    // guarded by mu; closed when there is one more in open
}

func newMet(connected func(peer.ID) bool) *met {
	return &met{
		connected: connected, patience: meetTime,
		open: make(map[peer.ID]bool), missed: make(map[peer.ID]bool), more: make(chan struct{}),
	}
}

// OnNewOutboundStream is called by pubsub when it has begun to score a peer.
func (m *met) OnNewOutboundStream(p peer.ID, _ protocol.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open[p] = true
	close(m.more)
	m.more = make(chan struct{})
}

// OnClosedOutboundStream is called by pubsub when it has forgotten what a peer wants
// to hear.
func (m *met) OnClosedOutboundStream(p peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.open, p)
}

func (m *met) with(p peer.ID) (yes bool, more <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.open[p], m.more
}

// hears reports whether what a peer wants to hear counts; if not it has to say it again.
func (m *met) hears(p peer.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.open[p] && m.connected(p) { // else nobody would tell that it is gone
		m.missed[p] = true
	}
	return m.open[p]
}

// again lists those that have to say again what they want to hear, and can now.
func (m *met) again() (list []peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p := range m.missed {
		if m.open[p] {
			list = append(list, p)
			delete(m.missed, p)
		}
	}
	return list
}

func (m *met) gone(p peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.missed, p)
}

// wait waits until this node has a stream to the peer of s, but not for long.
func (m *met) wait(ctx context.Context, s network.Stream) {
	m.mu.Lock()
	end := time.Now().Add(m.patience)
	m.mu.Unlock()
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for ctx.Err() == nil && time.Now().Before(end) && !s.Conn().IsClosed() {
		yes, more := m.with(s.Conn().RemotePeer())
		if yes {
			return
		}
		select {
		case <-ctx.Done():
		case <-more:
		case <-t.C:
		}
	}
}

// patient is a host that hands over streams of peers when this node has one to them.
type patient struct {
	host.Host
	ctx context.Context // ends with the handing over
	met *met
}

// SetStreamHandler implements host.Host.
func (h patient) SetStreamHandler(id protocol.ID, next network.StreamHandler) {
	h.Host.SetStreamHandler(id, func(s network.Stream) {
		h.met.wait(h.ctx, s)
		next(s)
	})
}

// untraced is a pubsub.RawTracer that notes nothing.
type untraced struct{}

func (untraced) Join(string)                                          {}
func (untraced) Leave(string)                                         {}
func (untraced) Graft(peer.ID, string)                                {}
func (untraced) Prune(peer.ID, string)                                {}
func (untraced) ValidateMessage(*pubsub.Message)                      {}
func (untraced) DeliverMessage(*pubsub.Message)                       {}
func (untraced) RejectMessage(*pubsub.Message, string)                {}
func (untraced) DuplicateMessage(*pubsub.Message)                     {}
func (untraced) ThrottlePeer(peer.ID)                                 {}
func (untraced) RecvRPC(*pubsub.RPC)                                  {}
func (untraced) SendRPC(*pubsub.RPC, peer.ID)                         {}
func (untraced) SendRPCCompleted(*pubsub.RPC, peer.ID, time.Duration) {}
func (untraced) DropRPC(*pubsub.RPC, peer.ID)                         {}
func (untraced) UndeliverableMessage(*pubsub.Message)                 {}
