// Command netbench measures how shards travel: beside a plain TCP copy with the
// same hash check, over lines of limited speed, from unequal peers, and among
// peers that all fetch at once. "scripts/bench.sh net" runs it.
//
// Each node is a process of its own with a store on disk, so that its memory and
// processor time can be told. Lines are network namespaces with token buckets
// (tc tbf), which needs root on Linux; elsewhere these figures are null. A round
// trip is made by a proxy in user space that holds bytes back.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "netbench: %v\n", err)
		os.Exit(1)
	}
}

// options are the command's flags.
type options struct {
	json bool
	mib  int // of the content that is copied where nothing limits the line
	runs int // of each program there, alternating
	only string
	keep string // folder for the stores; empty: a temporary one

	profile string // folder for profiles of the children; empty: none
}

func run(args []string) error {
	if len(args) > 0 && strings.HasPrefix(args[0], "child-") { // started by this program
		return runChild(args)
	}
	var o options
	f := flag.NewFlagSet("net", flag.ContinueOnError)
	f.BoolVar(&o.json, "json", false, "end with one JSON object")
	f.IntVar(&o.mib, "mib", 512, "MiB that are copied over loopback")
	f.IntVar(&o.runs, "runs", 3, "copies of each kind over loopback, and from unequal peers; medians are taken")
	f.StringVar(&o.only, "only", "", "one of "+strings.Join(caseNames(), ", ")+"; empty: all")
	f.StringVar(&o.keep, "dir", "", "folder for the stores (default: a temporary one)")
	f.StringVar(&o.profile, "profile", "", "folder that is there, for a pprof profile of each child (default: none)")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if o.mib < 1 || o.runs < 1 {
		return errors.New("--mib and --runs must be at least 1")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return measure(ctx, &o)
}

// figures are what --json prints; what was not measured is null.
type figures map[string]*float64

func (f figures) set(name string, v float64) { f[name] = &v }

func measure(ctx context.Context, o *options) (err error) {
	dir := o.keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "moot-net-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	result := figures{}
	b := &bench{ctx: ctx, dir: dir, o: o, out: result}
	for _, c := range cases {
		for _, name := range c.figures {
			result[name] = nil
		}
	}
	for _, c := range cases {
		if o.only != "" && o.only != c.name {
			continue
		}
		fmt.Printf("\n== %s\n", c.title)
		if err := c.measure(b); err != nil {
			if errors.Is(err, errNoLab) {
				fmt.Printf("not measured: %v\n", err)
				continue
			}
			return fmt.Errorf("measure %s: %w", c.name, err)
		}
	}
	if !o.json {
		return nil
	}
	text, err := json.Marshal(result)
	if err != nil {
		return err
	}
	fmt.Println(string(text))
	return nil
}
