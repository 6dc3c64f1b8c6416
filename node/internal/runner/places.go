package runner

import (
	"context"
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
	// meetAgain is how long a peer that could not be reached is left alone.
	meetAgain   = 5 * time.Minute
	maxMeetings = 4   // at the same time
	maxMet      = 512 // peers of which it is remembered when they were looked for
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

// places looks where the peers are that have a seat or want one.
type places struct {
	seen  time.Time // when last looked
	met   map[peer.ID]time.Time
	slots chan struct{}
}

func newPlaces() *places {
	return &places{met: make(map[peer.ID]time.Time), slots: make(chan struct{}, maxMeetings)}
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
	var ev round.Seen
	for _, id := range l.m.Asking() {
		place := round.Exempt
		if id != host.ID() {
			place = placeOf(host.Network().ConnsToPeer(id))
		}
		ev.Places = append(ev.Places, round.Place{Peer: id, Network: place})
		if place == "" {
			l.meet(ctx, id, now)
		}
	}
	return l.m.Step(now, ev)
}

// meet connects to a peer, so that it can be seen where it is.
func (l *driver) meet(ctx context.Context, id peer.ID, now time.Time) {
	p := l.places
	if at, ok := p.met[id]; ok && now.Sub(at) < meetAgain {
		return
	}
	select {
	case p.slots <- struct{}{}:
	default:
		return // the next time
	}
	if len(p.met) >= maxMet {
		clear(p.met) // a peer is looked for once more, then
	}
	p.met[id] = now
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
	if j.Leave {
		for _, s := range v.Head.Record.NextSeats {
			if s.Peer == j.Peer {
				return true, false
			}
		}
		return false, false
	}
	return r.rules.Admits(j, v.Head.Record.Round+1), !r.rules.Admits(j, 0)
}
