package portmap

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/dcps/internetgateway2"
	"github.com/huin/goupnp/soap"
	"golang.org/x/sync/errgroup"
)

// What a router says when it cannot do a thing (UPnP WANIPConnection, section 2.4).
const (
	errNoEntry       = 714 // NoSuchEntryInArray
	errConflict      = 718 // ConflictInMappingEntry
	errPermanentOnly = 725 // OnlyPermanentLeasesSupported
)

const (
	upnpTimeout = 10 * time.Second // to find one
	soapTimeout = 5 * time.Second  // for one request
	otherPorts  = 3                // that are tried when one is taken
	minOther    = 1 << 14          // of these, the lowest
)

// connection is what the services of a router have in common that open ports.
type connection interface {
	GetServiceClient() *goupnp.ServiceClient
	LocalAddr() net.IP
	GetExternalIPAddressCtx(ctx context.Context) (string, error)
	GetSpecificPortMappingEntryCtx(ctx context.Context, remote string, external uint16, protocol string) (
		internal uint16, client string, enabled bool, description string, lease uint32, err error)
	AddPortMappingCtx(ctx context.Context, remote string, external uint16, protocol string, internal uint16, client string, enabled bool, description string, lease uint32) error
	DeletePortMappingCtx(ctx context.Context, remote string, external uint16, protocol string) error
}

// upnp is a router that speaks UPnP.
type upnp struct {
	c    connection
	addr netip.Addr // of the router
}

// findUPnP asks the LAN for a router that speaks UPnP. Of several, that of the
// default route is the best.
func findUPnP(ctx context.Context) (gateway, error) {
	ctx, cancel := context.WithTimeout(ctx, upnpTimeout)
	defer cancel()
	var ip1 []*internetgateway2.WANIPConnection1
	var ip2 []*internetgateway2.WANIPConnection2
	var ppp []*internetgateway2.WANPPPConnection1
	var g errgroup.Group
	// Errors of a device are its own: another one may answer.
	g.Go(func() (err error) {
		ip1, _, err = internetgateway2.NewWANIPConnection1ClientsCtx(ctx)
		return err
	})
	g.Go(func() (err error) {
		ip2, _, err = internetgateway2.NewWANIPConnection2ClientsCtx(ctx)
		return err
	})
	g.Go(func() (err error) {
		ppp, _, err = internetgateway2.NewWANPPPConnection1ClientsCtx(ctx)
		return err
	})
	err := g.Wait()
	var all []connection
	for _, c := range ip2 {
		all = append(all, c)
	}
	for _, c := range ip1 {
		all = append(all, c)
	}
	for _, c := range ppp {
		all = append(all, c)
	}
	router, _ := defaultRouter() // without one, any of the LAN will do
	var best *upnp
	for _, c := range all {
		u, ok := newUPnP(c)
		if ok && (best == nil || (u.addr == router && best.addr != router)) {
			best = u
		}
	}
	switch {
	case best != nil:
		return best, nil
	case err != nil:
		return nil, fmt.Errorf("UPnP: %w", err)
	}
	return nil, errors.New("UPnP: no router answered")
}

// newUPnP refuses a device whose requests would go elsewhere than to the LAN, or to
// another machine: anybody there can name any address.
func newUPnP(c connection) (*upnp, bool) {
	s := c.GetServiceClient()
	host := s.RootDevice.URLBase.Hostname()
	a, err := netip.ParseAddr(host)
	if err != nil || !a.IsPrivate() && !a.IsLinkLocalUnicast() || s.SOAPClient.EndpointURL.Hostname() != host {
		return nil, false
	}
	s.SOAPClient.HTTPClient.CheckRedirect = func(*http.Request, []*http.Request) error { return errElsewhere }
	return &upnp{c, a}, true
}

func (u *upnp) String() string { return "UPnP at " + u.addr.String() }

func (u *upnp) failed(what string, err error) error { return fmt.Errorf("%s: %s: %w", u, what, err) }

func (u *upnp) External(ctx context.Context) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, soapTimeout)
	defer cancel()
	text, err := u.c.GetExternalIPAddressCtx(ctx)
	if err != nil {
		return netip.Addr{}, u.failed("external address", err)
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, u.failed("external address", err)
	}
	return a, nil
}

func (u *upnp) Open(ctx context.Context, p port, wanted uint16, life time.Duration) (uint16, error) {
	var err error
	for range 1 + otherPorts {
		if err = u.open(ctx, p, wanted, life); err == nil {
			return wanted, nil
		}
		if !errors.Is(err, errTaken) {
			break
		}
		wanted = uint16(minOther + rand.IntN(1<<16-minOther))
	}
	return 0, u.failed("open "+p.String(), err)
}

var errElsewhere = errors.New("it sends requests elsewhere")

// errTaken says that another machine of the LAN has a port.
var errTaken = errors.New("another machine has that port")

// open looks first whether the port is another machine's, for some routers would
// take it away.
func (u *upnp) open(ctx context.Context, p port, external uint16, life time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, soapTimeout)
	defer cancel()
	self := u.c.LocalAddr().String()
	internal, client, _, _, _, err := u.c.GetSpecificPortMappingEntryCtx(ctx, "", external, strings.ToUpper(p.protocol))
	if err == nil && client != "" && (client != self || internal != p.number) {
		return fmt.Errorf("%w: %s", errTaken, client)
	}
	add := func(life time.Duration) error {
		return u.c.AddPortMappingCtx(ctx, "", external, strings.ToUpper(p.protocol), p.number, self, true, "moot", uint32(life/time.Second))
	}
	err = add(life)
	if upnpCode(err) == errPermanentOnly {
		err = add(0)
	}
	if upnpCode(err) == errConflict {
		return fmt.Errorf("%w: %w", errTaken, err)
	}
	return err
}

func (u *upnp) Close(ctx context.Context, p port, external uint16) error {
	ctx, cancel := context.WithTimeout(ctx, soapTimeout)
	defer cancel()
	err := u.c.DeletePortMappingCtx(ctx, "", external, strings.ToUpper(p.protocol))
	if err != nil && upnpCode(err) != errNoEntry {
		return u.failed("close "+p.String(), err)
	}
	return nil
}

// upnpCode is the number of an error that a router told, or 0.
func upnpCode(err error) int {
	var fault *soap.SOAPFaultError
	if !errors.As(err, &fault) {
		return 0
	}
	return fault.Detail.UPnPError.Errorcode
}
