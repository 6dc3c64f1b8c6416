package p2p

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sync/errgroup"
)

const (
	minRedial       = time.Second
	maxRedial       = time.Minute
	maxDialBook     = 2048 // peers whose failed dials are remembered
	dialsAtOnce     = 16   // of one source of addresses
	maxAddrsPerPeer = 32   // of a peer that somebody told us of
	localQUICDelay  = 300 * time.Millisecond
)

// rankDials orders the addresses of one peer. On this machine and the LAN it
// tries TCP first, whose TLS costs a third of QUIC's CPU; elsewhere QUIC, which
// gets through NATs.
func rankDials(addrs []multiaddr.Multiaddr) []network.AddrDelay {
	var local, rest []multiaddr.Multiaddr
	for _, a := range addrs {
		if manet.IsIPLoopback(a) || manet.IsPrivateAddr(a) {
			local = append(local, a)
		} else {
			rest = append(rest, a)
		}
	}
	var out []network.AddrDelay
	tcp := false
	for _, a := range local {
		if _, err := a.ValueForProtocol(multiaddr.P_TCP); err == nil {
			out = append(out, network.AddrDelay{Addr: a})
			tcp = true
		}
	}
	for _, a := range local {
		if _, err := a.ValueForProtocol(multiaddr.P_TCP); err == nil {
			continue
		}
		d := network.AddrDelay{Addr: a}
		if tcp {
			d.Delay = localQUICDelay
		}
		out = append(out, d)
	}
	for _, d := range swarm.DefaultDialRanker(rest) {
		if len(local) > 0 {
			d.Delay += 2 * localQUICDelay
		}
		out = append(out, d)
	}
	return out
}

// Connect dials a multiaddr that ends in /p2p/PEERID.
func (h *Host) Connect(ctx context.Context, addr string) error {
	ai, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return fmt.Errorf("address %q: %w", addr, err)
	}
	if err := h.dial(ctx, *ai); err != nil {
		return fmt.Errorf("connect to %s: %w", addr, err)
	}
	return nil
}

func (h *Host) dial(ctx context.Context, ai peer.AddrInfo) error {
	if h.Blocked(ai.ID) {
		return errors.New("peer is blocked")
	}
	// Callers have their own backoff; libp2p's can be of an old address.
	if s, ok := h.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(ai.ID)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	defer HoldAddrs(h.host, ai)()
	return oneLine(h.host.Connect(ctx, ai))
}

// HoldAddrs makes addresses of a peer known until release is called, and longer if
// it is connected then. Without, a peer cannot be dialled while the address book is
// full: it takes no more of those that are not connected, and strangers can fill it.
func HoldAddrs(h host.Host, ai peer.AddrInfo) (release func()) {
	book := h.Peerstore()
	known := book.Addrs(ai.ID) // which last as long as they would
	fresh := slices.DeleteFunc(slices.Clone(ai.Addrs), func(a multiaddr.Multiaddr) bool { return multiaddr.Contains(known, a) })
	if len(fresh) == 0 {
		return func() {}
	}
	book.AddAddrs(ai.ID, fresh[:min(len(fresh), maxAddrsPerPeer)], peerstore.ConnectedAddrTTL)
	return func() {
		if h.Network().Connectedness(ai.ID) == network.NotConnected {
			book.UpdateAddrs(ai.ID, peerstore.ConnectedAddrTTL, peerstore.TempAddrTTL)
		}
	}
}

// errNotNow says that a peer failed a moment ago, or is being dialled.
var errNotNow = errors.New("not dialled again yet")

