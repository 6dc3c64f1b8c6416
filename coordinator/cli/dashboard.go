package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func newDashboard(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "dashboard",
		Short: "Print the address of the daemon's page",
		Long: `Prints the address at which a browser on this machine shows the daemon. It has the
daemon's token in it: whoever has it can do what you can. The token changes when
the daemon is started again.`,
		Example: `  moot dashboard`,
		Args:    needs(false),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runDashboard(cmd.Context(), e) },
	}
}

// dashboard is the answer; it is made here, and no part of the daemon's API.
type dashboard struct {
	URL string `json:"url"`
}

func runDashboard(ctx context.Context, e *env) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	if _, err := c.Status(ctx); err != nil { // an address of nobody, or a token of yesterday
		return err
	}
	d := dashboard{c.DashboardURL()}
	return e.answer(d, func(p *page) { p.line("%s", d.URL) })
}
