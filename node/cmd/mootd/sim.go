package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/sim"
)

// simFlags are the flags of a simulation.
type simFlags struct {
	list     bool
	scenario string
	out      string
	asJSON   bool
	seeds    string
	sim.Options
}

// allQuick is all scenarios in their short forms.
const allQuick = "all-quick"

func newSim() *cobra.Command {
	var o simFlags
	c := &cobra.Command{
		Use: "sim", Short: "Simulate a run of many nodes, and measure what the protocol promises",
		Long: `Runs many nodes of one run in this process, under virtual time, with the daemon's
own round, fold and trainer, and measures what has to hold: agreement, progress,
traffic, and what is learned among liars. The same seed gives the same run.

Each scenario ends with one line: with --json an object with figures and the
limits they have to keep. --out writes that and pictures into a folder. With
--seeds there is one for each seed, and then one with the means. The exit code is
18 when a limit is missed.`,
		Example: `  mootd sim --list
  mootd sim --scenario half-vanish --seed 1 --json
  mootd sim --scenario byzantine-25-alie --seeds 3
  mootd sim --scenario all-quick --out ./sim`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Progress = func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) }
			return runSim(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	f := c.Flags()
	f.BoolVar(&o.list, "list", false, "list the scenarios")
	f.StringVar(&o.scenario, "scenario", "", "`name` of the scenario, a pattern such as 'byzantine-25-*', or "+allQuick+" for all in their short forms")
	f.Uint64Var(&o.Seed, "seed", 1, "`number` that everything is drawn from")
	f.StringVar(&o.seeds, "seeds", "", "several seeds: `how many`, from --seed on, or a list such as 1,5,9; the last result has the means")
	f.BoolVar(&o.Quick, "quick", false, "the short form: fewer rounds, the same limits")
	f.StringVar(&o.out, "out", "", "write results and pictures into this `folder`")
	f.BoolVar(&o.asJSON, "json", false, "print one JSON object for each scenario")
	return c
}

func runSim(ctx context.Context, o simFlags, out io.Writer) error {
	switch {
	case o.list:
		return listScenarios(o, out)
	case o.scenario == allQuick:
		o.Quick = true
		return simAll(ctx, o, func(s sim.Scenario) bool { return s.Quick }, out)
	case strings.Contains(o.scenario, "*"):
		return simAll(ctx, o, func(s sim.Scenario) bool { ok, err := path.Match(o.scenario, s.Name); return ok && err == nil }, out)
	case o.scenario == "":
		return api.Errorf(api.CodeUsage, "--scenario is missing").WithHint("--list shows the scenarios")
	}
	s, err := sim.Find(o.scenario)
	if err != nil {
		return api.Errorf(api.CodeNotFound, "%w", err).WithHint("--list shows the scenarios")
	}
	r, err := simOne(ctx, s, o, out)
	if err == nil && !r.Pass {
		err = api.Errorf(api.CodeVerify, "scenario %s, seed %s: missed %s", r.Scenario, r.SeedText(), strings.Join(r.Missed, ", "))
	}
	return err
}

func listScenarios(o simFlags, out io.Writer) error {
	type entry struct {
		Name  string `json:"name"`
		About string `json:"about"`
		Quick bool   `json:"quick"`
	}
	var list []entry
	for _, s := range sim.All() {
		if !o.asJSON {
			fmt.Fprintf(out, "%-26s %s\n", s.Name, s.About)
		}
		list = append(list, entry{s.Name, s.About, s.Quick})
	}
	if !o.asJSON {
		return nil
	}
	return printJSON(out, map[string]any{"scenarios": list})
}

func printJSON(out io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", b)
	return err
}

