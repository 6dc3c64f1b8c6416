package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func newLeave(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "leave ID",
		Short:   "Stop helping with a run",
		Long:    `Ends the node's membership in a run. What was pulled stays.`,
		Example: `  moot leave last`,
		Args:    needs(false, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLeave(cmd.Context(), e, args[0])
		},
	}
}

func runLeave(ctx context.Context, e *env, id string) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	r, err := c.Leave(ctx, id)
	if err != nil {
		return err
	}
	return e.answer(r, func(p *page) { runFields(p, r) })
}
