package app

import (
	"context"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/traffic"
)

// Network implements api.Backend.
func (n *node) Network(ctx context.Context) (api.Network, error) {
	peers, err := n.Peers(ctx)
	if err != nil {
		return api.Network{}, err
	}
	u := n.traffic.Usage()
	n.follow.mu.Lock()
	c := n.follow.inEffect.Network
	n.follow.mu.Unlock()
	out := api.Network{
		Peer: n.endpoint.Peer, Addrs: n.host.Addrs(), Reachability: string(n.host.Reachability()), Relays: c.Relay,
		UploadMbit: c.UploadMbit, DownloadMbit: c.DownloadMbit, QuotaBytes: u.Quota, Peers: peers,
	}
	for _, scope := range []string{"internet", "lan"} {
		start, month := u.Start.Internet, u.Month.Internet
		if scope == "lan" {
			start, month = u.Start.LAN, u.Month.LAN
		}
		for d, direction := range [...]string{traffic.Out: "out", traffic.In: "in"} {
			for _, use := range []traffic.Use{traffic.Seeding, traffic.Training} {
				out.Traffic = append(out.Traffic, api.TrafficCount{
					Scope: scope, Direction: direction, Use: use.String(), StartBytes: start[d][use], MonthBytes: month[d][use],
				})
				if scope == "internet" {
					out.UsedBytes += month[d][use]
				}
			}
		}
	}
	return out, nil
}
