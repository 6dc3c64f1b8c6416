// Package presence asks peers two things that a node cannot know by itself:
// whether its clock is right, and whether another machine uses its identity.
//
// A node says hello to each peer it connects to, with a number that it drew when
// it started. The peer answers with its time. If it has another connection to
// the same peer ID, it first asks there for a signature of that number: who gives
// one, and drew another number, is somebody else with the same key. The node that
// said hello checks the signature, so that nobody can stop it by a lie.
//
// Protocol /moot/presence/1, one question for a stream. All fields have a fixed
// size, numbers are little-endian:
//
//	hello      1, number (16)      answer: time (8, ms since 1970), n (1); if n > 0 also
//	                               number (16), signature (64), address (n)
//	signature  2, number (16)      answer: own number (16), signature (64)
//
// The signature is that of the identity, over the text "moot presence 1", the
// number in the question and the own number.
package presence

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
	"golang.org/x/time/rate"
)

// Protocol is what a node speaks that takes part.
const Protocol protocol.ID = "/moot/presence/1"

const (
	domain        = "moot presence 1"
	numberBytes   = 16
	signatureSize = 64
	maxAddress    = 100 // bytes; one is cut
)

// The questions.
const (
	hello     = 1
	signature = 2
)

const (
	// askTimeout is for a hello, challengeTimeout for the question that the peer
	// asks meanwhile.
	askTimeout       = 10 * time.Second
	challengeTimeout = 3 * time.Second
	// again is how often connected peers are greeted again, and how many.
	again    = 10 * time.Minute
	greeted  = 8
	keptFor  = time.Hour // how long the time of a peer counts
	maxTimes = 64
	maxConns = 4 // of a peer that are asked for a signature
	// tries is how often a peer is asked whose answer is late or was lost in a
	// standstill, and pause is between.
	tries = 3
	pause = time.Second
)

// Slack is by how much a clock may be off.
const Slack = 10 * time.Second

// ErrConflict is that another machine uses this node's identity.
var ErrConflict = errors.New("another machine uses the identity of this node")

// Options are what New needs.
type Options struct {
	Key crypto.PrivKey // of the host
	// Skewed is told when the clock turns out to be wrong, and when it is right
	// again; it may be nil.
	Skewed func(offset time.Duration, peers int)
	Log    *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Presence is one node's part.
type Presence struct {
	// constant after New
	host   host.Host
	o      Options
	number [numberBytes]byte
	limit  *rate.Limiter // of hellos that are answered
	// late is after how long an answer proves nothing: who gave it may have waited in
	// vain for a signature, on a machine that did nothing for a while.
	late time.Duration
	// watch begins to look for a standstill, and stood ends that and reports one.
	watch func() (stood func() bool)

	mu     sync.Mutex
	times  map[peer.ID]measured // guarded by mu
	skewed bool                 // guarded by mu
}

// measured is by how much the clock of a peer is ahead.
type measured struct {
	offset time.Duration
	at     time.Time
}

// New returns the part of a node. Nothing is asked before Run.
func New(h host.Host, o Options) *Presence {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Presence{host: h, o: o, limit: rate.NewLimiter(20, 40), late: challengeTimeout, watch: watchClock, times: map[peer.ID]measured{}}
	_, _ = rand.Read(p.number[:]) // it never fails
	return p
}

// Run answers and asks until ctx is done, or until it is proven that another
// machine uses the identity: then it returns an error that is ErrConflict.
func (p *Presence) Run(ctx context.Context) error {
	sub, err := p.host.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		return fmt.Errorf("watch for peers: %w", err)
	}
	defer sub.Close()
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	conflict := make(chan error, 1)
	slots := make(chan struct{}, greeted)
	greet := func(id peer.ID) {
		select {
		case slots <- struct{}{}:
		default:
			return // it is greeted the next time
		}
		asking.Go(func() {
			defer func() { <-slots }()
			err := p.greetUntilSoon(ctx, id)
			if errors.Is(err, ErrConflict) {
				select {
				case conflict <- err:
				default:
				}
			} else if err != nil && ctx.Err() == nil {
				p.o.Log.DebugContext(ctx, "peer was not asked for its time", "peer", id, "err", err)
			}
		})
	}
	p.host.SetStreamHandler(Protocol, func(s network.Stream) { p.answer(ctx, s) })
	defer p.host.RemoveStreamHandler(Protocol)
	for _, id := range p.host.Network().Peers() {
		greet(id)
	}
	t := time.NewTicker(again)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-conflict:
			return err
		case e, ok := <-sub.Out():
			if !ok {
				<-ctx.Done()
				return nil
			}
			if e, ok := e.(event.EvtPeerIdentificationCompleted); ok && slices.Contains(e.Protocols, Protocol) {
				greet(e.Peer)
			}
		case <-t.C:
			for _, id := range p.host.Network().Peers() {
				greet(id)
			}
		}
	}
}

