package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// MaxMessageBytes is the largest message that is published and accepted.
const MaxMessageBytes = 320 << 10

// Limits beside it.
const (
	maxFrameBytes    = MaxMessageBytes + 32<<10 // of a pubsub frame: message, signature, names
	maxControlBytes  = 128 << 10
	maxTopicName     = 128 // bytes
	maxTopicsPerPeer = 64  // to which it listens; also in one frame of subscriptions
	seenFor          = 5 * time.Minute
	validateQueue    = 1024 // messages of all topics waiting for a signature check
	validateAtOnce   = 64   // validators running, of one topic and of all
	outboundQueue    = 256  // frames waiting for one peer
	inspectEvery     = time.Second
)

const topicPrefix = "/moot/1/"

var topicPattern = regexp.MustCompile(`^/moot/1/[a-z]+/[A-Za-z0-9]+$`)

// RunTopic is the topic of a run.
func RunTopic(run cid.Cid) string { return topicPrefix + "run/" + run.String() }

// ErrTooLarge is what [Topic.Publish] says about a message above [MaxMessageBytes].
var ErrTooLarge = errors.New("message is too large")

// ErrClosed is what is returned after the end of [Gossip.Run] or [Topic.Leave].
var ErrClosed = errors.New("gossip is closed")

// Verdict is what a validator thinks of a message.
type Verdict int

// The verdicts.
const (
	// Reject drops the message and lowers the score of the peer that sent
	// it: an honest peer does not pass such a message on. It is the zero
	// value.
	Reject Verdict = iota
	// Ignore drops the message and blames nobody: it is stale, or cannot be
	// judged yet.
	Ignore
	// Accept delivers the message and passes it on.
	Accept
	// Keep delivers the message and does not pass it on: it is for those to
	// whom its author is connected.
	Keep
)

// A Validator judges a message that its author, from, has signed, and returns
// it parsed. Data is hostile; the signature says nothing but who wrote it. It
// must not change data, and is called concurrently, once for each message, but
// not for the messages of this node.
type Validator func(ctx context.Context, from peer.ID, data []byte) (parsed any, v Verdict)

// Fence says who may hear a topic. Its methods are called often and must not
// block.
type Fence interface {
	Hears(p peer.ID, topic string) bool
	// Listens and Gone tell what peers do.
	Listens(p peer.ID, topic string, on bool)
	Gone(p peer.ID)
	// Intrudes reports whether a peer listens to what it may not hear. Nothing is
	// said to it as long as it does: own messages go to all that listen.
	Intrudes(p peer.ID) bool
}

// Options configure a [Gossip]; all are optional.
type Options struct {
	// AppScore is added to a peer's score. Below -50 a peer is not gossiped
	// with, below -200 nothing it sends is looked at. It is called often and
	// must not block.
	AppScore func(peer.ID) float64

	// Fence says who may hear what. With one, what a peer says waits until this node
	// has a stream to it, for some seconds at most. Default: all may hear all.
	Fence Fence

	// Limits bound what one peer may send. The zero value means [DefaultLimits].
	Limits Limits

	// Trusted says whether a neighbour is not a stranger. Those have a bound for
	// all of them together beside each one's: identities cost nothing. It is called
	// often and must not block. Default: all are strangers.
	Trusted func(peer.ID) bool

	// Log is where it is told what happened. Default: nowhere.
	Log *slog.Logger
}

// Gossip is a node's share in the spreading of messages.
type Gossip struct {
	// constant after New
	host   host.Host
	log    *slog.Logger
	ps     *pubsub.PubSub
	ctx    context.Context // ends with Run
	cancel context.CancelFunc
	wg     sync.WaitGroup // topics' goroutines

	scores atomic.Pointer[map[peer.ID]float64]
	gate   *gate
	said   *subscribers
	met    *met // nil: all may hear all

	mu     sync.Mutex
	closed bool              // guarded by mu
	topics map[string]*Topic // guarded by mu
}

