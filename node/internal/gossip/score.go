package gossip

import (
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Scores that make a peer lose what.
const (
	noGossipBelow  = -50
	noPublishBelow = -100
	ignoreBelow    = -200
)

// scoring says what costs and earns a peer score. Topics are quiet for
// minutes, so nobody is blamed for delivering little; and a household's nodes
// share an address, so nobody is blamed for that.
func scoring(app func(peer.ID) float64) (*pubsub.PeerScoreParams, *pubsub.PeerScoreThresholds) {
	if app == nil {
		app = func(peer.ID) float64 { return 0 }
	}
	p := &pubsub.PeerScoreParams{
		SkipAtomicValidation:      true,
		Topics:                    make(map[string]*pubsub.TopicScoreParams),
		AppSpecificScore:          app,
		AppSpecificWeight:         1,
		BehaviourPenaltyWeight:    -10, // broken promises, grafts during backoff
		BehaviourPenaltyThreshold: 6,
		BehaviourPenaltyDecay:     pubsub.ScoreParameterDecay(10 * time.Minute),
		DecayInterval:             time.Second,
		DecayToZero:               0.01,
		RetainScore:               time.Hour, // coming back does not wash clean
	}
	t := &pubsub.PeerScoreThresholds{
		SkipAtomicValidation:        true,
		GossipThreshold:             noGossipBelow,
		PublishThreshold:            noPublishBelow,
		GraylistThreshold:           ignoreBelow,
		AcceptPXThreshold:           10,
		OpportunisticGraftThreshold: 1,
	}
	return p, t
}

// topicScoring: n invalid messages cost 20 n², so that four within some
// minutes end the acquaintance, and one, by a program of another version, does
// not. The mesh delivery terms are off (zero weight).
func topicScoring() *pubsub.TopicScoreParams {
	return &pubsub.TopicScoreParams{
		SkipAtomicValidation:           true,
		TopicWeight:                    1,
		TimeInMeshWeight:               0.01,
		TimeInMeshQuantum:              time.Second,
		TimeInMeshCap:                  100,
		FirstMessageDeliveriesWeight:   0.5,
		FirstMessageDeliveriesDecay:    pubsub.ScoreParameterDecay(5 * time.Minute),
		FirstMessageDeliveriesCap:      20,
		InvalidMessageDeliveriesWeight: -20,
		InvalidMessageDeliveriesDecay:  pubsub.ScoreParameterDecay(30 * time.Minute),
	}
}
