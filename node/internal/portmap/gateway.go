package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	natpmp "github.com/jackpal/go-nat-pmp"
	"github.com/libp2p/go-netroute"
)

// gateway is a router that opens ports.
type gateway interface {
	// String says what it is: its protocol and address.
	String() string

	// External is the router's address on the other side.
	External(ctx context.Context) (netip.Addr, error)

	// Open opens a port, or keeps it open: wanted if that is free, else another
	// one, for life.
	Open(ctx context.Context, p port, wanted uint16, life time.Duration) (uint16, error)

	// Close closes what Open opened.
	Close(ctx context.Context, p port, external uint16) error
}

// port is one that this node listens on.
type port struct {
	protocol string // "tcp" or "udp"
	number   uint16
}

func (p port) String() string { return fmt.Sprintf("%s %d", p.protocol, p.number) }

// far is an address of the internet, to which nothing is sent: the way there leads
// through the router.
var far = net.IPv4(192, 0, 2, 1)

// defaultRouter is the address of the router in the default route.
func defaultRouter() (netip.Addr, error) {
	r, err := netroute.New()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("routes of this machine: %w", err)
	}
	_, via, _, err := r.Route(far)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("default route: %w", err)
	}
	a, ok := netip.AddrFromSlice(via.To4())
	if !ok {
		return netip.Addr{}, errors.New("this machine has no router")
	}
	return a, nil
}

// pmpTimeout is for one request of NAT-PMP: three tries. It cannot be ended earlier.
const pmpTimeout = 1500 * time.Millisecond

// pmp is a router that speaks NAT-PMP.
type pmp struct {
	addr netip.Addr
	c    *natpmp.Client
}

// findPMP asks the router of the default route whether it speaks NAT-PMP.
func findPMP(ctx context.Context) (gateway, error) {
	addr, err := defaultRouter()
	if err != nil {
		return nil, fmt.Errorf("NAT-PMP: %w", err)
	}
	g := &pmp{addr, natpmp.NewClientWithTimeout(addr.AsSlice(), pmpTimeout)}
	if _, err := g.External(ctx); err != nil {
		return nil, err
	}
	return g, nil
}

func (g *pmp) String() string { return "NAT-PMP at " + g.addr.String() }

func (g *pmp) failed(what string, err error) error { return fmt.Errorf("%s: %s: %w", g, what, err) }

func (g *pmp) External(context.Context) (netip.Addr, error) {
	r, err := g.c.GetExternalAddress()
	if err != nil {
		return netip.Addr{}, g.failed("external address", err)
	}
	return netip.AddrFrom4(r.ExternalIPAddress), nil
}

func (g *pmp) Open(_ context.Context, p port, wanted uint16, life time.Duration) (uint16, error) {
	r, err := g.c.AddPortMapping(p.protocol, int(p.number), int(wanted), int(life/time.Second))
	if err != nil {
		return 0, g.failed("open "+p.String(), err)
	}
	if r.MappedExternalPort == 0 {
		return 0, g.failed("open "+p.String(), errors.New("the router gave no port"))
	}
	return r.MappedExternalPort, nil
}

func (g *pmp) Close(_ context.Context, p port, _ uint16) error {
	if _, err := g.c.AddPortMapping(p.protocol, int(p.number), 0, 0); err != nil {
		return g.failed("close "+p.String(), err)
	}
	return nil
}
