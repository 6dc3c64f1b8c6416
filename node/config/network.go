package config

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/traffic"
	"github.com/moot-net/moot/node/internal/volunteer"
)

// Network is how much a node sends and receives over the internet, and what it
// does for others there. This machine and the LAN are never limited.
type Network struct {
	// UploadMbit and DownloadMbit are the most of models, data, deltas and
	// states that are sent and received, in 1e6 bits per second; deltas and
	// states go first. Default 0: no limit.
	UploadMbit   float64 `toml:"upload_mbit"`
	DownloadMbit float64 `toml:"download_mbit"`
	// MonthlyGB is the most of both together in a calendar month (UTC), in 1e9
	// bytes. The last tenth is kept for deltas and states. Default 0: no limit.
	MonthlyGB float64 `toml:"monthly_gb"`
	// Schedule is a list of windows of local time, as that of Work, in which
	// models and data sets are served, and pulls of them begin; what was begun is
	// ended. Deltas and states of runs, and the LAN, are not concerned. Default
	// none: always.
	Schedule []string `toml:"schedule,omitempty"`
	// Public says that the addresses of listen can be reached from everywhere,
	// as on a server, so that nobody need be asked. Default false: found out.
	Public bool `toml:"public"`
	// Relay lets a node that is public carry requests, at most 1 MiB for a
	// connection, between peers that cannot reach each other. Default true.
	Relay bool `toml:"relay"`
	// RelayShardsMB is how much of one connection a node that relays carries, each way,
	// in 1e6 bytes, so that models and data sets may travel between peers that both have
	// ShardsOverRelay. All of it counts as uploaded and downloaded. Default 0: requests alone,
	// for which 1 MiB is enough.
	RelayShardsMB int `toml:"relay_shards_mb"`
	// ShardsOverRelay lets models and data sets come from, and go to, peers that
	// are connected over a relay alone, when no other peer gives them and the relay
	// allows it. Default false.
	ShardsOverRelay bool `toml:"shards_over_relay"`
	// PortMapping asks the router, by NAT-PMP or UPnP, to open the ports of listen,
	// so that others reach this node. Default true.
	PortMapping bool `toml:"port_mapping"`
	// IPFSBootstrap are nodes of the public IPFS network, as multiaddrs that end
	// in /p2p/PEERID. With any, models and runs are also announced and looked
	// for there, where everybody can see it. Default none.
	IPFSBootstrap []string `toml:"ipfs_bootstrap,omitempty"`
}

// minRelayShardsMB is p2p.MinRelayShardBytes, rounded up: what peers take for a
// relay that carries shards.
const minRelayShardsMB = 17

// DefaultNetwork limits nothing.
func DefaultNetwork() Network { return Network{Relay: true, PortMapping: true} }

// Limits returns n as package traffic takes it.
func (n *Network) Limits() traffic.Limits {
	l := traffic.Limits{UpMbit: n.UploadMbit, DownMbit: n.DownloadMbit, MonthlyBytes: uint64(n.MonthlyGB * 1e9)}
	if s, err := volunteer.ParseSchedule(n.Schedule); err == nil && !s.Always() { // was validated
		l.Hours = &s
	}
	return l
}

func (n *Network) validate() error {
	if n.MonthlyGB < 0 || n.MonthlyGB > 1e9 {
		return fmt.Errorf("network.monthly_gb is %v, must be from 0 to 1e9", n.MonthlyGB)
	}
	if n.RelayShardsMB != 0 && (n.RelayShardsMB < minRelayShardsMB || n.RelayShardsMB > 1e6) {
		return fmt.Errorf("network.relay_shards_mb is %d, must be 0 or from %d to 1000000", n.RelayShardsMB, minRelayShardsMB)
	}
	if n.RelayShardsMB > 0 && !n.Relay {
		return fmt.Errorf("network.relay_shards_mb is %d, but network.relay is false; set relay_shards_mb to 0, or relay to true", n.RelayShardsMB)
	}
	if _, err := volunteer.ParseSchedule(n.Schedule); err != nil {
		return fmt.Errorf("network.schedule: %w", err)
	}
	if err := n.Limits().Validate(); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	for _, a := range n.IPFSBootstrap {
		if _, err := peer.AddrInfoFromString(a); err != nil {
			return fmt.Errorf("network.ipfs_bootstrap: %q: %w", a, err)
		}
	}
	return nil
}
