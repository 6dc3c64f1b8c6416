package p2p

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"
)

const (
	maxMeetings  = 128 // runs of which peers are known
	maxMembers   = 128 // of each
	maxMeetConns = 64  // connections that one run asks for
	memberTTL    = 10 * time.Minute
	askEvery     = 15 * time.Second // the same peer
	meetEvery    = 3 * time.Second
	dhtFirstWait = time.Second
	dhtMaxWait   = 2 * time.Minute
	dhtTimeout   = 30 * time.Second
	advertiseFor = 10 * time.Minute // then the DHT is told again
)

// meeting is what is known of the peers of one run. Its fields are guarded by
// Host.mu.
type meeting struct {
	joined  int       // how many Rendezvous are under way
	asked   time.Time // when a peer last asked
	members map[peer.ID]*member
	dropped []peer.ID     // members that were forgotten, and may be protected; none while joined is 0
	wake    chan struct{} // one more pass is worth it; of capacity 1
}

// member is a peer that said itself that it is in the run.
type member struct {
	seen   time.Time
	addr   peer.AddrInfo
	record []byte // signed by it; nil: it has told none
}

func newMeeting() *meeting {
	return &meeting{members: make(map[peer.ID]*member), wake: make(chan struct{}, 1)}
}

func (m *meeting) add(p peer.ID, rec *peer.PeerRecord, raw []byte, now time.Time) {
	mem := m.members[p]
	if mem == nil {
		if len(m.members) >= maxMembers {
			oldest := p
			for q, o := range m.members {
				if oldest == p || o.seen.Before(m.members[oldest].seen) {
					oldest = q
				}
			}
			delete(m.members, oldest)
			if m.joined > 0 {
				m.dropped = append(m.dropped, oldest)
			}
		}
		mem = &member{addr: peer.AddrInfo{ID: p}}
		m.members[p] = mem
		m.poke()
	}
	mem.seen = now
	if rec != nil {
		mem.addr.Addrs, mem.record = rec.Addrs, raw
	}
}

func (m *meeting) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// makeRoom says whether one more meeting fits, if needed by forgetting the one
// that nobody has asked for longest. It is called with h.mu held.
func (h *Host) makeRoom() bool {
	if len(h.meetings) < maxMeetings {
		return true
	}
	oldest := ""
	for name, m := range h.meetings {
		if m.joined == 0 && (oldest == "" || m.asked.Before(h.meetings[oldest].asked)) {
			oldest = name
		}
	}
	if oldest == "" {
		return false
	}
	delete(h.meetings, oldest)
	return true
}

// rendezvousCID is where the members of a run meet in the DHT.
func rendezvousCID(name string) (cid.Cid, error) {
	sum := sha256.Sum256([]byte("moot rendezvous 1\n" + name))
	mh, err := multihash.Encode(sum[:], multihash.SHA2_256)
	if err != nil {
		return cid.Undef, err
	}
	return cid.NewCidV1(cid.Raw, mh), nil
}

// Rendezvous makes this node findable as a member of the run called name, and
// connects it to others, until ctx is done. It asks the peers it is connected
// to, whoever they are, and the DHT. It returns nil, or an error when the name
// is empty or longer than 128 bytes.
func (h *Host) Rendezvous(ctx context.Context, name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("rendezvous: name of %d bytes, want 1 to %d", len(name), maxName)
	}
	key, err := rendezvousCID(name)
	if err != nil {
		return fmt.Errorf("rendezvous: %w", err)
	}
	m, err := h.enter(name)
	if err != nil {
		return fmt.Errorf("rendezvous: %w", err)
	}
	defer h.leave(name, m)
	var wg sync.WaitGroup
	wg.Go(func() { h.meetPeers(ctx, name, m) })
	wg.Go(func() { h.meetDHT(ctx, key) })
	wg.Wait()
	return nil
}

func (h *Host) enter(name string) (*meeting, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.meetings[name]
	if m == nil {
		if !h.makeRoom() {
			return nil, fmt.Errorf("in %d runs already", maxMeetings)
		}
		m = newMeeting()
		h.meetings[name] = m
	}
	m.joined++
	return m, nil
}

func (h *Host) leave(name string, m *meeting) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m.joined--
	m.asked = time.Now()
	if m.joined > 0 {
		return
	}
	for p := range m.members {
		h.host.ConnManager().Unprotect(p, "run "+name)
	}
	for _, p := range m.dropped {
		h.host.ConnManager().Unprotect(p, "run "+name)
	}
	m.dropped = nil
}

// Members are the connected peers that said they are in the run called name.
func (h *Host) Members(name string) []peer.ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.meetings[name]
	if m == nil {
		return nil
	}
	var out []peer.ID
	for p := range m.members {
		if h.connected(p) {
			out = append(out, p)
		}
	}
	return out
}

