package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// exitSkipped says that nothing could be tried here.
const exitSkipped = 77

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "chaos: %v\n", err)
	}
	stop()
	os.Exit(code)
}

// options are the command's flags.
type options struct {
	programs
	soak     bool
	json     bool
	list     bool
	scenario string
	minutes  float64
	seed     uint64
	keep     string
}

// report is what the command ends with.
type report struct {
	Schema    int      `json:"schema"`
	Pass      bool     `json:"pass"`
	Skipped   string   `json:"skipped,omitempty"` // why nothing was tried
	Scenarios []result `json:"scenarios"`
	WallS     float64  `json:"wall_s"`
}

func run(ctx context.Context, args []string) (code int, err error) {
	var o options
	f := flag.NewFlagSet("chaos", flag.ContinueOnError)
	f.BoolVar(&o.soak, "soak", false, "disturb one node of a swarm at random, instead of the scenarios")
	f.BoolVar(&o.json, "json", false, "print nothing but one JSON object, in the last line")
	f.BoolVar(&o.list, "list", false, "list the scenarios")
	f.StringVar(&o.scenario, "scenario", "", "one of "+strings.Join(names(), ", ")+"; several with commas; empty: all")
	f.Float64Var(&o.minutes, "minutes", 0, "go on with other seeds for so long (default: each scenario once)")
	f.Uint64Var(&o.seed, "seed", 1, "draws who is disturbed, and when")
	f.StringVar(&o.mootd, "mootd", "", "path of the daemon")
	f.StringVar(&o.skewed, "skewed", "", "path of a daemon whose clock can be set (default: none, such scenarios are skipped)")
	f.DurationVar(&o.period, "period", 10*time.Second, "of the runs: what a fault costs is counted in periods, and what takes longer is late")
	f.IntVar(&o.peers, "peers", 52, "of the scenario cells, which is not among those that are run without its name")
	f.StringVar(&o.keep, "keep-data", "", "folder for the nodes' data and logs, which stay (default: a temporary one)")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0, nil
		}
		return 2, nil // it has been said
	}
	if o.list {
		for _, s := range append(slices.Clone(scenarios), cells) {
			fmt.Printf("%-16s %s\n", s.name, s.about)
		}
		return 0, nil
	}
	list, err := chosen(o.scenario)
	if err != nil {
		return 2, err
	}
	if o.period < time.Second {
		return 2, errors.New("--period must be at least 1s")
	}
	if o.soak && o.minutes < 1 {
		return 2, errors.New("--minutes must be at least 1")
	}
	began := time.Now()
	rep := report{Schema: 1}
	l, err := newLab(ctx)
	switch {
	case errors.Is(err, errNotAlone):
		rep.Skipped = err.Error()
		fmt.Fprintf(os.Stderr, "chaos: skipped: %v\n", err)
		return exitSkipped, rep.print(o.json)
	case err != nil:
		return 1, err
	}
	dir := o.keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "moot-chaos-"); err != nil {
			return 1, err
		}
		defer os.RemoveAll(dir)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return 1, err
	}
	rep.Pass = true
	end := began.Add(time.Duration(o.minutes * float64(time.Minute)))
	if o.soak {
		list = []scenario{{name: soakName, run: soakUntil(end)}}
	}
	for seed := o.seed; ctx.Err() == nil; seed++ {
		for _, x := range list {
			r := o.play(ctx, l, x, seed, filepath.Join(dir, fmt.Sprintf("%s-%d", x.name, seed)))
			rep.Scenarios = append(rep.Scenarios, r)
			rep.Pass = rep.Pass && r.Pass
			if seed > o.seed && time.Now().After(end) {
				break
			}
		}
		if o.soak || !time.Now().Before(end) {
			break
		}
	}
	rep.WallS = time.Since(began).Seconds()
	if ctx.Err() != nil {
		return 130, ctx.Err()
	}
	if !rep.Pass {
		code = 1
	}
	return code, rep.print(o.json)
}

func names() (list []string) {
	for _, s := range scenarios {
		list = append(list, s.name)
	}
	return list
}

// chosen finds scenarios by their names.
func chosen(given string) ([]scenario, error) {
	if given == "" {
		return scenarios, nil
	}
	var list []scenario
	for _, name := range strings.Split(given, ",") {
		found := false
		for _, s := range append(slices.Clone(scenarios), cells) {
			if s.name == name {
				list, found = append(list, s), true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no scenario %q; there are %s", name, strings.Join(names(), ", "))
		}
	}
	return list, nil
}

// play runs a scenario. What it finds wrong is in the result.
func (o options) play(ctx context.Context, l *lab, x scenario, seed uint64, dir string) result {
	r := result{Scenario: x.name, Seed: seed, Figures: map[string]float64{}, Limits: map[string]limit{}}
	began := time.Now()
	say := func(format string, args ...any) {
		if !o.json {
			fmt.Fprintf(os.Stderr, "%-16s %5.1f s  %s\n", x.name, time.Since(began).Seconds(), fmt.Sprintf(format, args...))
		}
	}
	if x.skewed && o.skewed == "" {
		r.Skipped, r.Pass = "there is no daemon whose clock can be set", true
		say("skipped: %s", r.Skipped)
		return r
	}
	s, err := newSwarm(l, o.programs, dir, seed, say)
	if err == nil {
		err = x.run(ctx, s, &r)
		s.end()
	}
	if err != nil {
		r.Error = err.Error()
	}
	r.Pass = err == nil && len(r.Missed) == 0
	r.WallS = time.Since(began).Seconds()
	if !o.json {
		r.show(os.Stderr)
	}
	if r.Pass && o.keep == "" {
		os.RemoveAll(dir)
	}
	return r
}

// soakReport is what a soak ends with: the figures it is about come first.
type soakReport struct {
	Schema      int     `json:"schema"`
	LostSteps   float64 `json:"lost_steps"`
	LeakedBytes float64 `json:"leaked_bytes"`
	WrongStates float64 `json:"wrong_states"`
	result
}

func (rep report) soak() soakReport {
	r := rep.Scenarios[0]
	return soakReport{rep.Schema, r.Figures["lost_steps"], r.Figures["leaked_bytes"], r.Figures["wrong_states"], r}
}

// print writes the report, for programs in one line.
func (rep report) print(asJSON bool) error {
	if !asJSON {
		for _, r := range rep.Scenarios {
			verdict := "pass"
			switch {
			case r.Skipped != "":
				verdict = "skipped"
			case !r.Pass:
				verdict = "FAILED"
			}
			fmt.Printf("%-16s seed %-4d %s\n", r.Scenario, r.Seed, verdict)
		}
	}
	var v any = rep
	if len(rep.Scenarios) == 1 && rep.Scenarios[0].Scenario == soakName {
		v = rep.soak()
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Printf("%s\n", b)
	return err
}
