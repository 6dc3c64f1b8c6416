package gossip

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/proto"
)

// wall is a fence with a gate for one topic.
type wall struct {
	mu      sync.Mutex
	members map[peer.ID]bool            // guarded by mu
	listens map[peer.ID]map[string]bool // guarded by mu
}

func newWall() *wall {
	return &wall{members: make(map[peer.ID]bool), listens: make(map[peer.ID]map[string]bool)}
}

func (w *wall) admit(p peer.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members[p] = true
}

func (w *wall) Hears(p peer.ID, topic string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return topic != testTopic || w.members[p]
}

func (w *wall) Listens(p peer.ID, topic string, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listens[p] == nil {
		w.listens[p] = make(map[string]bool)
	}
	w.listens[p][topic] = on
}

func (w *wall) Gone(p peer.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.listens, p)
}

func (w *wall) Intrudes(p peer.ID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.listens[p][testTopic] && !w.members[p]
}

// TestFence: who may not hear a topic hears nothing of it, neither own messages
// nor those that are passed on; and does as soon as it may, without coming again.
func TestFence(t *testing.T) {
	t.Parallel()
	w := newWall()
	var nodes []*node
	for i := range 4 { // the last one is the stranger
		h := newHost(t)
		for _, o := range nodes {
			connect(t, h, o.h)
		}
		o := Options{Fence: w}
		if i == 3 {
			o = Options{}
		} else {
			w.admit(h.ID())
		}
		nodes = append(nodes, newNode(t, h, o))
	}
	stranger := nodes[3]
	for i, o := range nodes[:3] {
		waitFor(t, "all to listen", func() bool {
			peers := o.topic.Peers()
			for j, p := range nodes[:3] {
				if j != i && !slices.Contains(peers, p.h.ID()) {
					return false
				}
			}
			return w.Intrudes(stranger.h.ID())
		})
	}
	waitFor(t, "the stranger to know of the topic", func() bool { return len(stranger.topic.Peers()) == 3 })
	// Each message is heard by the other members before the next one is said, and it
	// goes on over some heartbeats, in which what was said is offered again.
	said := 0
	for began := time.Now(); said < 30 || time.Since(began) < 3*time.Second; said++ {
		var before [3]int
		for i, o := range nodes[:3] {
			before[i] = len(o.all())
		}
		from := said % 3
		nodes[from].say(t, "secret "+time.Now().String())
		for i, o := range nodes[:3] {
			if i != from {
				waitFor(t, "members to hear", func() bool { return len(o.all()) > before[i] })
			}
		}
	}
	if n := len(stranger.all()); n > 0 {
		t.Fatalf("the stranger heard %d of %d messages", n, said)
	}
	w.admit(stranger.h.ID())
	waitFor(t, "the new member to hear", func() bool {
		nodes[0].say(t, "welcome "+time.Now().String())
		return len(stranger.all()) > 0
	})
}

// lateHost opens no stream for gossip to one peer for now.
type lateHost struct {
	host.Host
	to   peer.ID
	open chan struct{} // closed when it does
}

func (h *lateHost) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	if p == h.to && slices.Contains(ids, pubsub.GossipSubID_v12) {
		select {
		case <-h.open:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return h.Host.NewStream(ctx, p, ids...)
}

// spy hears all that is written to it, whatever it is.
type spy struct {
	h    host.Host
	said bool // that it listens

	mu    sync.Mutex
	heard []string        // guarded by mu; messages
	told  map[string]bool // guarded by mu; topics to which the other one listens
}

func newSpy(t *testing.T) *spy {
	s := &spy{h: newHost(t), told: make(map[string]bool)}
	for _, id := range protocols() {
		s.h.SetStreamHandler(id, s.listen)
	}
	return s
}

func (s *spy) listen(from network.Stream) {
	for r := bufio.NewReader(from); ; {
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return
		}
		b := make([]byte, n)
		rpc := new(pb.RPC)
		if _, err := io.ReadFull(r, b); err != nil || proto.Unmarshal(b, rpc) != nil {
			return
		}
		s.mu.Lock()
		for _, m := range rpc.GetPublish() {
			s.heard = append(s.heard, string(m.GetData()))
		}
		for _, o := range rpc.GetSubscriptions() {
			s.told[o.GetTopicid()] = o.GetSubscribe()
		}
		s.mu.Unlock()
	}
}

// come connects to n and says that it listens, unless it has and is connected still.
func (s *spy) come(t *testing.T, n *node) {
	t.Helper()
	if s.said && n.h.Network().Connectedness(s.h.ID()) == network.Connected {
		return
	}
	connect(t, s.h, n.h)
	to, err := s.h.NewStream(t.Context(), n.h.ID(), protocols()...)
	if err == nil {
		err = writeRPC(to, &pb.RPC{Subscriptions: subscription(true, testTopic)})
	}
	if s.said = err == nil; !s.said {
		t.Log(err) // it comes again
	}
}

// TestFenceWhileStrangersCome: who has just come has no score yet, and hears nothing
// for that; whether the node's stream to it takes a while, or longer than anybody waits.
func TestFenceWhileStrangersCome(t *testing.T) {
	for _, patience := range []time.Duration{meetTime, 0} {
		t.Run(patience.String(), func(t *testing.T) {
			t.Parallel()
			w := newWall()
			member, stranger := newNode(t, newHost(t), Options{}), newSpy(t)
			h := &lateHost{Host: newHost(t), to: stranger.h.ID(), open: make(chan struct{})}
			w.admit(h.ID())
			w.admit(member.h.ID())
			n := newNode(t, h, Options{Fence: w})
			connect(t, member.h, h)
			waitFor(t, "the member to listen", func() bool { return len(n.topic.Peers()) == 1 })
			waits := func(d time.Duration) {
				n.g.met.mu.Lock()
				defer n.g.met.mu.Unlock()
				n.g.met.patience = d
			}
			waits(patience)
			stranger.come(t, n)
			if patience == 0 {
				waitFor(t, "what the stranger says to be read", func() bool {
					stranger.come(t, n)
					n.g.met.mu.Lock()
					defer n.g.met.mu.Unlock()
					return n.g.met.missed[stranger.h.ID()]
				})
			}
			secret := func(s string) {
				n.say(t, s)
				waitFor(t, "the member to hear", func() bool { return member.has(s) })
			}
			for i := range 30 {
				secret(fmt.Sprint("secret ", i))
			}
			waits(meetTime)
			close(h.open)
			waitFor(t, "it to be known that the stranger listens", func() bool {
				stranger.come(t, n) // again, if it was too late
				return w.Intrudes(stranger.h.ID())
			})
			secret("and another one")
			// What is said to all comes after what was said before.
			if _, err := n.g.Join(testTopic+"2", judge); err != nil {
				t.Fatal(err)
			}
			has := func(ok func() bool) func() bool {
				return func() bool {
					stranger.mu.Lock()
					defer stranger.mu.Unlock()
					return ok()
				}
			}
			waitFor(t, "the stranger to hear what is for all", has(func() bool { return stranger.told[testTopic+"2"] }))
			if has(func() bool { return len(stranger.heard) > 0 })() {
				t.Fatalf("the stranger heard %q", stranger.heard)
			}
			w.admit(stranger.h.ID())
			waitFor(t, "the new member to hear", func() bool {
				n.say(t, "welcome "+time.Now().String())
				return has(func() bool { return len(stranger.heard) > 0 })()
			})
		})
	}
}
