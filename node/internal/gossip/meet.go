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
	patience time.Duration              // guarded by mu; meetTime but in tests
	open     map[peer.ID]bool           // guarded by mu
	missed   map[peer.ID]bool           // guarded by mu; they said what they want to hear too early
	waiting  map[peer.ID]network.Stream // guarded by mu; the last of each
	more     chan struct{}              // guarded by mu; closed when there is one more in open, or another one in waiting
}

func newMet(connected func(peer.ID) bool) *met {
	return &met{
		connected: connected, patience: meetTime,
		open: make(map[peer.ID]bool), missed: make(map[peer.ID]bool),
		waiting: make(map[peer.ID]network.Stream), more: make(chan struct{}),
	}
}

// OnNewOutboundStream is called by pubsub when it has begun to score a peer.
func (m *met) OnNewOutboundStream(p peer.ID, _ protocol.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open[p] = true
	m.wake()
}

// OnClosedOutboundStream is called by pubsub when it has forgotten what a peer wants
// to hear.
func (m *met) OnClosedOutboundStream(p peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.open, p)
}

func (m *met) wake() {
	close(m.more)
	m.more = make(chan struct{})
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

// wait waits until this node has a stream to the peer of s, but not for long. It
// reports whether s is to be read: it is not when the peer has come with another one.
func (m *met) wait(ctx context.Context, s network.Stream) bool {
	p := s.Conn().RemotePeer()
	end := m.enter(p, s)
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for ctx.Err() == nil && time.Now().Before(end) && !s.Conn().IsClosed() {
		done, more := m.waited(p, s)
		if done {
			break
		}
		select {
		case <-ctx.Done():
		case <-more:
		case <-t.C:
		}
	}
	return m.leave(p, s)
}

// enter has s wait in place of what waited of its peer, and returns until when.
func (m *met) enter(p peer.ID, s network.Stream) (end time.Time) {
	m.mu.Lock()
	old := m.waiting[p]
	m.waiting[p] = s
	if old != nil {
		m.wake()
	}
	end = time.Now().Add(m.patience)
	m.mu.Unlock()
	if old != nil {
		_ = old.Reset() // as pubsub does with what it reads
	}
	return end
}

func (m *met) waited(p peer.ID, s network.Stream) (done bool, more <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.open[p] || m.waiting[p] != s, m.more
}

func (m *met) leave(p peer.ID, s network.Stream) (read bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting[p] != s {
		return false
	}
	delete(m.waiting, p)
	if s.Conn().IsClosed() {
		return false
	}
	if m.open[p] {
		delete(m.missed, p) // it says all again on s
	}
	return true
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
		if !h.met.wait(h.ctx, s) {
			_ = s.Reset()
			return
		}
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
