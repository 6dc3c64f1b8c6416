package gossip

import (
	"sync"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

// subscribers bounds to how many topics a peer listens. Pubsub remembers all of
// them, and a peer may tell of more with every frame.
type subscribers struct {
	pubsub.SubscriptionFilter
	connected func(peer.ID) bool

	mu     sync.Mutex
	topics map[peer.ID]map[string]bool // guarded by mu; no empty ones
}

func newSubscribers(f pubsub.SubscriptionFilter, connected func(peer.ID) bool) *subscribers {
	return &subscribers{SubscriptionFilter: f, connected: connected, topics: make(map[peer.ID]map[string]bool)}
}

// FilterIncomingSubscriptions implements pubsub.SubscriptionFilter. What is above
// the limit is left out.
func (s *subscribers) FilterIncomingSubscriptions(from peer.ID, subs []*pb.RPC_SubOpts) ([]*pb.RPC_SubOpts, error) {
	subs, err := s.SubscriptionFilter.FilterIncomingSubscriptions(from, subs)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.connected(from) {
		return nil, nil // nobody would tell that it is gone
	}
	kept := subs[:0]
	has := s.topics[from]
	for _, o := range subs {
		name := o.GetTopicid()
		switch {
		case len(name) > maxTopicName:
			continue
		case !o.GetSubscribe():
			delete(has, name)
		case has[name]:
		case len(has) >= maxTopicsPerPeer:
			continue
		default:
			if has == nil {
				has = make(map[string]bool)
				s.topics[from] = has
			}
			has[name] = true
		}
		kept = append(kept, o)
	}
	if len(has) == 0 {
		delete(s.topics, from)
	}
	return kept, nil
}

// listening lists the peers that said that they listen to a topic.
func (s *subscribers) listening(topic string) (list []peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, has := range s.topics {
		if has[topic] {
			list = append(list, p)
		}
	}
	return list
}

// gone forgets a peer that is not connected any more: it will say again to what it
// listens.
func (s *subscribers) gone(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.topics, p)
}
