package gossip

import (
	"fmt"
	"strings"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

func subscription(on bool, names ...string) (list []*pb.RPC_SubOpts) {
	for _, n := range names {
		list = append(list, &pb.RPC_SubOpts{Subscribe: &on, Topicid: &n})
	}
	return list
}

// A peer listens to so many topics, however many frames it takes to say so.
func TestSubscribersAreBounded(t *testing.T) {
	t.Parallel()
	s := newSubscribers(pubsub.NewRegexpSubscriptionFilter(topicPattern), func(p peer.ID) bool { return p != "left" })
	tell := func(p peer.ID, on bool, names ...string) int {
		t.Helper()
		got, err := s.FilterIncomingSubscriptions(p, subscription(on, names...))
		if err != nil {
			t.Fatal(err)
		}
		return len(got)
	}
	name := func(i int) string { return fmt.Sprintf("/moot/1/run/x%d", i) }
	passed := 0
	for i := range 1000 {
		passed += tell("a", true, name(i), name(i+1))
	}
	if len(s.topics["a"]) != maxTopicsPerPeer {
		t.Errorf("%d topics of a peer", len(s.topics["a"]))
	}
	if tell("a", true, name(0)) != 1 {
		t.Error("a topic that is known already is left out")
	}
	if tell("a", true, name(5000)) != 0 {
		t.Error("one more topic passed")
	}
	if tell("a", false, name(0), name(1)) != 2 || tell("a", true, name(5000)) != 1 {
		t.Error("there is no place after others were given up")
	}
	if tell("b", true, "/moot/1/run/"+strings.Repeat("x", maxTopicName)) != 0 || tell("b", true, "/other") != 0 {
		t.Error("a topic of another form passed")
	}
	if tell("b", false, name(1)); len(s.topics) != 1 {
		t.Errorf("%d peers are remembered, want 1", len(s.topics))
	}
	if s.gone("a"); len(s.topics) != 0 {
		t.Error("a peer is remembered that is gone")
	}
	if tell("left", true, name(0)) != 0 || len(s.topics) != 0 {
		t.Error("a peer is remembered that left before its frame was read")
	}
}

// Identities cost nothing: many of them together are bounded, and who is trusted
// is heard all the same.
func TestStrangersAreBounded(t *testing.T) {
	t.Parallel()
	g := newGate(Limits{BytesPerSecond: 100, BurstBytes: 1000, MessagesPerSecond: 10, BurstMessages: 20})
	now := time.Unix(1e9, 0)
	g.now = func() time.Time { return now }
	g.trusted = func(p peer.ID) bool { return p == "seat" }
	through := func(p peer.ID) int {
		t.Helper()
		rpc := frame(10, 1)
		if err := g.inspect(p, rpc); err != nil {
			t.Fatal(err)
		}
		return len(rpc.Publish)
	}
	n := 0
	for i := range 50 {
		n += through(peer.ID(fmt.Sprint(i)))
	}
	if n != strangersFactor*20 {
		t.Errorf("%d messages of 50 strangers passed, want %d", n, strangersFactor*20)
	}
	if n := through("seat"); n != 10 {
		t.Errorf("%d of 10 messages of one that is trusted passed", n)
	}
}
