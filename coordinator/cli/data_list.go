package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

func newDataList(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the data sets that the node holds",
		Example: `  moot data list`,
		Args:    needs(false),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runDataList(cmd.Context(), e) },
	}
}

func runDataList(ctx context.Context, e *env) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	l, err := c.Datasets(ctx)
	if err != nil {
		return err
	}
	return e.answer(l, func(p *page) {
		if len(l.Datasets) == 0 {
			p.line(`no data sets; "moot data import FILE" stores one`)
			return
		}
		rows := make([][]string, 0, len(l.Datasets))
		for _, d := range l.Datasets {
			rows = append(rows, []string{
				api.ShortID(d.ID), clip(d.Name, 20), plain.Group(d.TrainRows), plain.Group(d.EvalRows), size(d.Bytes), clip(d.Licence, 16),
			})
		}
		p.table([]string{"ID", "NAME", ">ROWS", ">HELD OUT", ">SIZE", "LICENCE"}, rows)
	})
}
