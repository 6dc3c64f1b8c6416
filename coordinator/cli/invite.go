package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

func newInvite(e *env) *cobra.Command {
	var rounds uint64
	cmd := &cobra.Command{
		Use:   "invite ID",
		Short: "Make an invitation to a run",
		Long: `Makes an invitation to a run that this node launched with mode = "invite" in the
table [admission] of its run file. Whoever has it can let peers into the run, with
"moot join ID --invite INVITATION": pass it on in private.`,
		Example: `  moot invite last
  moot invite last --rounds 100`,
		Args: needs(false, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runInvite(cmd.Context(), e, api.InviteRequest{Run: args[0], Rounds: rounds})
		},
	}
	cmd.Flags().Uint64Var(&rounds, "rounds", 0, "let peers in by it for this `number` of rounds (default: always)")
	return cmd
}

func runInvite(ctx context.Context, e *env, req api.InviteRequest) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	v, err := c.Invite(ctx, req)
	if err != nil {
		return err
	}
	return e.answer(v, func(p *page) { p.line("%s", v.Invite) })
}
