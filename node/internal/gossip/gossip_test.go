package gossip

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

var testTopic = RunTopic(cid.MustParse("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"))

func newHost(t *testing.T, more ...libp2p.Option) host.Host {
	t.Helper()
	h, err := libp2p.New(append(more,
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		libp2p.NoTransports, libp2p.Transport(tcp.NewTCPTransport),
		libp2p.DisableMetrics(), libp2p.DisableRelay())...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func connect(t *testing.T, a, b host.Host) {
	t.Helper()
	waitFor(t, "a connection", func() bool {
		if a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}) == nil {
			if known, err := a.Peerstore().GetProtocols(b.ID()); err == nil && len(known) > 0 {
				return true
			}
		}
		_ = a.Network().ClosePeer(b.ID()) // nobody asks twice over one connection
		return false
	})
}

// node gossips about one topic and keeps what it hears.
type node struct {
	h     host.Host
	g     *Gossip
	topic *Topic
	stop  func()

	mu    sync.Mutex
	heard []Message
}

// judge accepts all but data that begins with its verdict.
func judge(_ context.Context, _ peer.ID, data []byte) (any, Verdict) {
	switch {
	case bytes.HasPrefix(data, []byte("reject")):
		return nil, Reject
	case bytes.HasPrefix(data, []byte("ignore")):
		return nil, Ignore
	case bytes.HasPrefix(data, []byte("keep")):
		return strings.ToUpper(string(data)), Keep
	}
	return strings.ToUpper(string(data[:min(len(data), 100)])), Accept
}

func newNode(t *testing.T, h host.Host, o Options) *node {
	t.Helper()
	g, err := New(h, o)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{h: h, g: g}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run() = %v", err)
		}
	})
	t.Cleanup(n.stop)
	n.join(t)
	return n
}

func (n *node) join(t *testing.T) {
	t.Helper()
	topic, err := n.g.Join(testTopic, judge)
	if err != nil {
		t.Fatal(err)
	}
	n.topic = topic
	go func() {
		for m := range topic.Messages() {
			n.mu.Lock()
			n.heard = append(n.heard, m)
			n.mu.Unlock()
		}
	}()
}

func (n *node) all() []Message {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]Message(nil), n.heard...)
}

func (n *node) has(data string) bool {
	for _, m := range n.all() {
		if string(m.Data) == data {
			return true
		}
	}
	return false
}

func (n *node) say(t *testing.T, data string) {
	t.Helper()
	if err := n.topic.Publish(t.Context(), []byte(data)); err != nil {
		t.Error(err)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited three minutes for: %s", what)
		}
	}
}

// swarm is n nodes that are all connected and know of each other's topic.
func swarm(t *testing.T, n int) []*node {
	t.Helper()
	var nodes []*node
	for range n {
		h := newHost(t)
		for _, o := range nodes {
			connect(t, h, o.h)
		}
		nodes = append(nodes, newNode(t, h, Options{}))
	}
	for _, o := range nodes {
		waitFor(t, "the topic's peers", func() bool { return len(o.topic.Peers()) == n-1 })
	}
	return nodes
}

func TestEveryMessageReachesAllOthersOnce(t *testing.T) {
	t.Parallel()
	const n = 6
	nodes := swarm(t, n)
	// No mesh has formed yet.
	for i, o := range nodes {
		o.say(t, fmt.Sprint("from ", i))
	}
	for i, o := range nodes {
		waitFor(t, fmt.Sprintf("node %d to hear the others", i), func() bool { return len(o.all()) == n-1 })
	}
	nodes[0].say(t, "last")
	for i, o := range nodes {
		if i > 0 {
			waitFor(t, "the last message", func() bool { return o.has("last") })
		}
		seen := make(map[string]bool)
		for _, m := range o.all() {
			if m.From == o.h.ID() || seen[string(m.Data)] {
				t.Errorf("node %d heard itself or twice: %q from %s", i, m.Data, m.From)
			}
			seen[string(m.Data)] = true
			if m.Parsed != strings.ToUpper(string(m.Data)) {
				t.Errorf("%q was parsed as %v", m.Data, m.Parsed)
			}
		}
		if o.topic.Dropped() != 0 || o.g.Flooded() != 0 {
			t.Errorf("node %d dropped %d, %d", i, o.topic.Dropped(), o.g.Flooded())
		}
	}
}

