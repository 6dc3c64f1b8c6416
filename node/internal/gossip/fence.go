package gossip

import (
	"slices"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

// intruder is the score of a peer that listens to what it may not hear, far
// below what it can gain elsewhere.
const intruder = 5 * ignoreBelow

// listening tells a fence who listens to what.
type listening struct {
	pubsub.SubscriptionFilter
	fence Fence
	met   *met
}

// FilterIncomingSubscriptions is called by pubsub before it knows of them.
func (l listening) FilterIncomingSubscriptions(from peer.ID, subs []*pb.RPC_SubOpts) ([]*pb.RPC_SubOpts, error) {
	if slices.ContainsFunc(subs, (*pb.RPC_SubOpts).GetSubscribe) && !l.met.hears(from) {
		subs = slices.DeleteFunc(subs, func(s *pb.RPC_SubOpts) bool { return s.GetSubscribe() })
	}
	subs, err := l.SubscriptionFilter.FilterIncomingSubscriptions(from, subs)
	for _, s := range subs {
		l.fence.Listens(from, s.GetTopicid(), s.GetSubscribe())
	}
	return subs, err
}
