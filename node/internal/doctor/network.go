package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/moot-net/moot/node/api"
)

// dialTimeout bounds one try to reach a bootstrap peer.
const dialTimeout = 3 * time.Second

// ports looks whether the daemon can listen, unless it does.
func (d *doctor) ports(ctx context.Context) {
	c := d.Config
	if d.status != nil {
		d.ok("ports", "the daemon listens: API %s, for peers at %d of its addresses", d.status.API, len(d.status.Addrs))
		return
	}
	var taken []string
	own := !c.AnyPort || !c.AnyAPIPort
	var lc net.ListenConfig
	if l, err := lc.Listen(ctx, "tcp", c.API); err != nil {
		taken = append(taken, fmt.Sprintf("api: %v", err))
	} else {
		_ = l.Close()
	}
	for _, a := range c.Listen {
		if err := tryListen(ctx, a); err != nil {
			taken = append(taken, fmt.Sprintf("%s: %v", a, err))
		}
	}
	switch {
	case len(taken) == 0:
		d.ok("ports", "all are free")
	case own:
		d.fail("ports", strings.Join(taken, "; "), "end the other program, or give other addresses with --api and --listen; port 0 takes a free one")
	default:
		d.warn("ports", strings.Join(taken, "; "), "end the other program; otherwise free ports are used, which others must find out")
	}
}

func tryListen(ctx context.Context, addr string) error {
	m, err := multiaddr.NewMultiaddr(addr)
	if err != nil {
		return err
	}
	network, host, err := manet.DialArgs(m)
	if err != nil {
		return nil //nolint:nilerr // such as WebRTC: it cannot be tried
	}
	var lc net.ListenConfig
	if strings.HasPrefix(network, "udp") {
		p, err := lc.ListenPacket(ctx, network, host)
		if err != nil {
			return err
		}
		return p.Close()
	}
	l, err := lc.Listen(ctx, network, host)
	if err != nil {
		return err
	}
	return l.Close()
}

// network looks at who can be reached, and by whom.
func (d *doctor) network(ctx context.Context) {
	var peers []api.Peer
	if d.status != nil {
		if list, err := d.Daemon.Peers(ctx); err == nil {
			peers = list.Peers
		}
	}
	d.reachability()
	d.bootstrap(ctx, peers)
	if d.status == nil {
		return
	}
	by := map[string]int{}
	for _, p := range peers {
		by[p.Where]++
	}
	text := fmt.Sprintf("%d connected: %d on this machine, %d on the LAN, %d on the internet", len(peers), by["loopback"], by["lan"], by["internet"])
	if len(peers) == 0 {
		d.warn("peers", text, "give the address of a node with --bootstrap; mootd prints its addresses when it starts")
		return
	}
	d.ok("peers", "%s", text)
}

func (d *doctor) reachability() {
	if d.status == nil {
		if hasPublicAddress() {
			d.ok("nat", "this machine has a public address; whether a firewall lets others in is found out while the daemon runs")
		} else {
			d.ok("nat", "this machine is behind a router (NAT); whether others reach it is found out while the daemon runs")
		}
		return
	}
	relayed := 0
	for _, a := range d.status.Addrs {
		if strings.Contains(a, "/p2p-circuit") {
			relayed++
		}
	}
	const forward = "forward the port of listen (TCP and UDP 4717) in the router, or allow UPnP or NAT-PMP there"
	switch d.status.Reachability {
	case "public":
		d.ok("nat", "other nodes reached this one from outside")
	case "private":
		text := "other nodes could not connect to this one; it connects to them"
		if relayed > 0 {
			d.ok("nat", "%s, and %d relays carry requests to it", text, relayed)
			return
		}
		d.warn("nat", text+", and no relay is found yet", forward)
	default:
		d.warn("nat", "no node on the internet has tried to reach this one yet", `wait a minute; if it stays so, see "peers" and "bootstrap"`)
	}
}

func hasPublicAddress() bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if ok && n.IP.IsGlobalUnicast() && !n.IP.IsPrivate() {
			return true
		}
	}
	return false
}

// bootstrap looks whether the configured peers are connected, or, without a
// daemon, whether something answers there.
func (d *doctor) bootstrap(ctx context.Context, peers []api.Peer) {
	list := d.Config.Bootstrap
	if len(list) == 0 {
		if d.Config.MDNS {
			d.ok("bootstrap", "none is configured; nodes on this machine and on the LAN are found without")
		} else {
			d.warn("bootstrap", "none is configured, and mdns is off: no other node is found", `"mootd config set bootstrap ADDRESS", with an address that another mootd printed`)
		}
		return
	}
	connected := map[string]bool{}
	for _, p := range peers {
		connected[p.ID] = true
	}
	reached, why := 0, ""
	for _, a := range list {
		m, err := multiaddr.NewMultiaddr(a) // was validated
		if err == nil {
			if id, _ := m.ValueForProtocol(multiaddr.P_P2P); connected[id] {
				reached++
				continue
			}
			if d.status == nil {
				err = dial(ctx, m)
			} else {
				err = errors.New("it is not connected")
			}
		}
		if err == nil {
			reached++
			continue
		}
		why = fmt.Sprintf("%s: %v", a, err)
	}
	text := fmt.Sprintf("%d of %d answer", reached, len(list))
	const fix = "look whether these nodes run and whether this machine is online; \"mootd config set bootstrap ...\" changes the list"
	switch {
	case reached == len(list):
		d.ok("bootstrap", "%s", text)
	case reached > 0:
		d.ok("bootstrap", "%s, not %s", text, why)
	default:
		d.warn("bootstrap", text+"; "+why, fix)
	}
}

// dial looks whether something answers at a TCP address. What speaks only UDP
// is taken to answer if its name is known.
func dial(ctx context.Context, m multiaddr.Multiaddr) error {
	network, host, err := manet.DialArgs(m)
	if err != nil {
		return err
	}
	nd := net.Dialer{Timeout: dialTimeout}
	c, err := nd.DialContext(ctx, network, host)
	if err != nil {
		return err
	}
	return c.Close()
}
