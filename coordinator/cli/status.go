package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

func newStatus(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Say what the node is doing, and why",
		Example: `  moot status`,
		Args:    needs(false),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runStatus(cmd.Context(), e) },
	}
}

func runStatus(ctx context.Context, e *env) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	return e.answer(s, func(p *page) {
		p.field("state", "%s", s.State)
		p.field("why", "%s", s.Why)
		p.field("runs", "%d", s.Runs)
		p.field("peers", "%d", s.Peers)
		p.field("device", "%s", s.Device)
		p.field("pulled", "%s", size(s.Traffic.PulledBytes))
		p.field("sent", "%s", size(s.Traffic.SentBytes))
		p.field("peer", "%s", s.Peer)
		for _, a := range s.Addrs {
			p.field("address", "%s", a)
		}
		p.field("api", "%s", s.API)
		p.field("data", "%s", s.DataDir)
		p.field("version", "%s", s.Version)
		p.field("process", "%d, since %s", s.PID, s.Started.Local().Format(time.DateTime))
	})
}
