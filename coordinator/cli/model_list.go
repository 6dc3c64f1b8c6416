package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

func newModelList(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the models that the node holds",
		Example: `  moot model list`,
		Args:    needs(false),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runModelList(cmd.Context(), e) },
	}
}

func runModelList(ctx context.Context, e *env) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	l, err := c.Models(ctx)
	if err != nil {
		return err
	}
	return e.answer(l, func(p *page) {
		if len(l.Models) == 0 {
			p.line(`no models; "moot model import DIR" stores one`)
			return
		}
		rows := make([][]string, 0, len(l.Models))
		for _, m := range l.Models {
			rows = append(rows, []string{
				api.ShortID(m.ID), clip(m.Name, 20), clip(m.Type, 10), plain.Group(m.Parameters), size(m.Bytes), clip(trainable(m), 10),
				place(m.Dir, m.InPlace),
			})
		}
		p.table([]string{"ID", "NAME", "TYPE", ">PARAMETERS", ">SIZE", "TRAINABLE", "WHERE"}, rows)
	})
}
