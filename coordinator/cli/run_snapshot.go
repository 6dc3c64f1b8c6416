package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

func newRunSnapshot(e *env) *cobra.Command {
	var (
		req   api.SnapshotRequest
		round string
	)
	cmd := &cobra.Command{
		Use:   "snapshot ID",
		Short: "Give a run's state a CID that can be passed on",
		Long: `Makes what a run has trained, with its manifest, its record and the votes for it,
content with one CID. Whoever has the CID can pull it from any node that has it, and
export the adapter, without taking part in the run:

  moot adapter export --snapshot CID --out ./adapter

This node keeps it, and hands it to others, until "moot cache unpin" lets it go.`,
		Example: `  moot run snapshot last
  moot run snapshot last --round best`,
		Args: needs(false, "ID"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			req.Run = args[0]
			if req.Round, req.Best, err = roundOf(round); err != nil {
				return err
			}
			return runRunSnapshot(cmd.Context(), e, req)
		},
	}
	cmd.Flags().StringVar(&round, "round", "last", "take it as it was after this `round`: a number, last, or best")
	return cmd
}

func runRunSnapshot(ctx context.Context, e *env, req api.SnapshotRequest) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	v, err := c.Snapshot(ctx, req, e.board.progress(""))
	if err != nil {
		return err
	}
	return e.answer(v, func(p *page) {
		p.field("snapshot", "%s", v.ID)
		p.field("run", "%s", v.Run)
		p.field("name", "%s", v.Name)
		if v.Votes > 0 {
			p.field("round", "%d, certified by %d votes, %d needed", v.Round, v.Votes, v.Quorum)
		} else {
			p.field("round", "%d, provisional", v.Round)
		}
		p.field("state", "%s", v.State)
		p.field("size", "%s", size(v.Bytes))
		p.line("\nWhoever has the CID of the snapshot exports it with:\n  moot adapter export --snapshot %s --out ./adapter", v.ID)
	})
}
