package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

func newPeerList(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the peers that the node is connected to",
		Example: `  moot peer list`,
		Args:    needs(false),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runPeerList(cmd.Context(), e) },
	}
}

func runPeerList(ctx context.Context, e *env) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	l, err := c.Peers(ctx)
	if err != nil {
		return err
	}
	return e.answer(l, func(p *page) {
		if len(l.Peers) == 0 {
			p.line("no peers yet")
			return
		}
		rows := make([][]string, 0, len(l.Peers))
		for _, x := range l.Peers {
			rtt := "-"
			if x.RTTMillis > 0 {
				rtt = fmt.Sprintf("%.1f ms", x.RTTMillis)
			}
			rows = append(rows, []string{api.ShortID(x.ID), x.Where, x.Direction, rtt, fmt.Sprint(len(x.Runs)), orElse(clip(x.Device, 32), "-"), clip(x.Addr, 34)})
		}
		p.table([]string{"ID", "WHERE", "DIR", ">RTT", ">RUNS", "DEVICE", "ADDRESS"}, rows)
	})
}
