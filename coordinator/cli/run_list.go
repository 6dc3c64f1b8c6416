package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

func newRunList(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the runs that the node knows",
		Example: `  moot run list`,
		Args:    needs(false),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runRunList(cmd.Context(), e) },
	}
}

func runRunList(ctx context.Context, e *env) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	l, err := c.Runs(ctx)
	if err != nil {
		return err
	}
	return e.answer(l, func(p *page) {
		if len(l.Runs) == 0 {
			p.line(`no runs; "moot launch FILE" begins one, "moot join ID" enters one`)
			return
		}
		rows := make([][]string, 0, len(l.Runs))
		for _, r := range l.Runs {
			rows = append(rows, []string{
				api.ShortID(r.ID), clip(r.Name, 20), string(r.State), fmt.Sprintf("%d/%d", r.TrainedRounds, r.MaxRounds),
				fmt.Sprint(r.Seats), loss(r.TrainLoss), loss(r.EvalLoss),
			})
		}
		p.table([]string{"ID", "NAME", "STATE", ">TRAINED", ">SEATS", ">LOSS", ">EVAL"}, rows)
	})
}