// New attaches gossip to a host. It subscribes to nothing by itself, and must
// be run, which also ends it.
func New(h host.Host, o Options) (*Gossip, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Limits == (Limits{}) {
		o.Limits = DefaultLimits()
	}
	g := &Gossip{
		host:   h,
		log:    o.Log.With("component", "gossip"),
		topics: make(map[string]*Topic),
		gate:   newGate(o.Limits),
	}
	g.gate.self, g.gate.trusted = h.ID(), o.Trusted
	g.ctx, g.cancel = context.WithCancel(context.Background())
	var err error
	if o.Fence != nil {
		g.met = newMet(g.connected)
		g.gone(g.met.gone)
		h = patient{h, g.ctx, g.met}
	}
	if g.ps, err = pubsub.NewGossipSub(g.ctx, h, g.options(o)...); err != nil {
		g.cancel()
		return nil, fmt.Errorf("gossip: %w", err)
	}
	return g, nil
}

func (g *Gossip) options(o Options) []pubsub.Option {
	counted := newSubscribers(pubsub.NewRegexpSubscriptionFilter(topicPattern), g.connected)
	g.said = counted
	g.gone(counted.gone)
	var filter pubsub.SubscriptionFilter = counted
	if o.Fence != nil {
		app := o.AppScore
		o.AppScore = func(p peer.ID) float64 {
			s := 0.0
			if app != nil {
				s = app(p)
			}
			if o.Fence.Intrudes(p) {
				s = min(s, intruder)
			}
			return s
		}
		filter = listening{filter, o.Fence, g.met}
		g.gone(o.Fence.Gone)
	}
	score, thresholds := scoring(o.AppScore)
	options := []pubsub.Option{
		pubsub.WithMessageSignaturePolicy(pubsub.StrictSign),
		pubsub.WithMessageIdFn(messageID),
		pubsub.WithGossipSubProtocols(protocols(), pubsub.GossipSubDefaultFeatures),
		// Own messages go to every peer of the topic, not only to the mesh:
		// runs are small, and a mesh takes a heartbeat to form.
		pubsub.WithFloodPublish(true),
		pubsub.WithPeerExchange(false), // p2p finds peers
		pubsub.WithPeerScore(score, thresholds),
		pubsub.WithPeerScoreInspect(func(s map[peer.ID]float64) { g.scores.Store(&s) }, inspectEvery),
		pubsub.WithMaxMessageSize(maxFrameBytes),
		pubsub.WithMaxControlMessageSize(maxControlBytes),
		pubsub.WithSeenMessagesTTL(seenFor),
		pubsub.WithValidateQueueSize(validateQueue),
		pubsub.WithValidateThrottle(validateAtOnce),
		pubsub.WithPeerOutboundQueueSize(outboundQueue),
		pubsub.WithAppSpecificRpcInspector(g.gate.inspect),
		pubsub.WithSubscriptionFilter(pubsub.WrapLimitSubscriptionFilter(filter, maxTopicsPerPeer)),
	}
	if o.Fence != nil {
		options = append(options, pubsub.WithPeerFilter(o.Fence.Hears), pubsub.WithRawTracer(g.met))
	}
	return options
}

func (g *Gossip) connected(p peer.ID) bool {
	return g.host.Network().Connectedness(p) != network.NotConnected
}

// gone has fn called with peers that are not connected any more.
func (g *Gossip) gone(fn func(peer.ID)) {
	g.host.Network().Notify(&network.NotifyBundle{DisconnectedF: func(n network.Network, c network.Conn) {
		if p := c.RemotePeer(); n.Connectedness(p) != network.Connected {
			fn(p)
		}
	}})
}

// Run gossips until ctx is done. Then it leaves all topics, closes their
// channels, and returns nil.
func (g *Gossip) Run(ctx context.Context) error {
	g.repair(ctx)
	g.mu.Lock()
	g.closed = true
	var topics []*Topic
	for _, t := range g.topics {
		topics = append(topics, t)
	}
	g.mu.Unlock()
	for _, t := range topics {
		if err := t.Leave(); err != nil {
			g.log.WarnContext(ctx, "topic was not left", "topic", t.name, "err", err)
		}
	}
	g.cancel()
	g.wg.Wait()
	return nil
}

// Score is what gossip thinks of a peer, a few seconds ago; 0 when it has no
// opinion.
func (g *Gossip) Score(p peer.ID) float64 {
	s := g.scores.Load()
	if s == nil {
		return 0
	}
	return (*s)[p]
}

// Flooded counts messages that were dropped because their sender was above
// its limits.
func (g *Gossip) Flooded() uint64 { return g.gate.dropped.Load() }