// In a line only neighbours are connected, and the last one came last.
func TestMessagesArePassedOn(t *testing.T) {
	t.Parallel()
	var nodes []*node
	for i := range 4 {
		h := newHost(t)
		if i > 0 {
			connect(t, h, nodes[i-1].h)
		}
		nodes = append(nodes, newNode(t, h, Options{}))
	}
	for i := range nodes {
		for j := range nodes {
			if i == j {
				continue
			}
			n := 0
			waitFor(t, fmt.Sprintf("%d to hear %d", j, i), func() bool {
				n++
				nodes[i].say(t, fmt.Sprintf("%d to %d, try %d", i, j, n))
				time.Sleep(20 * time.Millisecond)
				for _, m := range nodes[j].all() {
					if m.From == nodes[i].h.ID() {
						return true
					}
				}
				return false
			})
		}
	}
	for _, m := range nodes[3].all() {
		if m.Via != nodes[2].h.ID() {
			t.Errorf("a message came by %s, want the neighbour", m.Via)
		}
	}
}

// What is kept reaches those who are connected to its author, once, and nobody
// else.
func TestKeptMessagesGoOneHop(t *testing.T) {
	t.Parallel()
	var nodes []*node
	for i := range 3 {
		h := newHost(t)
		if i > 0 {
			connect(t, h, nodes[i-1].h)
		}
		nodes = append(nodes, newNode(t, h, Options{}))
	}
	first, next, last := nodes[0], nodes[1], nodes[2]
	waitFor(t, "the neighbours", func() bool { return len(first.topic.Peers()) == 1 && len(next.topic.Peers()) == 2 })
	first.say(t, "keep this")
	waitFor(t, "the neighbour to hear it", func() bool { return next.has("keep this") })
	said := 0 // before there is a mesh nothing is passed on
	waitFor(t, "the last node to hear anything", func() bool {
		said++
		first.say(t, fmt.Sprint("after ", said))
		time.Sleep(20 * time.Millisecond)
		return len(last.all()) > 0
	})
	first.say(t, "keep this, too") // now there is one
	waitFor(t, "the neighbour to hear the second", func() bool { return next.has("keep this, too") })
	said = 0
	waitFor(t, "the last node to hear the end", func() bool {
		said++
		first.say(t, fmt.Sprint("end ", said))
		time.Sleep(20 * time.Millisecond)
		return slices.ContainsFunc(last.all(), func(m Message) bool { return bytes.HasPrefix(m.Data, []byte("end")) })
	})
	for _, m := range last.all() {
		if bytes.HasPrefix(m.Data, []byte("keep")) {
			t.Errorf("a kept message was passed on: %q", m.Data)
		}
	}
	count := 0
	for _, m := range next.all() {
		if string(m.Data) == "keep this" {
			count++
			if m.From != first.h.ID() || m.Via != first.h.ID() || m.Parsed != "KEEP THIS" {
				t.Errorf("the kept message came as %+v", m)
			}
		}
	}
	if count != 1 {
		t.Errorf("the kept message came %d times", count)
	}
	if s := next.g.Score(first.h.ID()); s < 0 {
		t.Errorf("a kept message made the score %v", s)
	}
}

func TestInvalidMessagesCostTheSender(t *testing.T) {
	t.Parallel()
	nodes := swarm(t, 3)
	good, bad, bystander := nodes[0], nodes[1], nodes[2]
	// Own messages are not judged, so bad can send what it likes.
	bad.say(t, "ignore me")
	bad.say(t, "ok before")
	waitFor(t, "a good message", func() bool { return good.has("ok before") && bystander.has("ok before") })
	time.Sleep(2 * inspectEvery)
	if s := good.g.Score(bad.h.ID()); s < 0 {
		t.Errorf("an ignored message made the score %v", s)
	}
	for i := range 4 {
		bad.say(t, fmt.Sprint("reject ", i))
	}
	for _, n := range []*node{good, bystander} {
		waitFor(t, "the score to fall", func() bool { return n.g.Score(bad.h.ID()) < ignoreBelow })
	}
	bad.say(t, "ok after")
	good.say(t, "still here")
	waitFor(t, "the others to go on", func() bool { return bystander.has("still here") })
	for _, n := range []*node{good, bystander} {
		for _, m := range n.all() {
			if d := string(m.Data); d == "ok after" || !strings.HasPrefix(d, "ok") && d != "still here" {
				t.Errorf("%q was delivered", d)
			}
		}
	}
	if s := good.g.Score(bystander.h.ID()); s < 0 {
		t.Errorf("the score of a good peer is %v", s)
	}
}

