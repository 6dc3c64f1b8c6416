package runner

import (
	"context"
	"maps"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

const (
	placesEvery = 5 * time.Second
	// A peer that could not be reached is left alone for meetAgain, and twice as long
	// each time, up to mostAlone.
	meetAgain   = 20 * time.Second
	mostAlone   = 5 * time.Minute
	maxMeetings = 8 // at the same time
)

// networkOf names the network of an address as others see it: what one customer
// gets, a /24 of IPv4 and a /48 of IPv6. That of a relayed connection is the
// relay's. Addresses of this machine and its network are exempt.
func networkOf(a ma.Multiaddr) string {
	if manet.IsIPLoopback(a) || manet.IsPrivateAddr(a) {
		return round.Exempt
	}
	ip, err := manet.ToIP(a)
	if err != nil {
		return ""
	}
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return ""
	}
	if addr = addr.Unmap(); addr.IsLinkLocalUnicast() {
		return round.Exempt
	}
	bits := 48
	if addr.Is4() {
		bits = 24
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}

// placeOf is where a peer seems to be, by the connections to it; the best known
// of several is one that is not relayed.
func placeOf(conns []network.Conn) string {
	place := ""
	for _, c := range conns {
		n := networkOf(c.RemoteMultiaddr())
		if c.Stat().Limited {
			if place == "" {
				place = n
			}
			continue
		}
		if n != "" {
			return n
		}
	}
	return place
}

// places looks where the peers are that have a seat or want one, and remembers it
// as long as they do: with many seats nobody is connected to all of them at a time.
type places struct {
	seen  time.Time // when last looked
	peers map[peer.ID]*placed
	slots chan struct{}
}

// placed is what is known of where a peer is.
type placed struct {
	network string // "": not known
	meetAt  time.Time
	alone   time.Duration
}

func newPlaces() *places {
	return &places{peers: make(map[peer.ID]*placed), slots: make(chan struct{}, maxMeetings)}
}

// update takes where peers seem to be now, "" if that cannot be told, and forgets
// all others.
func (p *places) update(now map[peer.ID]string) {
	maps.DeleteFunc(p.peers, func(id peer.ID, _ *placed) bool { _, ok := now[id]; return !ok })
	for id, network := range now {
		if p.peers[id] == nil {
			p.peers[id] = &placed{}
		}
		if network != "" {
			p.peers[id].network = network
		}
	}
}

// due reports whether a peer is to be looked for, and that it is.
func (p *placed) due(now time.Time) bool {
	if p.network != "" || now.Before(p.meetAt) {
		return false
	}
	p.alone = min(max(2*p.alone, meetAgain), mostAlone)
	p.meetAt = now.Add(p.alone)
	return true
}

// look tells the round where peers are, now and then, and looks for those that
// are nowhere.
func (l *driver) look(ctx context.Context) []round.Effect {
	p, now := l.places, time.Now()
	if now.Sub(p.seen) < placesEvery {
		return nil
	}
	p.seen = now
	host := l.r.hub.o.Host.Libp2p()
	asking := l.m.Asking()
	at := make(map[peer.ID]string, len(asking))
	for _, id := range asking {
		at[id] = round.Exempt
		if id != host.ID() {
			at[id] = placeOf(host.Network().ConnsToPeer(id))
		}
	}
	p.update(at)
	var ev round.Seen
	for _, id := range asking {
		ev.Places = append(ev.Places, round.Place{Peer: id, Network: p.peers[id].network})
		l.meet(ctx, id, now)
	}
	return l.m.Step(now, ev)
}

// meet connects to a peer, so that it can be seen where it is.
func (l *driver) meet(ctx context.Context, id peer.ID, now time.Time) {
	p := l.places
	select {
	case p.slots <- struct{}{}:
	default:
		return // the next time
	}
	if !p.peers[id].due(now) {
		<-p.slots
		return
	}
	host := l.r.hub.o.Host.Libp2p()
	l.r.running.Go(func() {
		defer func() { <-p.slots }()
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		if err := host.Connect(ctx, peer.AddrInfo{ID: id}); err != nil {
			l.r.log.DebugContext(ctx, "peer that wants a seat was not reached", "peer", id, "err", err)
		}
	})
}

// passes reports whether a request is worth passing on: it can take effect, or
// it is against the rules of the run whatever the round.
func (r *Runner) passes(j *msg.JoinRequest) (pass, rejected bool) {
	v := r.view.Load()
	if v == nil {
		ok := r.rules.Admits(j, 0)
		return ok, !ok
	}
	if j.Leave && r.rules.Admits(j, v.Head.Record.Round+1) {
		for _, s := range v.Head.Record.NextSeats {
			if s.Peer == j.Peer {
				return true, false
			}
		}
		return false, false
	}
	return r.rules.Admits(j, v.Head.Record.Round+1), !r.rules.Admits(j, 0)
}