// simOne runs a scenario with the seeds that are asked for.
func simOne(ctx context.Context, s sim.Scenario, o simFlags, out io.Writer) (r sim.Result, err error) {
	seeds, err := seedsOf(o.seeds, o.Seed)
	if err != nil {
		return sim.Result{}, err
	}
	tell := func(r sim.Result) error { return tellResult(r, o, out) }
	if o.seeds == "" {
		if r, err = s.Run(ctx, o.Options); err == nil {
			err = tell(r)
		}
	} else if r, err = s.RunSeeds(ctx, o.Options, seeds, tell); err == nil {
		err = tell(r)
	}
	switch {
	case err == nil:
		return r, nil
	case ctx.Err() != nil:
		return r, api.AsError(ctx.Err())
	}
	return r, api.Errorf(api.CodeInternal, "%w", err)
}

func tellResult(r sim.Result, o simFlags, out io.Writer) error {
	if o.out != "" {
		if err := r.Write(o.out); err != nil {
			return err
		}
	}
	if o.asJSON {
		return printJSON(out, r)
	}
	_, err := io.WriteString(out, r.Text())
	return err
}

// maxSeeds bounds what a typing error can cost.
const maxSeeds = 1000

// seedsOf reads --seeds: a number of seeds from first on, or a list.
func seedsOf(text string, first uint64) ([]uint64, error) {
	wrong := func(what string) error {
		return api.Errorf(api.CodeUsage, "--seeds %s: %s", text, what).WithHint("3 is three seeds from --seed on, and 1,5,9 is these")
	}
	if text == "" {
		return []uint64{first}, nil
	}
	if !strings.Contains(text, ",") {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || n == 0 || n > maxSeeds {
			return nil, wrong(fmt.Sprintf("must be 1 to %d, or a list", maxSeeds))
		}
		list := make([]uint64, n)
		for i := range list {
			list[i] = first + uint64(i)
		}
		return list, nil
	}
	var list []uint64
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(part), 10, 64)
		if err != nil || slices.Contains(list, n) {
			return nil, wrong(fmt.Sprintf("%q is no number, or there twice", part))
		}
		list = append(list, n)
	}
	return list, nil
}

// simAll runs the scenarios that are wanted. One that misses a limit ends nothing.
func simAll(ctx context.Context, o simFlags, wanted func(sim.Scenario) bool, out io.Writer) (err error) {
	began := time.Now()
	o.Lab = new(sim.Lab)
	defer func() { err = errors.Join(err, o.Lab.Close()) }()
	sum := sim.Result{Scenario: o.scenario, Seed: o.Seed, Quick: o.Quick, Figures: map[string]sim.Figure{}, Limits: map[string]sim.Limit{}}
	none := 0.0
	var errs []error
	for _, s := range sim.All() {
		if !wanted(s) {
			continue
		}
		o.Progress(s.Name)
		r, err := simOne(ctx, s, o, out)
		if ctx.Err() != nil {
			return err
		}
		errs = append(errs, err)
		sum.Figures["scenarios"]++
		if err != nil || !r.Pass {
			sum.Missed = append(sum.Missed, s.Name)
		}
	}
	if sum.Figures["scenarios"] == 0 {
		return api.Errorf(api.CodeNotFound, "there is no scenario %q", o.scenario).WithHint("--list shows the scenarios")
	}
	sum.Figures["missed"] = sim.Figure(len(sum.Missed))
	sum.Limits["missed"] = sim.Limit{AtMost: &none}
	sum.Pass = len(sum.Missed) == 0
	sum.WallS = time.Since(began).Round(10 * time.Millisecond).Seconds()
	slices.Sort(sum.Missed)
	if o.asJSON {
		err = printJSON(out, sum)
	} else {
		_, err = io.WriteString(out, sum.Text())
	}
	if err := errors.Join(append(errs, err)...); err != nil {
		return api.Errorf(api.CodeInternal, "%w", err)
	}
	if !sum.Pass {
		return api.Errorf(api.CodeVerify, "missed: %s", strings.Join(sum.Missed, ", "))
	}
	return nil
}
