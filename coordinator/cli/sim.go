package cli

import (
	"context"
	"errors"
	"os/exec"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

// simFlags are the flags of a simulation.
type simFlags struct {
	list, quick     bool
	scenario, seeds string
	out, mootd      string
	seed            uint64
}

func newSim(e *env) *cobra.Command {
	var o simFlags
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Simulate a run of many nodes, and measure what the protocol promises",
		Long: `Runs many nodes of one run in one process, under virtual time, with the daemon's
own round, fold and trainer, and measures what has to hold: agreement, progress,
traffic, and what is learned among liars. The same seed gives the same run. No
daemon is needed.

With --json the last line is one object with what was measured, "figures", and
what it has to keep, "limits". --out writes that and pictures into a folder. With
--seeds there is one object for each seed, and then one with the means. The exit
code is 18 when a limit is missed.`,
		Example: `  moot sim --list
  moot sim --scenario half-vanish --seed 1 --json
  moot sim --scenario byzantine-25-alie --seeds 3
  moot sim --scenario all-quick --out ./sim`,
		Args: needs(false),
		RunE: func(cmd *cobra.Command, _ []string) error { return runSim(cmd.Context(), e, o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.list, "list", false, "list the scenarios")
	f.StringVar(&o.scenario, "scenario", "", "`name` of the scenario, a pattern such as 'byzantine-25-*',\nor all-quick for all in their short forms")
	f.Uint64Var(&o.seed, "seed", 1, "`number` that everything is drawn from")
	f.StringVar(&o.seeds, "seeds", "", "several seeds: `how many`, from --seed on, or a list\nsuch as 1,5,9; the last result has the means")
	f.BoolVar(&o.quick, "quick", false, "the short form: fewer rounds, the same limits")
	f.StringVar(&o.out, "out", "", "write results and pictures into this `folder`")
	f.StringVar(&o.mootd, "mootd", "", "`path` of the daemon's program (default: beside moot, or found on PATH)")
	return cmd
}

// runSim lets the daemon's program do the work, which has the code of a node.
func runSim(ctx context.Context, e *env, o simFlags) error {
	if !o.list && o.scenario == "" {
		return api.Errorf(api.CodeUsage, "--scenario is missing").WithHint("\"moot sim --list\" shows the scenarios")
	}
	mootd, err := findMootd(o.mootd)
	if err != nil {
		return err
	}
	if err := e.checkCode(ctx, mootd, o.mootd != ""); err != nil {
		return err
	}
	args := []string{"sim", "--seed", strconv.FormatUint(o.seed, 10)}
	if o.list {
		args = append(args, "--list")
	} else {
		args = append(args, "--scenario", o.scenario)
	}
	if o.seeds != "" {
		args = append(args, "--seeds", o.seeds)
	}
	if o.quick {
		args = append(args, "--quick")
	}
	if e.json {
		args = append(args, "--json")
	}
	if o.out != "" {
		dir, err := absolute(o.out)
		if err != nil {
			return err
		}
		args = append(args, "--out", dir)
	}
	e.board.close()
	cmd := exec.CommandContext(ctx, mootd, args...)
	cmd.Stdout, cmd.Stderr = e.out, e.err
	err = cmd.Run()
	exit := new(exec.ExitError)
	switch {
	case ctx.Err() != nil:
		return api.AsError(ctx.Err())
	case err == nil:
		return nil
	case !errors.As(err, &exit):
		return api.Errorf(api.CodeInternal, "%s sim: %w", mootd, err)
	}
	// It has said what is wrong.
	return reported{&api.Error{Code: codeOf(exit.ExitCode()), Exit: exit.ExitCode(), Message: err.Error()}}
}

func codeOf(exit int) api.Code {
	for _, c := range []api.Code{api.CodeVerify, api.CodeNotFound, api.CodeUsage} {
		if c.Exit() == exit {
			return c
		}
	}
	return api.CodeInternal
}
