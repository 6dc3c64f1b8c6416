package p2p

import (
	"math"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"
)

// Connections per address. Several nodes share one address: a household behind
// one router, or many behind a carrier's NAT.
const (
	maxConnsPerIPv4  = 64
	maxConnsPerIPv6  = 64 // per /64, which is one LAN
	connsPerSecond   = 4  // new ones, from one address
	connBurst        = 128
	connRateGrace    = time.Minute
	ipv6HostPrefix   = 64
	ipv4HostPrefix   = 32
	connsLowWater    = 96
	connsHighWater   = 160
	connsGracePeriod = time.Minute
)

// localPrefixes are this machine and the LANs: who can flood there can do
// worse, and a class room shares one address behind a switch's NAT.
func localPrefixes() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("::1/128"),
		netip.MustParsePrefix("fc00::/7"),
		netip.MustParsePrefix("fe80::/10"),
	}
}

// What libp2p may take. It is what a home PC does not feel: about 250 connections
// and 4,000 streams, with buffers of at most so many bytes.
const (
	networkMemory = 384 << 20
	networkFiles  = 512 // TCP connections are files
)

// What is remembered of peers that are not connected: libp2p would remember a
// million addresses, which have 300 MB.
const (
	maxAddresses     = 32_768
	maxSignedRecords = 4096
)

// newResourceManager bounds memory, streams and connections: libp2p's limits for
// as much memory and as many files as a home PC spares, with other limits per
// address.
func newResourceManager() (network.ResourceManager, error) {
	limits := rcmgr.DefaultLimits
	addServiceLimits(&limits)

	var v4, v6 []rcmgr.NetworkPrefixLimit
	var rates []rate.PrefixLimit
	for _, p := range localPrefixes() {
		l := rcmgr.NetworkPrefixLimit{Network: p, ConnCount: math.MaxInt}
		if p.Addr().Is4() {
			v4 = append(v4, l)
		} else {
			v6 = append(v6, l)
		}
		rates = append(rates, rate.PrefixLimit{Prefix: p}) // zero: no limit
	}
	perHost := rate.Limit{RPS: connsPerSecond, Burst: connBurst}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits.Scale(networkMemory, networkFiles)),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithNetworkPrefixLimit(v4, v6),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: ipv4HostPrefix, ConnCount: maxConnsPerIPv4}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: ipv6HostPrefix, ConnCount: maxConnsPerIPv6}},
		),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: rates,
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: ipv4HostPrefix, Limit: perHost}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: ipv6HostPrefix, Limit: perHost}},
				GracePeriod:      connRateGrace,
			},
		}),
	)
}
