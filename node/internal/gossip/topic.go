package gossip

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
)

// What waits for a subscriber that is slow. Beyond it, the newest is dropped.
const (
	maxQueued      = 2048
	maxQueuedBytes = 64 << 20
	pubsubBuffer   = 64
)

// Message is one that was accepted.
type Message struct {
	From   peer.ID // its author, who signed it
	Via    peer.ID // the neighbour that brought it
	Data   []byte  // not to be changed
	Parsed any     // what the validator made of it
}

// Topic is a topic that was joined.
type Topic struct {
	// constant after Join
	name   string
	g      *Gossip
	topic  *pubsub.Topic
	sub    *pubsub.Subscription
	cancel context.CancelFunc
	out    chan Message

	dropped atomic.Uint64

	mu     sync.Mutex
	left   bool          // guarded by mu
	queue  []Message     // guarded by mu
	queued int           // guarded by mu: bytes
	more   chan struct{} // the queue has grown; of capacity 1
}

// Join subscribes to a topic, of which validate judges every message. A topic
// can be joined once at a time.
func (g *Gossip) Join(name string, validate Validator) (*Topic, error) {
	t, err := g.join(name, validate)
	if err != nil {
		return nil, fmt.Errorf("join topic %s: %w", name, err)
	}
	return t, nil
}

func (g *Gossip) join(name string, validate Validator) (*Topic, error) {
	if len(name) > maxTopicName || !topicPattern.MatchString(name) {
		return nil, fmt.Errorf("name is not of the form %sKIND/NAME", topicPrefix)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return nil, ErrClosed
	case g.topics[name] != nil:
		return nil, errors.New("joined already")
	}
	ctx, cancel := context.WithCancel(g.ctx)
	t := &Topic{name: name, g: g, cancel: cancel, out: make(chan Message), more: make(chan struct{}, 1)}
	if err := t.attach(validate); err != nil {
		cancel()
		return nil, err
	}
	g.topics[name] = t
	g.wg.Go(func() { t.receive(ctx) })
	g.wg.Go(func() { t.deliver(ctx) })
	return t, nil
}

// attach makes the pubsub side, or leaves nothing behind.
func (t *Topic) attach(validate Validator) error {
	ps := t.g.ps
	err := ps.RegisterTopicValidator(t.name, t.validator(validate), pubsub.WithValidatorConcurrency(validateAtOnce))
	if err != nil {
		return err
	}
	if t.topic, err = ps.Join(t.name); err != nil {
		return errors.Join(err, ps.UnregisterTopicValidator(t.name))
	}
	if err = t.topic.SetScoreParams(topicScoring()); err == nil {
		t.sub, err = t.topic.Subscribe(pubsub.WithBufferSize(pubsubBuffer))
	}
	if err != nil {
		return errors.Join(err, t.topic.Close(), ps.UnregisterTopicValidator(t.name))
	}
	return nil
}

func (t *Topic) validator(validate Validator) pubsub.ValidatorEx {
	self := t.g.host.ID()
	return func(ctx context.Context, _ peer.ID, m *pubsub.Message) pubsub.ValidationResult {
		from := m.GetFrom()
		if from == self {
			// Ours, or an echo of it, which nobody has to judge.
			return pubsub.ValidationAccept
		}
		parsed, v := validate(ctx, from, m.Data)
		switch v {
		case Accept:
			m.ValidatorData = parsed
			return pubsub.ValidationAccept
		case Keep:
			t.push(Message{From: from, Via: m.ReceivedFrom, Data: m.Data, Parsed: parsed})
			return pubsub.ValidationIgnore
		case Ignore:
			return pubsub.ValidationIgnore
		}
		t.g.log.Debug("message was rejected", "topic", t.name, "peer", from, "via", m.ReceivedFrom)
		return pubsub.ValidationReject
	}
}

// Publish signs data and sends it to all peers of the topic that are
// connected. It is no error when there are none.
func (t *Topic) Publish(ctx context.Context, data []byte) error {
	err := t.publish(ctx, data)
	if err != nil {
		return fmt.Errorf("publish to %s: %w", t.name, err)
	}
	return nil
}

func (t *Topic) publish(ctx context.Context, data []byte) error {
	if len(data) > MaxMessageBytes {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), MaxMessageBytes)
	}
	t.mu.Lock()
	left := t.left
	t.mu.Unlock()
	if left {
		return ErrClosed
	}
	return t.topic.Publish(ctx, data)
}

// Messages gives what others published, in no order. It is closed when the
// topic is left or gossip ends.
func (t *Topic) Messages() <-chan Message { return t.out }

// Peers are the connected peers that are in the topic.
func (t *Topic) Peers() []peer.ID { return t.topic.ListPeers() }

// Dropped counts messages that were lost because [Topic.Messages] was not read
// fast enough.
func (t *Topic) Dropped() uint64 { return t.dropped.Load() }

// Leave ends the subscription. Calls after the first do nothing.
func (t *Topic) Leave() error {
	t.mu.Lock()
	if t.left {
		t.mu.Unlock()
		return nil
	}
	t.left = true
	t.mu.Unlock()

	t.sub.Cancel()
	t.cancel()
	err := errors.Join(t.topic.Close(), t.g.ps.UnregisterTopicValidator(t.name))
	t.g.mu.Lock()
	delete(t.g.topics, t.name)
	t.g.mu.Unlock()
	if err != nil {
		return fmt.Errorf("leave topic %s: %w", t.name, err)
	}
	return nil
}

// receive moves messages from pubsub, which drops what is not fetched at once,
// to the queue.
func (t *Topic) receive(ctx context.Context) {
	self := t.g.host.ID()
	for {
		m, err := t.sub.Next(ctx)
		if err != nil {
			return // left
		}
		if m.GetFrom() == self {
			continue
		}
		t.push(Message{From: m.GetFrom(), Via: m.ReceivedFrom, Data: m.Data, Parsed: m.ValidatorData})
	}
}

func (t *Topic) push(m Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) >= maxQueued || t.queued+len(m.Data) > maxQueuedBytes {
		if t.dropped.Add(1) == 1 {
			t.g.log.Warn("messages are dropped, the reader is too slow", "topic", t.name)
		}
		return
	}
	t.queue = append(t.queue, m)
	t.queued += len(m.Data)
	select {
	case t.more <- struct{}{}:
	default:
	}
}

func (t *Topic) pop() (Message, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) == 0 {
		return Message{}, false
	}
	m := t.queue[0]
	t.queue[0] = Message{} // let its data go
	t.queue = t.queue[1:]
	t.queued -= len(m.Data)
	return m, true
}

func (t *Topic) deliver(ctx context.Context) {
	defer close(t.out)
	for {
		m, ok := t.pop()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-t.more:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case t.out <- m:
		}
	}
}
