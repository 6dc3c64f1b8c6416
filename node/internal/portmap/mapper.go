package portmap

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	lifetime   = 20 * time.Minute
	renewTime  = 5 * time.Minute // a router that was turned off has forgotten all; it is asked again so often
	firstRetry = time.Minute     // when none was found
	maxRetry   = time.Hour
	closeTime  = 2 * time.Second
)

// Mapper keeps the ports that a network listens on open at the router. It is a
// NAT manager of go-libp2p; [Mapper.Run] does the work.
type Mapper struct {
	// constant after New
	log  *slog.Logger
	find func(context.Context) ([]gateway, error)
	wake chan struct{} // of capacity 1

	told string // owned by Run: why ports are not open, as it was logged last

	mu     sync.Mutex
	net    network.Network         // guarded by mu: nil until Manage
	router gateway                 // guarded by mu: nil while none is known; changed by Run alone
	open   map[port]netip.AddrPort // guarded by mu
}

// New makes a mapper of no network yet.
func New(log *slog.Logger) *Mapper {
	return &Mapper{log: log.With("component", "portmap"), find: findAll, wake: make(chan struct{}, 1), open: make(map[port]netip.AddrPort)}
}

// Manage tells whose ports are to be opened. It is what libp2p.NATManager takes.
func (m *Mapper) Manage(n network.Network) basichost.NATManager {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.net = n
	n.Notify(&network.NotifyBundle{
		ListenF:      func(network.Network, multiaddr.Multiaddr) { m.poke() },
		ListenCloseF: func(network.Network, multiaddr.Multiaddr) { m.poke() },
	})
	return m
}

func (m *Mapper) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Close does nothing: the ports are closed when Run ends.
func (m *Mapper) Close() error { return nil }

// HasDiscoveredNAT says whether there is a router that opens ports.
func (m *Mapper) HasDiscoveredNAT() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.router != nil
}

// GetMapping is the address at which the router passes on what comes to one that
// this node listens on, or nil.
func (m *Mapper) GetMapping(a multiaddr.Multiaddr) multiaddr.Multiaddr {
	p, rest, ok := parse(a)
	if !ok {
		return nil
	}
	m.mu.Lock()
	to, ok := m.open[p]
	m.mu.Unlock()
	if !ok {
		return nil
	}
	ip, err := manet.FromIP(to.Addr().AsSlice())
	if err != nil {
		return nil
	}
	c, err := multiaddr.NewComponent(p.protocol, strconv.Itoa(int(to.Port())))
	if err != nil {
		return nil
	}
	out := multiaddr.Multiaddr{ip[0], *c}
	return append(out, rest...)
}

// parse takes an address to listen on apart. It refuses those of IPv6 and
// loopback, which no router changes.
func parse(a multiaddr.Multiaddr) (p port, rest multiaddr.Multiaddr, ok bool) {
	if len(a) < 2 || a[0].Protocol().Code != multiaddr.P_IP4 {
		return p, nil, false
	}
	ip, ok := netip.AddrFromSlice(a[0].RawValue())
	if !ok || ip.IsLoopback() {
		return p, nil, false
	}
	switch c := a[1].Protocol(); c.Code {
	case multiaddr.P_TCP, multiaddr.P_UDP:
		b := a[1].RawValue()
		return port{c.Name, uint16(b[0])<<8 | uint16(b[1])}, a[2:], true
	}
	return p, nil, false
}

// findAll finds the routers that open ports, the better one first.
func findAll(ctx context.Context) (out []gateway, err error) {
	for _, find := range []func(context.Context) (gateway, error){findPMP, findUPnP} {
		g, ferr := find(ctx)
		if ferr != nil {
			err = errors.Join(err, ferr)
			continue
		}
		out = append(out, g)
	}
	return out, err
}

// Run keeps the ports open until ctx is done. Then it closes them and returns nil.
func (m *Mapper) Run(ctx context.Context) error {
	retry := firstRetry
	for {
		select {
		case <-m.wake: // what is about to be done
		default:
		}
		wait := renewTime
		if m.renew(ctx) {
			retry = firstRetry
		} else {
			wait = retry
			retry = min(2*retry, maxRetry)
		}
		select {
		case <-ctx.Done():
			m.closeAll(ctx)
			return nil
		case <-time.After(wait):
		case <-m.wake:
		}
	}
}

