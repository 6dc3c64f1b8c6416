package gossip

import (
	"sync/atomic"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// Limits bound what one neighbour may send, its own messages and those it
// passes on. Whatever is above is dropped before a signature is checked.
type Limits struct {
	BytesPerSecond    int
	BurstBytes        int // at least MaxMessageBytes, or nothing that large arrives
	MessagesPerSecond int
	BurstMessages     int
}

// DefaultLimits let a neighbour pass on all that an honest run of 48 seats
// says, several times over.
func DefaultLimits() Limits {
	return Limits{BytesPerSecond: 4 << 20, BurstBytes: 32 << 20, MessagesPerSecond: 500, BurstMessages: 5000}
}

// strangersFactor is how many times as much as one of them all strangers together
// may send: a neighbour says little, but in bursts, and each message comes from a
// few of them.
const strangersFactor = 2

const maxGatePeers = 1024

// gate counts what each neighbour sends.
type gate struct {
	self    peer.ID            // "" in tests of the limits
	trusted func(peer.ID) bool // nil: nobody is
	limits  Limits
	now     func() time.Time
	dropped atomic.Uint64

	// owned by pubsub's loop, the only caller of inspect
	peers     map[peer.ID]*allowance
	strangers *allowance
}

type allowance struct {
	bytes, messages *rate.Limiter
	used            time.Time
}

func newGate(l Limits) *gate {
	return &gate{limits: l, now: time.Now, peers: make(map[peer.ID]*allowance), strangers: newAllowance(l, strangersFactor)}
}

func newAllowance(l Limits, times int) *allowance {
	return &allowance{
		bytes:    rate.NewLimiter(rate.Limit(times*l.BytesPerSecond), times*l.BurstBytes),
		messages: rate.NewLimiter(rate.Limit(times*l.MessagesPerSecond), times*l.BurstMessages),
	}
}

// allow reports whether one more message of n bytes may come.
func (a *allowance) allow(now time.Time, n int) bool {
	return a.messages.AllowN(now, 1) && a.bytes.AllowN(now, n)
}

// inspect takes the messages above the limits out of a frame. Control
// messages and subscriptions in it stay, for their loss would confuse the mesh.
//
// It also takes out messages of this node itself: after a restart it asks for
// what it has not seen, and neighbours honestly give it what it said before.
// Pubsub would count each as an invalid message, and be deaf to them for an
// hour.
func (g *gate) inspect(from peer.ID, rpc *pubsub.RPC) error {
	msgs := rpc.GetPublish()
	if len(msgs) == 0 {
		return nil
	}
	now := g.now()
	a := g.of(from, now)
	stranger := g.trusted == nil || !g.trusted(from)
	kept := msgs[:0]
	for _, m := range msgs {
		if g.self != "" && peer.ID(m.GetFrom()) == g.self {
			continue
		}
		size := len(m.GetData())
		if size > MaxMessageBytes || !a.allow(now, size) || stranger && !g.strangers.allow(now, size) {
			g.dropped.Add(1)
			continue
		}
		kept = append(kept, m)
	}
	rpc.Publish = kept
	return nil
}

func (g *gate) of(p peer.ID, now time.Time) *allowance {
	a := g.peers[p]
	if a == nil {
		if len(g.peers) >= maxGatePeers {
			oldest := p
			for q, b := range g.peers {
				if oldest == p || b.used.Before(g.peers[oldest].used) {
					oldest = q
				}
			}
			delete(g.peers, oldest)
		}
		a = newAllowance(g.limits, 1)
		g.peers[p] = a
	}
	a.used = now
	return a
}
