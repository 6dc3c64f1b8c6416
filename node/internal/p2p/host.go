package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sync/errgroup"

	"github.com/moot-net/moot/node/internal/portmap"
)

const (
	protocolPrefix = "/moot"
	dialTimeout    = 15 * time.Second
)

// Host is a node on the network. [New] makes it listen; [Host.Run] makes it
// look for others.
type Host struct {
	// constant after New
	opt    *parsed
	log    *slog.Logger
	host   host.Host
	dht    *dht.IpfsDHT
	ipfs   *dht.IpfsDHT // of the public IPFS network; nil: not used
	gater  *gater
	ports  *portmap.Mapper // nil: the router is left alone
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	close  func() error // once

	carried *carried // what this node relays; constant likewise

	reachEvents event.Subscription

	serving   admission
	answers   answers
	preferred preferences
	dials     dialBook

	mu       sync.Mutex
	meetings map[string]*meeting     // guarded by mu: runs that peers asked for or that this node is in
	provided map[cid.Cid]time.Time   // guarded by mu: when it was last announced; zero: not yet
	seen     map[peer.ID]*remembered // guarded by mu: for the cache
	found    Reachability            // guarded by mu

	provideWake chan struct{} // of capacity 1
}

// New makes a host that listens, and answers what it is asked. It dials
// nobody and tells nobody of itself before [Host.Run]. A host that is not run
// must be closed.
func New(o Options) (*Host, error) {
	opt, err := o.parse()
	if err != nil {
		return nil, fmt.Errorf("p2p: %w", err)
	}
	h := &Host{
		opt:      opt,
		log:      opt.Log.With("component", "p2p"),
		gater:    newGater(),
		meetings: make(map[string]*meeting),
		provided: make(map[cid.Cid]time.Time),
		seen:     make(map[peer.ID]*remembered),

		found: ReachUnknown,

		provideWake: make(chan struct{}, 1),
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.carried = h.newCarried()
	h.close = sync.OnceValue(h.shutdown)
	if err := h.build(); err != nil {
		_ = h.close()
		return nil, fmt.Errorf("p2p: %w", err)
	}
	return h, nil
}

func (h *Host) build() error {
	rm, err := newResourceManager()
	if err != nil {
		return fmt.Errorf("resource limits: %w", err)
	}
	cm, err := connmgr.NewConnManager(connsLowWater, connsHighWater, connmgr.WithGracePeriod(connsGracePeriod))
	if err != nil {
		return fmt.Errorf("connection manager: %w", err)
	}
	c, err := h.newConfig(rm, cm)
	if err != nil {
		return err
	}
	if h.host, err = c.NewNode(); err != nil {
		return err
	}
	if h.reachEvents, err = h.host.EventBus().Subscribe(new(event.EvtLocalReachabilityChanged)); err != nil {
		return err
	}
	if len(h.opt.ipfs) > 0 {
		// A client: what it knows of others' content is nobody's business.
		if h.ipfs, err = dht.New(h.host, dht.Mode(dht.ModeClient), dht.BootstrapPeers(h.opt.ipfs...)); err != nil {
			return fmt.Errorf("DHT of the IPFS network: %w", err)
		}
	}
	if err := h.listen(); err != nil {
		return err
	}
	h.handlePeers()
	return nil
}

// newDHT is called by libp2p, which needs it to find the addresses of a peer
// that is known by its ID alone.
func (h *Host) newDHT(on host.Host) (routing.PeerRouting, error) {
	d, err := dht.New(on,
		dht.ProtocolPrefix(protocolPrefix),
		// A server until it is known to be unreachable: nodes on one machine
		// or LAN, of which nobody outside can say anything, serve each other.
		dht.Mode(dht.ModeAutoServer),
		dht.DisableValues(),
		dht.ProviderDatastore(newProviderRecords(maxProviderRecords, maxProviderRecordsOf)),
		dht.BootstrapPeersFunc(func() []peer.AddrInfo { return h.opt.bootstrap }),
	)
	h.dht = d
	return d, err
}

func (h *Host) listen() error {
	open := 0
	for _, a := range h.opt.listen {
		err := h.host.Network().Listen(a)
		if err != nil && h.opt.AnyPort && isAddrInUse(err) {
			free := anyPort(a)
			h.log.Warn("port was taken, a free one is used", "address", a.String())
			err = h.host.Network().Listen(free)
		}
		if _, v6 := a.ValueForProtocol(multiaddr.P_IP6); err != nil && v6 == nil && h.opt.AnyPort && open > 0 {
			h.log.Info("this machine has no IPv6", "address", a.String(), "err", oneLine(err))
			continue
		}
		if err != nil {
			return fmt.Errorf("listen on %s: %w", a, oneLine(err))
		}
		open++
	}
	return nil
}

// isAddrInUse looks at the text, because libp2p does not wrap the error.
func isAddrInUse(err error) bool {
	return containsAny(err.Error(), "address already in use", "Only one usage of each socket address")
}

// anyPort is a with port 0.
func anyPort(a multiaddr.Multiaddr) multiaddr.Multiaddr {
	var out multiaddr.Multiaddr
	for _, c := range a {
		if code := c.Protocol().Code; code == multiaddr.P_TCP || code == multiaddr.P_UDP {
			free, err := multiaddr.NewComponent(c.Protocol().Name, "0")
			if err != nil {
				panic("bug: " + err.Error())
			}
			c = *free
		}
		out = append(out, c)
	}
	return out
}

func onlyLoopback(addrs []multiaddr.Multiaddr) bool {
	for _, a := range addrs {
		if !manet.IsIPLoopback(a) {
			return false
		}
	}
	return true
}

// Run looks for other nodes and keeps connections to them until ctx is done.
// Then it closes the host and returns nil.
func (h *Host) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	loops := []func(context.Context) error{
		h.runBootstrap,
		h.runCache,
		h.runPings,
		h.runPeerEvents,
		h.runUnidentified,
		h.runProvide,
		h.runReachability,
	}
	if h.ports != nil {
		loops = append(loops, h.ports.Run)
	}
	if h.opt.LocalDiscovery {
		loops = append(loops, h.runLocalFolder, h.runMDNS)
	}
	for _, loop := range loops {
		g.Go(func() error { return loop(ctx) })
	}
	// The routing table repairs and refreshes itself from here on.
	if err := h.dht.Bootstrap(ctx); err != nil {
		h.log.WarnContext(ctx, "dht did not start", "err", err)
	}
	if h.ipfs != nil {
		if err := h.ipfs.Bootstrap(ctx); err != nil {
			h.log.WarnContext(ctx, "dht of the IPFS network did not start", "err", err)
		}
	}
	err := g.Wait()
	return errors.Join(err, h.Close())
}