// renew opens all ports that are listened on, or keeps them open, and closes the
// others. It reports whether a router did so.
func (m *Mapper) renew(ctx context.Context) bool {
	want := m.wanted()
	for p, ext := range m.opened() {
		if !slices.Contains(want, p) {
			m.closeOne(ctx, p, ext.Port())
		}
	}
	if len(want) == 0 {
		return true
	}
	m.mu.Lock()
	routers, errs := []gateway{m.router}, error(nil)
	m.mu.Unlock()
	if routers[0] != nil {
		if err := m.use(ctx, routers[0], want); err == nil {
			return true
		}
	}
	routers, errs = m.find(ctx)
	for _, g := range routers {
		err := m.use(ctx, g, want)
		if err == nil {
			return true
		}
		errs = errors.Join(errs, err)
	}
	if ctx.Err() != nil {
		return false // what is open is about to be closed
	}
	m.mu.Lock()
	m.router = nil
	clear(m.open)
	m.mu.Unlock()
	if m.news(ctx, errs) {
		m.log.InfoContext(ctx, "no router opens ports for this node", "err", errs)
	}
	return false
}

// use has a router open all ports. It is no error if it refuses some.
func (m *Mapper) use(ctx context.Context, g gateway, want []port) error {
	ext, err := g.External(ctx)
	if err != nil {
		return err
	}
	if !isPublic(ext) {
		return behindError{g, ext}
	}
	before := m.opened()
	now := make(map[port]netip.AddrPort)
	var errs error
	for _, p := range want {
		ask := p.number
		if b, ok := before[p]; ok {
			ask = b.Port() // others know it
		}
		got, err := g.Open(ctx, p, ask, lifetime)
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		now[p] = netip.AddrPortFrom(ext, got)
	}
	if len(now) == 0 {
		return errs
	}
	for p, b := range before {
		switch _, ok := now[p]; {
		case ok:
		case ctx.Err() != nil:
			now[p] = b // to be closed at the end
		default:
			m.closeOne(ctx, p, b.Port())
		}
	}
	m.mu.Lock()
	m.router, m.open = g, now
	m.mu.Unlock()
	if errs == nil {
		m.told = ""
	} else if m.news(ctx, errs) {
		m.log.InfoContext(ctx, "router opened only some of the ports", "err", errs)
	}
	for _, p := range want {
		if _, ok := now[p]; ok && now[p] != before[p] {
			m.log.InfoContext(ctx, "router opened a port", "router", g.String(), "port", p.String(), "address", now[p].String())
		}
	}
	return nil
}

// behindError says that a router has no public address itself.
type behindError struct {
	router gateway
	addr   netip.Addr
}

func (e behindError) Error() string {
	return e.router.String() + " has the address " + e.addr.String() + " itself: another router, or the provider's NAT, is before it"
}

// carrierNAT are the addresses that providers use behind their NAT (RFC 6598).
var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")

func isPublic(a netip.Addr) bool {
	return a.Is4() && a.IsGlobalUnicast() && !a.IsPrivate() && !carrierNAT.Contains(a)
}

// news reports whether the error is another one than was told last.
func (m *Mapper) news(ctx context.Context, err error) bool {
	text := err.Error()
	if ctx.Err() != nil || text == m.told {
		return false
	}
	m.told = text
	return true
}

func (m *Mapper) opened() map[port]netip.AddrPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.open)
}

// wanted are the ports that are listened on.
func (m *Mapper) wanted() (out []port) {
	m.mu.Lock()
	n := m.net
	m.mu.Unlock()
	if n == nil {
		return nil
	}
	for _, a := range n.ListenAddresses() {
		if p, _, ok := parse(a); ok && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// closeAll has closeTime, whatever becomes of ctx, and pmpTimeout more, for a request
// of NAT-PMP cannot be ended.
func (m *Mapper) closeAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	for p, ext := range m.opened() {
		if ctx.Err() != nil {
			return // they close by themselves
		}
		m.closeOne(ctx, p, ext.Port())
	}
}

func (m *Mapper) closeOne(ctx context.Context, p port, external uint16) {
	m.mu.Lock()
	g := m.router
	delete(m.open, p)
	m.mu.Unlock()
	if g == nil {
		return
	}
	if err := g.Close(ctx, p, external); err != nil {
		m.log.DebugContext(ctx, "port was not closed", "err", err)
	}
}