// greetUntilSoon asks a peer, and again when it was late. One that does not answer
// is asked once, unless this machine did nothing meanwhile: then it may have answered.
func (p *Presence) greetUntilSoon(ctx context.Context, id peer.ID) error {
	for try := 1; ; try++ {
		begun, stood := time.Now(), p.watch()
		err := p.greet(ctx, id)
		anew := time.Since(begun) >= p.late
		if lost := stood(); err != nil {
			anew = lost && !errors.Is(err, ErrConflict)
		}
		if try == tries || !anew {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// watchClock looks for a standstill of this machine.
func watchClock() (stood func() bool) {
	t := time.NewTicker(time.Second)
	ticked := watchTicks(t.C)
	return func() bool {
		t.Stop()
		return ticked()
	}
}

// watchTicks looks for a time as long as challengeTimeout without a tick.
func watchTicks(ticks <-chan time.Time) (stood func() bool) {
	over, ended, longest, last := make(chan struct{}), make(chan struct{}), time.Duration(0), time.Now()
	look := func() {
		now := time.Now()
		longest, last = max(longest, now.Sub(last)), now
	}
	go func() {
		defer close(ended)
		for {
			select {
			case <-ticks:
				look()
			case <-over:
				look()
				return
			}
		}
	}()
	return func() bool {
		close(over)
		<-ended
		return longest >= challengeTimeout
	}
}

// greet asks a peer.
func (p *Presence) greet(ctx context.Context, id peer.ID) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s, err := p.host.NewStream(network.WithNoDial(ctx, "presence"), id, Protocol)
	if err != nil {
		return err
	}
	defer s.Reset() //nolint:errcheck // it is over either way
	if err := s.SetDeadline(time.Now().Add(askTimeout)); err != nil {
		return err
	}
	sent := p.o.Now()
	if _, err := s.Write(append([]byte{hello}, p.number[:]...)); err != nil {
		return err
	}
	var head [9]byte
	if _, err := io.ReadFull(s, head[:]); err != nil {
		return err
	}
	took := p.o.Now().Sub(sent)
	if n := int(head[8]); n > 0 {
		return p.checkProof(s, n)
	}
	if took <= 2*Slack { // after a longer time it says nothing
		told := time.UnixMilli(int64(binary.LittleEndian.Uint64(head[:])))
		p.note(id, told.Sub(sent.Add(took/2)))
	}
	return nil
}

// checkProof reads the proof that somebody else has the key.
func (p *Presence) checkProof(r io.Reader, n int) error {
	b := make([]byte, numberBytes+signatureSize+n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	other, sig, addr := [numberBytes]byte(b), b[numberBytes:numberBytes+signatureSize], b[numberBytes+signatureSize:]
	if other == p.number {
		return errors.New("the proof of another machine is of this one")
	}
	if ok, err := p.o.Key.GetPublic().Verify(signed(p.number, other), sig); err != nil || !ok {
		return errors.New("the proof of another machine has a wrong signature")
	}
	return fmt.Errorf("%w; a peer sees it at %q", ErrConflict, addr)
}

func signed(question, own [numberBytes]byte) []byte {
	return slices.Concat([]byte(domain), question[:], own[:])
}

// answer answers a question.
func (p *Presence) answer(ctx context.Context, s network.Stream) {
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(askTimeout)) // a stream that has none is reset with its connection
	var q [1 + numberBytes]byte
	if _, err := io.ReadFull(s, q[:]); err != nil || !p.limit.Allow() {
		_ = s.Reset()
		return
	}
	number := [numberBytes]byte(q[1:])
	var b []byte
	switch {
	case q[0] == hello:
		proof := p.lookForOther(ctx, s.Conn(), number)
		b = binary.LittleEndian.AppendUint64(nil, uint64(p.o.Now().UnixMilli()))
		if proof == nil {
			b = append(b, 0)
		} else {
			b = append(append(b, byte(len(proof)-numberBytes-signatureSize)), proof...)
		}
	case q[0] == signature && s.Conn().RemotePeer() != p.host.ID():
		sig, err := p.o.Key.Sign(signed(number, p.number))
		if err == nil && len(sig) == signatureSize {
			b = append(p.number[:], sig...)
		}
	}
	if b == nil {
		_ = s.Reset()
		return
	}
	_, _ = s.Write(b) // who asked may be gone
}

// lookForOther asks on the other connections to the same peer for a signature
// of number. It returns number, signature and address of somebody else who gave
// one, or nil.
func (p *Presence) lookForOther(ctx context.Context, c network.Conn, number [numberBytes]byte) []byte {
	ctx, cancel := context.WithTimeout(ctx, challengeTimeout)
	defer cancel()
	id := c.RemotePeer()
	key, err := id.ExtractPublicKey()
	if err != nil {
		return nil
	}
	conns := p.host.Network().ConnsToPeer(id)
	found := make(chan []byte, len(conns))
	asked := 0
	for _, other := range conns {
		if other == c || asked == maxConns {
			continue
		}
		asked++
		go func() { // ends with ctx
			b, err := challenge(ctx, other, number)
			if err == nil && [numberBytes]byte(b) != number {
				if ok, err := key.Verify(signed(number, [numberBytes]byte(b)), b[numberBytes:]); ok && err == nil {
					addr := other.RemoteMultiaddr().String()
					found <- append(b, addr[:min(len(addr), maxAddress)]...)
					return
				}
			}
			found <- nil
		}()
	}
	for range asked {
		select {
		case b := <-found:
			if b != nil {
				return b
			}
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// challenge asks for a signature on one connection.
func challenge(ctx context.Context, c network.Conn, number [numberBytes]byte) ([]byte, error) {
	s, err := c.NewStream(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Reset() //nolint:errcheck // it is over either way
	deadline, _ := ctx.Deadline()
	if err := s.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if err := multistream.SelectProtoOrFail(Protocol, s); err != nil {
		return nil, err
	}
	if err := s.SetProtocol(Protocol); err != nil {
		return nil, err
	}
	if _, err := s.Write(append([]byte{signature}, number[:]...)); err != nil {
		return nil, err
	}
	b := make([]byte, numberBytes+signatureSize)
	_, err = io.ReadFull(s, b)
	return b, err
}

// note keeps by how much the clock of a peer is ahead.
func (p *Presence) note(id peer.ID, offset time.Duration) {
	p.mu.Lock()
	now := p.o.Now()
	oldest, since := id, now
	for other, m := range p.times {
		if now.Sub(m.at) > keptFor {
			delete(p.times, other)
		} else if m.at.Before(since) {
			oldest, since = other, m.at
		}
	}
	if _, ok := p.times[id]; !ok && len(p.times) >= maxTimes {
		delete(p.times, oldest)
	}
	p.times[id] = measured{offset, now}
	off, peers := p.offset()
	skewed := peers > 0 && off.Abs() > Slack
	changed := skewed != p.skewed
	p.skewed = skewed
	p.mu.Unlock()
	if changed && p.o.Skewed != nil {
		p.o.Skewed(off, peers)
	}
}

// Offset is by how much the clocks of peers are ahead of this one, the median of
// those that were asked within an hour, and how many they are.
func (p *Presence) Offset() (offset time.Duration, peers int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.offset()
}

// offset is called with mu held.
func (p *Presence) offset() (time.Duration, int) {
	var all []time.Duration
	for _, m := range p.times {
		if p.o.Now().Sub(m.at) <= keptFor {
			all = append(all, m.offset)
		}
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[len(all)/2], len(all)
}