// Close ends all connections and stops listening. Calls after the first do
// nothing.
func (h *Host) Close() error { return h.close() }

func (h *Host) shutdown() error {
	h.cancel()
	var errs []error
	if h.ipfs != nil {
		errs = append(errs, h.ipfs.Close())
	}
	if h.dht != nil {
		errs = append(errs, h.dht.Close())
	}
	if h.reachEvents != nil {
		errs = append(errs, h.reachEvents.Close())
	}
	if h.host != nil {
		errs = append(errs, h.host.Close())
	}
	return errors.Join(errs...)
}

// ID is the node's identity.
func (h *Host) ID() peer.ID { return h.host.ID() }

// Addrs are the addresses others can dial, each with /p2p/ and the ID.
func (h *Host) Addrs() []string {
	var out []string
	for _, a := range h.host.Addrs() {
		out = append(out, a.String()+"/p2p/"+h.ID().String())
	}
	return out
}

// Libp2p is the host itself, for packages that speak protocols of their own.
func (h *Host) Libp2p() host.Host { return h.host }

// Block ends the connections with a peer and refuses new ones, in both
// directions, for the duration d.
func (h *Host) Block(p peer.ID, reason string, d time.Duration) {
	h.gater.block(p, d)
	h.log.Warn("peer was blocked", "peer", p, "reason", reason, "for", d)
	_ = h.host.Network().ClosePeer(p)
}

// Blocked says whether a peer is refused.
func (h *Host) Blocked(p peer.ID) bool { return h.gater.isBlocked(p) }

// connected also counts connections over a relay.
func (h *Host) connected(p peer.ID) bool {
	c := h.host.Network().Connectedness(p)
	return c == network.Connected || c == network.Limited
}
