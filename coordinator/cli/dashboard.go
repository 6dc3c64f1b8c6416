package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
	"github.com/moot-net/moot/node/plain"
)

type dashboardOptions struct {
	readOnly bool
	listen   string
	runs     []string
}

func newDashboard(e *env) *cobra.Command {
	var o dashboardOptions
	cmd := &cobra.Command{
		Use:   "dashboard",
		Short: "Print the address of the daemon's page, or show the page to others",
		Long: `Prints the address at which a browser on this machine shows the daemon. It has the
daemon's token in it: whoever has it can do what you can. The token changes when
the daemon is started again. With --read-only it has one that lets whoever has it
look, and change nothing.

With --listen it serves the page to everybody who can reach that address, until
it is interrupted: the runs of this node as they go on, and nothing with which
they could be changed; no addresses of peers, no folders, no log, nothing that is
computed for who asks. Behind a web server of yours it can have a name and TLS.`,
		Example: `  moot dashboard
  moot dashboard --listen 0.0.0.0:8080 --run last`,
		Args: needs(false),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.listen != "" {
				return runPublicDashboard(cmd.Context(), e, o)
			}
			if len(o.runs) > 0 {
				return api.Errorf(api.CodeUsage, "--run is given without --listen: this page shows all runs")
			}
			return runDashboard(cmd.Context(), e, o.readOnly)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.readOnly, "read-only", false, "with a token that changes nothing")
	f.StringVar(&o.listen, "listen", "", "serve the page for everybody at this `host:port`")
	f.StringArrayVar(&o.runs, "run", nil, "with --listen, show this run alone, by its `ID` (may be given again)")
	cmd.MarkFlagsMutuallyExclusive("read-only", "listen")
	return cmd
}

// dashboard is the answer; it is made here, and no part of the daemon's API.
type dashboard struct {
	URL string `json:"url"`
}

func runDashboard(ctx context.Context, e *env, readOnly bool) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	if _, err := c.Status(ctx); err != nil { // an address of nobody, or a token of yesterday
		return err
	}
	d := dashboard{c.DashboardURL()}
	if readOnly {
		if d.URL, err = c.ReadOnlyURL(); err != nil {
			return err
		}
	}
	return e.answer(d, func(p *page) { p.line("%s", d.URL) })
}

// runPublicDashboard serves the page until ctx is done.
func runPublicDashboard(ctx context.Context, e *env, o dashboardOptions) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	if _, err := c.Status(ctx); err != nil {
		return err
	}
	for i, id := range o.runs {
		d, err := c.Run(ctx, id)
		if err != nil {
			return err
		}
		o.runs[i] = d.ID
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return api.Errorf(api.CodeUsage, "listen on %s: %w", o.listen, err).WithHint("give host:port, such as 0.0.0.0:8080; port 0 takes a free one")
	}
	p := api.NewPublic(api.PublicOptions{
		Source: c, Runs: o.runs, Log: slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{Level: slog.LevelError})),
		Follow: func(ctx context.Context, emit func(api.Event) error) error {
			return c.Watch(ctx, client.WatchOptions{OnDown: func(err error) {
				fmt.Fprintf(e.err, "moot: %s; trying again\n", plain.Clean(err.Error()))
			}}, emit)
		},
	})
	d := dashboard{"http://" + l.Addr().String() + "/"}
	if err := e.answer(d, func(p *page) { p.line("%s", d.URL) }); err != nil {
		l.Close()
		return err
	}
	return p.Serve(ctx, l)
}
