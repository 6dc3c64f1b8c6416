package p2p

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
)

// Options configure a [Host]. Only Key is needed.
type Options struct {
	// Key is the node's identity.
	Key crypto.PrivKey

	// Listen are the multiaddrs to listen on, TCP and QUIC. Default: a free
	// port of every IPv4 interface.
	Listen []string

	// AnyPort takes a free port of the same interface when a port of Listen
	// is taken, and does without the IPv6 addresses of Listen, which come last,
	// where there is no IPv6. Otherwise that is an error of New.
	AnyPort bool

	// Bootstrap are addresses that end in /p2p/PEERID. The host tries them
	// for as long as it runs; none need ever answer.
	Bootstrap []string

	// Public says that the addresses of Listen can be reached from everywhere,
	// so that nobody need be asked.
	Public bool

	// NoRelay keeps a node that is public from carrying requests of peers that
	// cannot reach each other. What it carries is little; see relay.go.
	NoRelay bool

	// RelayShardBytes is how much a node that relays carries of one connection, each
	// way, if that is more than requests need, so that shards may travel over it.
	// Default: what requests need. See also [Host.MeterRelay].
	RelayShardBytes int64

	// NoPortMap leaves the router alone. Otherwise it is asked to open the ports of
	// Listen, unless they are on loopback alone.
	NoPortMap bool

	// IPFSBootstrap are nodes of the public IPFS network, as multiaddrs that end
	// in /p2p/PEERID. With any, CIDs are also provided and looked for in its DHT.
	IPFSBootstrap []string

	// LocalDiscovery finds nodes on the LAN (mDNS) and, also where there is
	// no multicast, nodes of the same user on this machine (LocalFolder).
	LocalDiscovery bool

	// LocalFolder is where nodes on one machine leave their addresses.
	// Default: moot in XDG_RUNTIME_DIR, or moot-UID in the folder for
	// temporary files. A folder that other users can write is not used.
	LocalFolder string

	// PeerCache is a file that remembers peers for the next start. Default:
	// they are not remembered.
	PeerCache string

	// Agent is the program and version that other peers see. Default "moot".
	Agent string

	// Metrics, if not nil, is where libp2p registers its own. They are of the
	// process: two hosts in one count together.
	Metrics prometheus.Registerer

	// Log is where the host tells what happened. Default: nowhere.
	Log *slog.Logger
}

// parsed are options that were checked.
type parsed struct {
	Options
	listen    []multiaddr.Multiaddr
	bootstrap []peer.AddrInfo
	ipfs      []peer.AddrInfo
}

func (o Options) parse() (*parsed, error) {
	p := &parsed{Options: o}
	if o.Key == nil {
		return nil, errors.New("no key")
	}
	if len(p.Listen) == 0 {
		p.Listen = []string{"/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"}
	}
	if p.Agent == "" {
		p.Agent = "moot"
	}
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	for _, s := range p.Listen {
		a, err := multiaddr.NewMultiaddr(s)
		if err != nil {
			return nil, fmt.Errorf("listen address %q: %w", s, err)
		}
		p.listen = append(p.listen, a)
	}
	var err error
	if p.bootstrap, err = parsePeers("bootstrap", p.Bootstrap); err != nil {
		return nil, err
	}
	p.ipfs, err = parsePeers("IPFS bootstrap", p.IPFSBootstrap)
	return p, err
}

func parsePeers(what string, addrs []string) (out []peer.AddrInfo, err error) {
	for _, s := range addrs {
		ai, err := peer.AddrInfoFromString(s)
		if err != nil {
			return nil, fmt.Errorf("%s address %q: %w", what, s, err)
		}
		if len(ai.Addrs) == 0 {
			return nil, fmt.Errorf("%s address %q names a peer, but no address", what, s)
		}
		out = append(out, *ai)
	}
	return out, nil
}
