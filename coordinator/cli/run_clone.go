package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func newRunClone(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "clone ID",
		Short: "Print a run file with all settings of a run",
		Long: `Prints the run file from which "moot launch" makes a run with the same settings, each of
them written out, whatever the defaults are by then, but for licences and sources that
it does not state: the same model, data, adapter, optimizers, schedule and rules.
Launcher and time are those of the new launch, so that it is another run. It works for
runs that are over, too.

An ID may be its first characters, or "last".`,
		Example: `  moot run clone last | tee run.toml
  moot run clone last | grep learning_rate`,
		Args: needs(false, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runRunClone(cmd.Context(), e, args[0])
		},
	}
}

func runRunClone(ctx context.Context, e *env, id string) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	f, err := c.RunFileOf(ctx, id)
	if err != nil {
		return err
	}
	if e.json {
		return e.answer(f, nil)
	}
	return e.write([]byte(f.TOML))
}
