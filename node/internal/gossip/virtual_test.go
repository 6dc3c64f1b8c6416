package gossip

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
)

// Twelve nodes on home lines, 50 ms from each other, each connected to the
// next four: a message reaches all within a second. A node that comes ten
// minutes later hears the next one.
func TestLatencyOnHomeLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 12
		nw, meta, err := simlibp2p.SimpleLibp2pNetwork([]simlibp2p.NodeLinkSettingsAndCount{{
			LinkSettings: simnet.NodeBiDiLinkSettings{
				Downlink: simnet.LinkSettings{BitsPerSecond: 100 * simlibp2p.OneMbps},
				Uplink:   simnet.LinkSettings{BitsPerSecond: 20 * simlibp2p.OneMbps},
			}, Count: n + 1,
		}}, simnet.StaticLatency(50*time.Millisecond), simlibp2p.NetworkSettings{})
		if err != nil {
			t.Fatal(err)
		}
		nw.Start()
		ctx, cancel := context.WithCancel(t.Context())
		hosts := meta.Nodes
		type arrival struct {
			node int
			at   time.Time
		}
		arrivals := make(chan arrival, 10*n)
		ended := make(chan error, n+1)
		begin := func(i int) *Topic {
			g, err := New(hosts[i], Options{})
			if err != nil {
				t.Fatal(err)
			}
			topic, err := g.Join(testTopic, judge)
			if err != nil {
				t.Fatal(err)
			}
			go func() { ended <- g.Run(ctx) }()
			go func() {
				for range topic.Messages() {
					arrivals <- arrival{i, time.Now()}
				}
			}()
			return topic
		}
		dial := func(i, j int) {
			if err := hosts[i].Connect(ctx, peer.AddrInfo{ID: hosts[j].ID(), Addrs: hosts[j].Addrs()}); err != nil {
				t.Fatal(err)
			}
		}
		var topics []*Topic
		for i := range n {
			topics = append(topics, begin(i))
		}
		for i := range n {
			for d := 1; d <= 4; d++ {
				dial(i, (i+d)%n)
			}
		}
		time.Sleep(5 * time.Second)
		say := func(from, want int) {
			t.Helper()
			said := time.Now()
			if err := topics[from].Publish(ctx, fmt.Append(nil, said)); err != nil {
				t.Fatal(err)
			}
			heard := make(map[int]bool)
			for range want {
				select {
				case a := <-arrivals:
					heard[a.node] = true
					if d := a.at.Sub(said); d > time.Second {
						t.Errorf("node %d heard node %d after %v", a.node, from, d)
					}
				case <-time.After(10 * time.Second):
					t.Fatalf("%d of %d nodes heard node %d", len(heard), want, from)
				}
			}
		}
		say(0, n-1)
		time.Sleep(10 * time.Minute) // nobody says anything; nobody is blamed
		for i := range n {
			for p, s := range *topics[i].g.scores.Load() {
				if s < 0 {
					t.Errorf("node %d gives %s the score %v for being quiet", i, p, s)
				}
			}
		}
		begin(n)
		dial(n, 3)
		time.Sleep(2 * time.Second)
		say(7, n)
		cancel()
		for range n + 1 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		for _, h := range hosts {
			h.Close()
		}
		nw.Close()
	})
}
