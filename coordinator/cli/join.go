package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

func newJoin(e *env) *cobra.Command {
	var peers []string
	var invite string
	cmd := &cobra.Command{
		Use:   "join ID",
		Short: "Help with a run",
		Long: `Makes the node a member of a run: it pulls the manifest, the model, the data and
the adapter from those who have them, asks for a seat, and trains. When this
command is interrupted, the node goes on; "moot leave" ends the membership.`,
		Example: `  moot join bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy
  moot join bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy \
    --peer /ip4/192.0.2.7/tcp/4717/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA`,
		Args: needs(false, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runJoin(cmd.Context(), e, api.JoinRequest{Run: args[0], Peers: peers, Invite: invite})
		},
	}
	cmd.Flags().StringSliceVar(&peers, "peer", nil, "`address` of a node that is in the run (may be given again)")
	cmd.Flags().StringVar(&invite, "invite", "", "`invitation` that the launcher's \"moot invite\" printed")
	return cmd
}

func runJoin(ctx context.Context, e *env, req api.JoinRequest) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	r, err := c.Join(ctx, req, e.board.progress(""))
	if err != nil {
		return err
	}
	return e.answer(r, func(p *page) { runFields(p, r) })
}
