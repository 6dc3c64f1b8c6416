package cli

import (
	"context"
	"crypto/tls"
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
	cert     string
	key      string
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
computed for who asks. One address has 64 connections and 20 requests a second at
most. With --tls-cert and --tls-key it speaks TLS; the files are read again when
they change. A web server on the same machine can do that instead; it names who
asks in X-Forwarded-For.`,
		Example: `  moot dashboard
  moot dashboard --listen 0.0.0.0:8080 --run last
  moot dashboard --listen 0.0.0.0:8443 --tls-cert cert.pem --tls-key key.pem`,
		Args: needs(false),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.listen != "" {
				return runPublicDashboard(cmd.Context(), e, o)
			}
			if o.cert != "" {
				return api.Errorf(api.CodeUsage, "--tls-cert is given without --listen: this page is for this machine alone")
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
	f.StringVar(&o.cert, "tls-cert", "", "with --listen, speak TLS with the certificates in this PEM `file`")
	f.StringVar(&o.key, "tls-key", "", "and the private key in this PEM `file`")
	cmd.MarkFlagsMutuallyExclusive("read-only", "listen")
	cmd.MarkFlagsRequiredTogether("tls-cert", "tls-key")
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
	secure, scheme := (*tls.Config)(nil), "http"
	if o.cert != "" {
		k := &keyPair{cert: o.cert, key: o.key, stays: func(err error) {
			fmt.Fprintf(e.err, "moot: %s; the old certificate stays\n", plain.Clean(err.Error()))
		}}
		if _, err := k.get(nil); err != nil {
			return api.Errorf(api.CodeUsage, "%w", err).WithHint("give a certificate, with those that vouch for it after it, and its key, both as PEM")
		}
		secure, scheme = &tls.Config{GetCertificate: k.get}, "https"
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return api.Errorf(api.CodeUsage, "listen on %s: %w", o.listen, err).WithHint("give host:port, such as 0.0.0.0:8080; port 0 takes a free one")
	}
	p := api.NewPublic(api.PublicOptions{
		Source: c, Runs: o.runs, TLS: secure, Log: slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{Level: slog.LevelError})),
		Follow: func(ctx context.Context, emit func(api.Event) error) error {
			return c.Watch(ctx, client.WatchOptions{OnDown: func(err error) {
				fmt.Fprintf(e.err, "moot: %s; trying again\n", plain.Clean(err.Error()))
			}}, emit)
		},
	})
	d := dashboard{scheme + "://" + l.Addr().String() + "/"}
	if err := e.answer(d, func(p *page) { p.line("%s", d.URL) }); err != nil {
		l.Close()
		return err
	}
	return p.Serve(ctx, l)
}