// reach connects to a peer that was discovered. Two peers often discover each
// other at once: the one with the smaller ID dials, the other waits a moment
// and dials only if that did not help.
func (h *Host) reach(ctx context.Context, ai peer.AddrInfo) error {
	if ai.ID == h.ID() || h.connected(ai.ID) {
		return nil
	}
	first, ok := h.dials.begin(ai.ID)
	if !ok {
		return errNotNow
	}
	if first && h.ID() > ai.ID {
		wait := 200*time.Millisecond + rand.N(400*time.Millisecond)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	if h.connected(ai.ID) {
		h.dials.end(ai.ID, true)
		return nil
	}
	if len(ai.Addrs) > maxAddrsPerPeer {
		ai.Addrs = ai.Addrs[:maxAddrsPerPeer]
	}
	err := h.dial(ctx, ai)
	h.dials.end(ai.ID, err == nil)
	return err
}

// reachAll connects to all that can be reached, and waits for the last dial.
// The source is for the log.
func (h *Host) reachAll(ctx context.Context, source string, ais []peer.AddrInfo) {
	var g errgroup.Group
	g.SetLimit(dialsAtOnce)
	for _, ai := range ais {
		g.Go(func() error {
			if err := h.reach(ctx, ai); err != nil && !errors.Is(err, errNotNow) {
				h.log.DebugContext(ctx, "peer was not reached", "source", source, "peer", ai.ID, "err", err)
			}
			return nil
		})
	}
	_ = g.Wait()
}

// dialBook remembers whom to leave alone for how long.
type dialBook struct {
	mu    sync.Mutex
	peers map[peer.ID]*dialState // guarded by mu
}

type dialState struct {
	fails int
	busy  bool
	next  time.Time
}

// begin claims a peer; first is true when no dial has failed lately.
func (b *dialBook) begin(p peer.ID) (first, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.peers[p]
	if s == nil {
		if b.peers == nil {
			b.peers = make(map[peer.ID]*dialState)
		}
		b.shrink()
		s = &dialState{}
		b.peers[p] = s
	}
	if s.busy || time.Now().Before(s.next) {
		return false, false
	}
	s.busy = true
	return s.fails == 0, true
}

func (b *dialBook) end(p peer.ID, connected bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.peers[p]
	if s == nil {
		return
	}
	if connected {
		delete(b.peers, p)
		return
	}
	s.busy = false
	s.next = time.Now().Add(backoff(s.fails))
	s.fails++
}

// shrink makes room for one more. What it forgets is dialled again sooner.
func (b *dialBook) shrink() {
	for p, s := range b.peers {
		if len(b.peers) < maxDialBook {
			return
		}
		if !s.busy {
			delete(b.peers, p)
		}
	}
}

// backoff is how long to wait after n earlier failures: a second, doubled to a
// minute, of which a random half is taken off, lest all come at once.
func backoff(n int) time.Duration {
	d := maxRedial
	if n < 6 {
		d = min(minRedial<<n, maxRedial)
	}
	return d/2 + rand.N(d/2)
}

// oneLine shortens libp2p's dial errors, which list each address on a line.
func oneLine(err error) error {
	if err == nil {
		return nil
	}
	de := new(swarm.DialError)
	if !errors.As(err, &de) || len(de.DialErrors) == 0 {
		if strings.Contains(err.Error(), "\n") {
			return &flat{err}
		}
		return err
	}
	return &flat{de}
}

// flat is an error whose text is one line.
type flat struct{ err error }

func (f *flat) Unwrap() error { return f.err }

func (f *flat) Error() string {
	de, ok := f.err.(*swarm.DialError) //nolint:errorlint // made by oneLine from this very type
	if !ok {
		return strings.Join(strings.Fields(f.err.Error()), " ")
	}
	var b strings.Builder
	for i, te := range de.DialErrors {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s: %v", te.Address, te.Cause)
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func containsAny(s string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}

// dialable are addresses of a peer, the one that was dialled first: it works.
func dialable(c network.Conn, listen []multiaddr.Multiaddr) []multiaddr.Multiaddr {
	var out []multiaddr.Multiaddr
	if c != nil && c.Stat().Direction == network.DirOutbound && !c.Stat().Limited {
		out = append(out, c.RemoteMultiaddr())
	}
	for _, a := range listen {
		if !multiaddr.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}
