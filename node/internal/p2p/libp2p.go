package p2p

import (
	"github.com/libp2p/go-libp2p/config"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/host/autonat"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	tptu "github.com/libp2p/go-libp2p/p2p/net/upgrader"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	"go.uber.org/fx"

	"github.com/moot-net/moot/node/internal/portmap"
)

// libp2p is put together here from its parts, by the configuration that its
// own constructor fills in. The package of that constructor has WebRTC,
// WebTransport and WebSockets in a variable, so that the linker keeps them: 4 MB
// that no node speaks.

// newConfig is a configuration with what libp2p's constructor sets when
// nothing is said, and the transports of this project.
func (h *Host) newConfig(rm network.ResourceManager, cm connmgr.ConnManager) (*config.Config, error) {
	peers, err := pstoremem.NewPeerstore(pstoremem.WithMaxAddresses(maxAddresses), pstoremem.WithMaxSignedPeerRecords(maxSignedRecords))
	if err != nil {
		return nil, err
	}
	c := &config.Config{
		PeerKey:   h.opt.Key,
		UserAgent: h.opt.Agent,
		Peerstore: peers,
		// ListenAddrs are none: listen reports each address that fails; libp2p
		// only if all do.
		Transports: []fx.Option{newTransport(newTCP), newTransport(newQUIC)},
		SecurityTransports: []config.Security{
			{ID: libp2ptls.ID, Constructor: newTLS},
			{ID: noise.ID, Constructor: noise.New},
		},
		Muxers:          []tptu.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}},
		ResourceManager: rm,
		ConnManager:     cm,
		ConnectionGater: h.gater,
		DialTimeout:     dialTimeout,
		SwarmOpts:       []swarm.Option{swarm.WithDialRanker(rankDials)},
		Routing:         h.newDHT,

		EnableAutoNATv2: true,
		AutoNATConfig:   config.AutoNATConfig{EnableService: true},

		// On a network without UDP or IPv6 no dial of that kind works: of 100,
		// five are enough to go on.
		UDPBlackHoleSuccessCounter:  &swarm.BlackHoleSuccessCounter{N: 100, MinSuccesses: 5, Name: "UDP"},
		IPv6BlackHoleSuccessCounter: &swarm.BlackHoleSuccessCounter{N: 100, MinSuccesses: 5, Name: "IPv6"},

		DisableMetrics: true, // hosts in one process share them
	}
	if h.opt.Metrics != nil {
		c.DisableMetrics, c.PrometheusRegisterer = false, h.opt.Metrics
	}
	h.relaying(c)
	if !h.opt.NoPortMap && !onlyLoopback(h.opt.listen) {
		h.ports = portmap.New(h.opt.Log)
		c.NATManager = h.ports.Manage
	}
	return c, nil
}

// newTransport is a transport for [config.Config]: what its constructor asks for is
// made by libp2p.
func newTransport(constructor any) fx.Option {
	return fx.Provide(fx.Annotate(constructor, fx.As(new(transport.Transport)), fx.ResultTags(`group:"transport"`)))
}

// newTCP is without SO_REUSEPORT, so that a second node cannot sit on the same
// port unnoticed, and two nodes that dial each other at once do not meet in one
// half-open connection.
func newTCP(u transport.Upgrader, rm network.ResourceManager, shared *tcpreuse.ConnMgr) (*tcp.TcpTransport, error) {
	return tcp.NewTCPTransport(u, rm, shared, tcp.DisableReuseport())
}

func newQUIC(key crypto.PrivKey, m *quicreuse.ConnManager, psk pnet.PSK, g connmgr.ConnectionGater, rm network.ResourceManager) (transport.Transport, error) {
	return quic.NewTransport(key, m, psk, g, rm)
}

// addServiceLimits bounds what each of libp2p's own services may take, as its
// constructor does.
func addServiceLimits(c *rcmgr.ScalingLimitConfig) {
	both := func(streams, memory int) rcmgr.BaseLimit {
		return rcmgr.BaseLimit{StreamsInbound: streams, StreamsOutbound: streams, Streams: streams, Memory: int64(memory)}
	}
	more := func(l rcmgr.BaseLimit) rcmgr.BaseLimitIncrease {
		return rcmgr.BaseLimitIncrease{StreamsInbound: l.StreamsInbound, StreamsOutbound: l.StreamsOutbound, Streams: l.Streams, Memory: l.Memory}
	}
	const window = 256<<20 + 16<<10 // of a connection, and of a stream

	all, peer := both(64, 4<<20), both(16, 1<<20)
	all.Streams, peer.Streams = 128, 32
	c.AddServiceLimit(identify.ServiceName, all, more(all))
	c.AddServicePeerLimit(identify.ServiceName, peer, rcmgr.BaseLimitIncrease{})
	peer.Memory = 32 * window
	for _, id := range []protocol.ID{identify.ID, identify.IDPush} {
		c.AddProtocolLimit(id, all, more(all))
		c.AddProtocolPeerLimit(id, peer, rcmgr.BaseLimitIncrease{})
	}

	holes, moreHoles := both(32, 4<<20), both(8, 4<<20)
	holes.Streams, moreHoles.Streams = 64, 16
	for _, s := range []struct {
		name      string
		id        protocol.ID
		all, more rcmgr.BaseLimit
		peer      rcmgr.BaseLimit
	}{
		{ping.ServiceName, ping.ID, both(64, 4<<20), both(64, 4<<20), rcmgr.BaseLimit{StreamsInbound: 2, StreamsOutbound: 3, Streams: 4, Memory: 32 * window}},
		{autonat.ServiceName, autonat.AutoNATProto, both(64, 4<<20), both(4, 2<<20), both(2, 1<<20)},
		{holepunch.ServiceName, holepunch.Protocol, holes, moreHoles, both(2, 1<<20)},
	} {
		c.AddServiceLimit(s.name, s.all, more(s.more))
		c.AddProtocolLimit(s.id, s.all, more(s.more))
		c.AddServicePeerLimit(s.name, s.peer, rcmgr.BaseLimitIncrease{})
		c.AddProtocolPeerLimit(s.id, s.peer, rcmgr.BaseLimitIncrease{})
	}

	all = both(256, 16<<20)
	c.AddServiceLimit(relay.ServiceName, all, more(all))
	c.AddServicePeerLimit(relay.ServiceName, both(64, 1<<20), rcmgr.BaseLimitIncrease{})
	all = both(640, 16<<20)
	for _, id := range []protocol.ID{circuit.ProtoIDv2Hop, circuit.ProtoIDv2Stop} {
		c.AddProtocolLimit(id, all, more(all))
		c.AddProtocolPeerLimit(id, both(128, 32<<20), rcmgr.BaseLimitIncrease{})
	}
}