// meetPeers asks each connected peer now and then, new ones at once, and dials
// those they name and those that were lost. A peer that is slow to answer or
// to be dialled holds up nobody else.
func (h *Host) meetPeers(ctx context.Context, name string, m *meeting) {
	asked := make(map[peer.ID]time.Time)
	var g errgroup.Group
	g.SetLimit(2 * dialsAtOnce)
	for {
		now := time.Now()
		for _, p := range h.host.Network().Peers() {
			if now.Sub(asked[p]) < askEvery || !h.speaks(p, peersProtocol) {
				continue
			}
			if !g.TryGo(func() error { h.askAndDial(ctx, p, name, m); return nil }) {
				break // the others have their turn in a moment
			}
			asked[p] = now
		}
		for p := range asked {
			if !h.connected(p) {
				delete(asked, p) // when it comes back it is asked at once
			}
		}
		if lost := h.tend(name, m, now); len(lost) > 0 {
			g.TryGo(func() error { h.reachAll(ctx, "lost", lost); return nil })
		}
		select {
		case <-ctx.Done():
			_ = g.Wait()
			return
		case <-m.wake:
		case <-time.After(meetEvery):
		}
	}
}

func (h *Host) askAndDial(ctx context.Context, p peer.ID, name string, m *meeting) {
	others, err := h.askPeers(ctx, p, name)
	if err != nil {
		h.log.DebugContext(ctx, "peer did not name others", "peer", p, "err", err)
	}
	others = others[:min(len(others), h.room(m))]
	h.reachAll(ctx, "peers", others)
}

// room is how many more connections the run may ask for.
func (h *Host) room(m *meeting) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := maxMeetConns
	for p := range m.members {
		if h.connected(p) {
			n--
		}
	}
	return max(n, 0)
}

// tend protects the connected members and lists some that were lost.
func (h *Host) tend(name string, m *meeting, now time.Time) []peer.AddrInfo {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range m.dropped {
		if m.members[p] == nil {
			h.host.ConnManager().Unprotect(p, "run "+name)
		}
	}
	m.dropped = nil
	n := 0
	var lost []peer.AddrInfo
	for p, mem := range m.members {
		switch {
		case h.connected(p):
			mem.seen = now
			if n++; n <= maxMeetConns {
				h.host.ConnManager().Protect(p, "run "+name)
			}
		case now.Sub(mem.seen) > memberTTL:
			delete(m.members, p)
			h.host.ConnManager().Unprotect(p, "run "+name)
		default:
			lost = append(lost, mem.addr) // without addresses the peerstore's are used
		}
	}
	return lost[:min(len(lost), max(0, maxMeetConns-n))]
}

func (h *Host) speaks(p peer.ID, proto string) bool {
	v, err := h.host.Peerstore().SupportsProtocols(p, protocol.ID(proto))
	return err == nil && len(v) > 0
}

// meetDHT announces this node under key and dials whom it finds there.
func (h *Host) meetDHT(ctx context.Context, key cid.Cid) {
	var told time.Time
	for wait := dhtFirstWait; ; wait = min(2*wait, dhtMaxWait) {
		if h.dht.RoutingTable().Size() == 0 {
			wait = dhtFirstWait / 2 // doubled to what it was; nobody to ask yet
		} else {
			told = h.passDHT(ctx, key, told)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (h *Host) passDHT(ctx context.Context, key cid.Cid, told time.Time) time.Time {
	ctx, cancel := context.WithTimeout(ctx, dhtTimeout)
	defer cancel()
	if time.Since(told) > advertiseFor {
		if err := h.dht.Provide(ctx, key, true); err == nil {
			told = time.Now()
		} else if ctx.Err() == nil {
			h.log.DebugContext(ctx, "run was not announced in the dht", "err", err)
		}
	}
	ais, err := h.FindProviders(ctx, key)
	if err != nil {
		h.log.DebugContext(ctx, "run was not looked up in the dht", "err", err)
	}
	h.reachAll(ctx, "dht", ais)
	return told
}

// runPeerEvents notices who comes and goes.
func (h *Host) runPeerEvents(ctx context.Context) error {
	sub, err := h.host.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted),
		new(event.EvtPeerConnectednessChanged),
	}, eventbus.BufSize(256), eventbus.Name("moot"))
	if err != nil {
		return fmt.Errorf("p2p: subscribe to events: %w", err)
	}
	defer sub.Close()
	// Who came before the subscription.
	for _, p := range h.host.Network().Peers() {
		if cs := h.host.Network().ConnsToPeer(p); len(cs) > 0 {
			h.remember(p, dialable(cs[0], h.host.Peerstore().Addrs(p)))
		}
	}
	h.pokeAll()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-sub.Out():
			if !ok {
				return errors.New("p2p: events ended")
			}
			h.peerEvent(e)
		}
	}
}

func (h *Host) peerEvent(e any) {
	switch e := e.(type) {
	case event.EvtPeerIdentificationCompleted:
		h.remember(e.Peer, dialable(e.Conn, e.ListenAddrs))
		h.pokeAll()
	case event.EvtPeerConnectednessChanged:
		if e.Connectedness == network.NotConnected {
			h.pokeAll()
		}
	}
}

// pokeAll makes the meetings of this node look at the connections again.
func (h *Host) pokeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.meetings {
		if m.joined > 0 {
			m.poke()
		}
	}
}
