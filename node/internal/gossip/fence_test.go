package gossip

import (
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
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
	for _, o := range nodes[:3] {
		waitFor(t, "all to listen", func() bool { return len(o.topic.Peers()) >= 2 && w.Intrudes(stranger.h.ID()) })
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
