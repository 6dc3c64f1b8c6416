package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/app"
)

func newReplay(s *settings) *cobra.Command {
	var from string
	var asJSON bool
	c := &cobra.Command{
		Use: "replay ID", Short: "Compute a run again from the data folder, and compare",
		Long: `Computes every state of a run again, from the manifest and the records and deltas
in the data folder, and compares it, the weights and the certificates with what
the records say. It needs no network and takes nobody's word. The daemon of the
folder must not be running. ID may be the beginning of a run's ID, or "last". The
data folder may also be one with the data folders of several nodes in it.

The exit code is 14 when a record does not follow from the one before, and 6
when a delta is not in the folder.`,
		Example: `  mootd replay last
  mootd replay last --from genesis --data-dir ~/second-node --json
  mootd replay last --from 12`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return nil
			}
			return api.Errorf(api.CodeUsage, "%s needs the ID of one run", cmd.CommandPath()).WithHint("%q shows how", cmd.CommandPath()+" --help")
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := s.load(cmd)
			if err != nil {
				return err
			}
			n, err := parseFrom(from)
			if err != nil {
				return err
			}
			return runReplay(cmd.Context(), app.ReplayOptions{DataDir: cfg.DataDir, Run: args[0], From: n}, asJSON, cmd.OutOrStdout())
		},
	}
	c.Flags().StringVar(&from, "from", "genesis", "begin with the state after this `round`, or with genesis")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func parseFrom(s string) (uint64, error) {
	if s == "genesis" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, api.Errorf(api.CodeUsage, "--from is %q, must be the number of a round, or genesis", s)
	}
	return n, nil
}

func runReplay(ctx context.Context, o app.ReplayOptions, asJSON bool, out io.Writer) error {
	r, err := app.Replay(ctx, o)
	if err != nil {
		if asJSON {
			fmt.Fprintf(out, "%s\n", api.MarshalError(api.AsError(err)))
		}
		return err
	}
	if asJSON {
		b, err := api.Marshal(r)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s\n", b)
	} else {
		fmt.Fprintf(out, "run %s\nrounds %d\nfolded %d\ncertified %d\ncontributions %d\nrefused %d\nhead %s\nstate %s\n",
			r.Run, r.Rounds, r.Folded, r.Certified, r.Contributions, r.Refused, r.Head, r.StateCID)
	}
	if r.Error != nil {
		return r.Error
	}
	return nil
}