func TestMessageSize(t *testing.T) {
	t.Parallel()
	nodes := swarm(t, 2)
	a, b := nodes[0], nodes[1]
	if err := a.topic.Publish(t.Context(), make([]byte, MaxMessageBytes+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Publish of a byte too many = %v, want ErrTooLarge", err)
	}
	largest := bytes.Repeat([]byte{1}, MaxMessageBytes)
	if err := a.topic.Publish(t.Context(), largest); err != nil {
		t.Error(err)
	}
	waitFor(t, "the largest message", func() bool {
		m := b.all()
		return len(m) == 1 && bytes.Equal(m[0].Data, largest)
	})
}

// stranger speaks pubsub with settings of its own.
func stranger(t *testing.T, to host.Host, opts ...pubsub.Option) *pubsub.Topic {
	t.Helper()
	h := newHost(t)
	ps, err := pubsub.NewGossipSub(t.Context(), h, append(opts, pubsub.WithFloodPublish(true))...)
	if err != nil {
		t.Fatal(err)
	}
	topic, err := ps.Join(testTopic)
	if err != nil {
		t.Fatal(err)
	}
	connect(t, h, to)
	waitFor(t, "the stranger to see the topic", func() bool { return len(topic.ListPeers()) == 1 })
	return topic
}

func TestStrangersMessages(t *testing.T) {
	t.Parallel()
	n := newNode(t, newHost(t), Options{})
	large := stranger(t, n.h, pubsub.WithMaxMessageSize(1<<20))
	unsigned := stranger(t, n.h, pubsub.WithMessageSignaturePolicy(pubsub.LaxNoSign))
	fine := stranger(t, n.h)
	for _, m := range []struct {
		topic *pubsub.Topic
		data  []byte
	}{
		{large, make([]byte, MaxMessageBytes+1)},
		{large, make([]byte, 512<<10)},
		{unsigned, []byte("unsigned")},
		{fine, []byte("fine")},
	} {
		if err := m.topic.Publish(t.Context(), m.data); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the good message", func() bool { return n.has("fine") })
	if got := n.all(); len(got) != 1 {
		t.Errorf("%d messages were delivered", len(got))
	}
}

func TestLeaveAndJoinAgain(t *testing.T) {
	t.Parallel()
	nodes := swarm(t, 2)
	a, b := nodes[0], nodes[1]
	if _, err := a.g.Join(testTopic, judge); err == nil {
		t.Error("joined a topic twice")
	}
	old := a.topic
	if err := old.Leave(); err != nil {
		t.Fatal(err)
	}
	if err := old.Leave(); err != nil {
		t.Errorf("second Leave() = %v", err)
	}
	if err := old.Publish(t.Context(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Publish after Leave = %v", err)
	}
	for range old.Messages() { // ends, for it is closed
	}
	waitFor(t, "b to notice", func() bool { return len(b.topic.Peers()) == 0 })
	a.join(t)
	waitFor(t, "b to see a again", func() bool { return len(b.topic.Peers()) == 1 })
	b.say(t, "welcome back")
	waitFor(t, "the message", func() bool { return a.has("welcome back") })
	a.stop()
	if _, err := a.g.Join(testTopic, judge); !errors.Is(err, ErrClosed) {
		t.Errorf("Join after Run = %v", err)
	}
	if err := a.topic.Publish(t.Context(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Publish after Run = %v", err)
	}
}

func TestTopicNames(t *testing.T) {
	n := newNode(t, newHost(t), Options{})
	for _, name := range []string{"", "run/x", "/moot/1/run/", "/moot/2/run/x", "/moot/1/run/a b", "/moot/1/run/" + strings.Repeat("x", 200)} {
		if _, err := n.g.Join(name, judge); err == nil {
			t.Errorf("joined %q", name)
		}
	}
}

func TestSlowReaderLosesTheNewest(t *testing.T) {
	topic := &Topic{name: "t", g: &Gossip{log: newNode(t, newHost(t), Options{}).g.log}, more: make(chan struct{}, 1)}
	for i := range maxQueued + 5 {
		topic.push(Message{Data: []byte{byte(i), byte(i >> 8)}})
	}
	if topic.Dropped() != 5 {
		t.Errorf("dropped %d, want 5", topic.Dropped())
	}
	for i := range maxQueued {
		m, ok := topic.pop()
		if !ok || m.Data[0] != byte(i) || m.Data[1] != byte(i>>8) {
			t.Fatalf("message %d is %v, %v", i, m, ok)
		}
	}
	if _, ok := topic.pop(); ok || topic.queued != 0 {
		t.Errorf("queue is not empty: %d bytes", topic.queued)
	}
	big := make([]byte, MaxMessageBytes)
	for range maxQueuedBytes/MaxMessageBytes + 3 {
		topic.push(Message{Data: big})
	}
	if topic.Dropped() != 8 || topic.queued > maxQueuedBytes {
		t.Errorf("dropped %d, want 8; %d bytes wait", topic.Dropped(), topic.queued)
	}
}

func frame(n, size int) *pubsub.RPC {
	rpc := new(pubsub.RPC)
	rpc.Control = &pb.ControlMessage{}
	for range n {
		rpc.Publish = append(rpc.Publish, &pb.Message{Data: make([]byte, size)})
	}
	return rpc
}

func TestGate(t *testing.T) {
	g := newGate(Limits{BytesPerSecond: 100, BurstBytes: 1000, MessagesPerSecond: 10, BurstMessages: 20})
	now := time.Unix(1e9, 0)
	g.now = func() time.Time { return now }
	through := func(p peer.ID, n, size int) int {
		t.Helper()
		rpc := frame(n, size)
		if err := g.inspect(p, rpc); err != nil {
			t.Fatal(err)
		}
		if rpc.Control == nil {
			t.Error("the control message was dropped")
		}
		return len(rpc.Publish)
	}
	if n := through("a", 30, 1); n != 20 {
		t.Errorf("%d messages of 30 passed, want the burst of 20", n)
	}
	if n := through("b", 3, 400); n != 2 {
		t.Errorf("%d messages of 400 bytes passed, want 2", n)
	}
	now = now.Add(time.Second)
	if n := through("a", 30, 1); n != 10 {
		t.Errorf("%d messages passed a second later, want 10", n)
	}
	if n := through("c", 1, MaxMessageBytes+1); n != 0 {
		t.Error("an oversize message passed")
	}
	if g.dropped.Load() != 10+1+20+1 {
		t.Errorf("dropped %d", g.dropped.Load())
	}
	for i := range 2 * maxGatePeers {
		now = now.Add(time.Millisecond)
		through(peer.ID(fmt.Sprint(i)), 1, 1)
	}
	if len(g.peers) > maxGatePeers {
		t.Errorf("%d peers are remembered", len(g.peers))
	}
}

// Own messages that come back are no flood, and nobody's fault.
func TestGateTakesOut(t *testing.T) {
	g := newGate(Limits{BytesPerSecond: 100, BurstBytes: 1000, MessagesPerSecond: 1, BurstMessages: 1})
	g.self = "self"
	rpc := frame(4, 1)
	for i, from := range []peer.ID{"self", "self", "other", "self"} {
		rpc.Publish[i].From = []byte(from)
	}
	if err := g.inspect("neighbour", rpc); err != nil {
		t.Fatal(err)
	}
	if len(rpc.Publish) != 1 || peer.ID(rpc.Publish[0].GetFrom()) != "other" || g.dropped.Load() != 0 {
		t.Errorf("%d messages passed, %d counted as dropped; want one of the other and none", len(rpc.Publish), g.dropped.Load())
	}
}

// A node that starts again is given its own messages by those who kept them,
// and must not blame them for that.
func TestRestart(t *testing.T) {
	t.Parallel()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stays, first := newNode(t, newHost(t), Options{}), newNode(t, newHost(t, libp2p.Identity(key)), Options{})
	connect(t, first.h, stays.h)
	waitFor(t, "the two to meet", func() bool { return len(first.topic.Peers()) == 1 && len(stays.topic.Peers()) == 1 })
	time.Sleep(1500 * time.Millisecond) // of heartbeats, in which they form a mesh
	waitFor(t, "the messages", func() bool {
		for i := range 10 { // again, should a stream have been lost
			first.say(t, fmt.Sprint("early ", i))
		}
		time.Sleep(20 * time.Millisecond)
		return stays.has("early 9")
	})
	// As it left in order, it is not let into the mesh again at once, and asks.
	if err := first.topic.Leave(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it to leave", func() bool { return len(stays.topic.Peers()) == 0 })
	first.stop()
	first.h.Close()
	again := newNode(t, newHost(t, libp2p.Identity(key)), Options{})
	connect(t, again.h, stays.h)
	waitFor(t, "the two to meet again", func() bool { return len(again.topic.Peers()) == 1 && len(stays.topic.Peers()) == 1 })
	time.Sleep(3 * time.Second) // of heartbeats, in which it asks for what it has not seen
	waitFor(t, "the one that started again to hear", func() bool {
		stays.say(t, "welcome")
		time.Sleep(20 * time.Millisecond)
		return again.has("welcome")
	})
	if s := again.g.Score(stays.h.ID()); s < 0 {
		t.Errorf("the score of the one that stayed is %v", s)
	}
	if again.has("early 0") {
		t.Error("its own message was delivered")
	}
}

func TestFloodIsDropped(t *testing.T) {
	t.Parallel()
	l := DefaultLimits()
	l.MessagesPerSecond, l.BurstMessages = 1, 10
	n := newNode(t, newHost(t), Options{Limits: l})
	begun := time.Now()
	flood := stranger(t, n.h)
	waitFor(t, "messages to be dropped", func() bool {
		for i := range 100 { // of which a slow sender drops some itself
			if err := flood.Publish(t.Context(), fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
		return n.g.Flooded() > 50
	})
	if got, most := len(n.all()), 11+int(time.Since(begun).Seconds()); got > most {
		t.Errorf("%d messages of the flood were delivered, want %d at most", got, most)
	}
}

// flakyHost cannot open the first gossip streams.
type flakyHost struct {
	host.Host
	mu    sync.Mutex
	fails int // guarded by mu: how many more
}

func (h *flakyHost) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fails > 0 && slices.Contains(ids, pubsub.GossipSubID_v12) {
		h.fails--
		return nil, errors.New("no stream today")
	}
	return h.Host.NewStream(ctx, p, ids...)
}

// A stream that cannot be opened once does not make two peers deaf to each
// other for ever.
func TestStreamIsOpenedAgain(t *testing.T) {
	t.Parallel()
	a := newNode(t, &flakyHost{Host: newHost(t), fails: 1}, Options{})
	b := newNode(t, newHost(t), Options{})
	connect(t, a.h, b.h)
	waitFor(t, "b to hear a", func() bool {
		a.say(t, "hello")
		time.Sleep(50 * time.Millisecond)
		return b.has("hello")
	})
}

// silentHost says to nobody what it speaks.
func silentHost(t *testing.T) host.Host {
	t.Helper()
	h := newHost(t)
	h.RemoveStreamHandler(identify.ID)
	return h
}

// Who gossips with a node is answered, also if it was never heard what it speaks.
func TestWhoWasNotIdentified(t *testing.T) {
	t.Parallel()
	a, b := newNode(t, newHost(t), Options{}), newNode(t, silentHost(t), Options{})
	connect(t, b.h, a.h)
	waitFor(t, "b to hear a", func() bool {
		a.say(t, "hello")
		time.Sleep(50 * time.Millisecond)
		return b.has("hello")
	})
}

// A node whose stream to a peer ended, and that forgot with it to what the peer
// listens, hears it again.
func TestForgottenPeerIsHeardAgain(t *testing.T) {
	t.Parallel()
	nodes := swarm(t, 2)
	a, b := nodes[0], nodes[1]
	ended, conns := 0, a.h.Network().ConnsToPeer(b.h.ID())
	for _, c := range conns {
		for _, s := range c.GetStreams() {
			if s.Stat().Direction == network.DirOutbound && slices.Contains(protocols(), s.Protocol()) {
				_ = s.Reset()
				ended++
			}
		}
	}
	if ended == 0 {
		t.Fatal("there is no stream to the peer")
	}
	waitFor(t, "a to forget b", func() bool { return len(a.topic.Peers()) == 0 || conns[0].IsClosed() })
	waitFor(t, "b to hear a again", func() bool {
		if a.h.Network().Connectedness(b.h.ID()) != network.Connected {
			connect(t, a.h, b.h)
		}
		a.say(t, "hello")
		time.Sleep(50 * time.Millisecond)
		return b.has("hello")
	})
}
