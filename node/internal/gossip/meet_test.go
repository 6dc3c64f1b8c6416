package gossip

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

type fakeConn struct {
	network.Conn
	peer   peer.ID
	closed atomic.Bool
}

func (c *fakeConn) RemotePeer() peer.ID { return c.peer }
func (c *fakeConn) IsClosed() bool      { return c.closed.Load() }

type fakeStream struct {
	network.Stream
	conn  *fakeConn
	reset bool
}

func (s *fakeStream) Conn() network.Conn { return s.conn }

func (s *fakeStream) Reset() error {
	s.reset = true
	return nil
}

func newFakeStream(p peer.ID) *fakeStream { return &fakeStream{conn: &fakeConn{peer: p}} }

// TestOneStreamWaits: of the streams of a peer the last one waits, and is read when this
// node has a stream to the peer; those before it end at once, and those of others stay.
func TestOneStreamWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMet(func(peer.ID) bool { return true })
		other, closes := newFakeStream("other"), newFakeStream("closes")
		mine := []*fakeStream{newFakeStream("mine"), newFakeStream("mine"), newFakeStream("mine")}
		type result struct {
			s    *fakeStream
			read bool
		}
		results := make(chan result, 5)
		wait := func(s *fakeStream) {
			go func() { results <- result{s, m.wait(t.Context(), s)} }()
			synctest.Wait()
		}
		wait(other)
		wait(closes)
		for i, s := range mine {
			wait(s)
			if i == 0 {
				continue
			}
			select {
			case r := <-results:
				if r.s != mine[i-1] || r.read || !r.s.reset {
					t.Errorf("after stream %d came: %+v", i, r)
				}
			default:
				t.Errorf("stream %d still waits though %d has come", i-1, i)
			}
		}
		m.OnNewOutboundStream("mine", "")
		if r := <-results; r.s != mine[2] || !r.read || r.s.reset {
			t.Errorf("once there is a stream to its peer, the last one: %+v", r)
		}
		closes.conn.closed.Store(true)
		if r := <-results; r.s != closes || r.read {
			t.Errorf("of a connection that was closed: %+v", r)
		}
		began := time.Now()
		if r := <-results; r.s != other || !r.read || r.s.reset || time.Since(began) < meetTime/2 {
			t.Errorf("of another peer, after %v: %+v", time.Since(began), r)
		}
		if len(m.waiting) > 0 {
			t.Errorf("%d wait still", len(m.waiting))
		}
	})
}

// TestMissed: who said too early what it wants to hear has to say it again, unless it has
// come again meanwhile; who said only what it does not want to hear does not.
func TestMissed(t *testing.T) {
	for _, tt := range []struct {
		name          string
		listen, again bool
		want          bool
	}{
		{"too early", true, false, true},
		{"too early, and again", true, true, false},
		{"unsubscribed", false, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, p := newMet(func(peer.ID) bool { return true }), peer.ID("somebody")
			l := listening{pubsub.NewAllowlistSubscriptionFilter(testTopic), newWall(), m}
			subs, err := l.FilterIncomingSubscriptions(p, subscription(tt.listen, testTopic))
			if err != nil || slices.ContainsFunc(subs, (*pb.RPC_SubOpts).GetSubscribe) {
				t.Fatalf("what was said too early is %v, %v", subs, err)
			}
			m.OnNewOutboundStream(p, "")
			if tt.again && !m.wait(t.Context(), newFakeStream(p)) {
				t.Fatal("the next stream is not read")
			}
			if got := len(m.again()) > 0; got != tt.want {
				t.Errorf("has to say it again: %v, want %v", got, tt.want)
			}
		})
	}
}
