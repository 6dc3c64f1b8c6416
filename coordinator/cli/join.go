package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

func newJoin(e *env) *cobra.Command {
	var (
		peers  []string
		invite string
		check  bool
		link   float64
	)
	cmd := &cobra.Command{
		Use:   "join ID",
		Short: "Help with a run",
		Long: `Makes the node a member of a run: it pulls the manifest, the model, the data and
the adapter from those who have them, asks for a seat, and trains. When this
command is interrupted, the node goes on; "moot leave" ends the membership.

Before anything of the model but its configuration is pulled, it says what the run
needs of memory, disk and network, and what is there. The exit code is 10 when
memory does not suffice, 11 when the disk does not, 16 when the run is not for this
node: then nothing is pulled and joined. With --check nothing is in any case.`,
		Example: `  moot join bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy
  moot join bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy \
    --peer /ip4/192.0.2.7/tcp/4717/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA
  moot join bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy --check --link 20`,
		Args: needs(false, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if check {
				return runJoinCheck(cmd.Context(), e, api.CheckRunRequest{Run: args[0], Peers: peers, LinkMbit: link})
			}
			if cmd.Flags().Changed("link") {
				return api.Errorf(api.CodeUsage, "--link is given without --check").WithHint("a node goes by upload_mbit and download_mbit in its configuration")
			}
			return runJoin(cmd.Context(), e, api.JoinRequest{Run: args[0], Peers: peers, Invite: invite})
		},
	}
	cmd.Flags().StringSliceVar(&peers, "peer", nil, "`address` of a node that is in the run (may be given again)")
	cmd.Flags().StringVar(&invite, "invite", "", "`invitation` that the launcher's \"moot invite\" printed")
	cmd.Flags().BoolVar(&check, "check", false, "only say whether the run fits this machine")
	cmd.Flags().Float64Var(&link, "link", 0, "speed of the link in `Mbit/s` (default: the limits in the configuration)")
	return cmd
}

// runJoinCheck says whether a run fits.
func runJoinCheck(ctx context.Context, e *env, req api.CheckRunRequest) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	f, err := c.CheckRun(ctx, req, e.board.progress(""))
	if err != nil {
		return err
	}
	if err := e.answer(f, func(p *page) { fitPage(p, &f) }); err != nil {
		return err
	}
	err = f.Err()
	if err != nil && e.json {
		return reported{err}
	}
	return err
}

// tellFit shows what a run needs as soon as it is known.
func (e *env) tellFit(next api.ProgressFunc) api.ProgressFunc {
	return func(p api.Progress) {
		if p.Fit == nil {
			next(p)
			return
		}
		text := new(page)
		fitPage(text, p.Fit)
		e.board.around(func() { _, _ = e.err.Write(text.Bytes()) }) // nobody to tell
	}
}

func runJoin(ctx context.Context, e *env, req api.JoinRequest) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	r, err := c.Join(ctx, req, e.tellFit(e.board.progress("")))
	if err != nil {
		return err
	}
	return e.answer(r, func(p *page) { runFields(p, r) })
}
