package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/app"
	"github.com/moot-net/moot/node/config"
	"github.com/moot-net/moot/node/internal/cuda"
)

const firstText = `This machine can work for others: it trains in the runs that you join, and serves
the models and data that it holds. Nothing is computed unless you agree. It makes
way for games and what fills the screen, for others on the GPU, on battery and
when it gets hot; "mootd config preset" shows how much it takes. Three questions;
an empty line takes what is in brackets, "no" agrees to nothing.
`

// nights is what "nights" stands for.
const nights = "Mon-Sun 22:00-07:00"

// asker asks on a terminal.
type asker struct {
	in  *bufio.Reader
	out io.Writer
}

// errNo is the answer of somebody who does not agree.
var errNo = errors.New("no")

// ask repeats a question until fn takes the answer.
func (a *asker) ask(question, standard string, fn func(string) error) error {
	for {
		fmt.Fprintf(a.out, "%s\n  [%s] > ", question, standard)
		line, err := a.in.ReadString('\n')
		if err != nil {
			fmt.Fprintln(a.out)
			return api.Errorf(api.CodeInterrupted, "nobody answered; nothing was changed").WithHint(`"mootd --yes" agrees without questions`)
		}
		answer := strings.TrimSpace(line)
		switch strings.ToLower(answer) {
		case "no", "n", "never":
			return errNo
		}
		if answer == "" {
			return nil
		}
		if err := fn(answer); err != nil {
			fmt.Fprintf(a.out, "  %v\n", err)
			continue
		}
		return nil
	}
}

// firstRun asks who starts a node for the first time on a terminal. It writes
// what was answered into the configuration file. The answer is whether this
// machine may work for others, nil if there was nobody to ask.
func firstRun(ctx context.Context, cfg *config.Loaded, a *asker) (agreed *bool, err error) {
	if a == nil || cfg.Found || !isNew(cfg.DataDir) || running(ctx, cfg.DataDir) {
		return nil, nil
	}
	sets, err := questions(cfg, a)
	if errors.Is(err, errNo) {
		fmt.Fprintln(a.out, `Nothing will be computed. "mootd --yes" agrees later, and so does joining a run.`)
		return new(false), nil
	}
	if err != nil {
		return nil, err
	}
	if len(sets) > 0 {
		if err := config.Edit(cfg.File, sets...); err != nil {
			return nil, api.Errorf(api.CodeConfig, "%w", err)
		}
		fmt.Fprintf(a.out, "Written to %s; \"mootd config set\" changes it.\n", cfg.File)
	}
	fmt.Fprintln(a.out, `Thank you. "mootd pause" stops the work at any time, "mootd status" says what it does.`)
	return new(true), nil
}

// isNew reports whether nobody has used a data folder to take part in anything.
func isNew(dataDir string) bool {
	for _, p := range app.Paths(dataDir) {
		if p.Name != "control" && p.Name != "runs" {
			continue
		}
		if _, err := os.Stat(p.Path); !errors.Is(err, fs.ErrNotExist) {
			if entries, err := os.ReadDir(p.Path); p.Name == "runs" && err == nil && len(entries) == 0 {
				continue
			}
			return false
		}
	}
	return true
}

// questions asks the three.
func questions(cfg *config.Loaded, a *asker) (sets []config.Set, err error) {
	fmt.Fprint(a.out, firstText, "\n")
	// try checks a value as the file would have it.
	try := func(key string, values ...string) error {
		c := cfg.Config
		if err := c.Set(key, values...); err != nil {
			return err
		}
		if err := c.Validate(); err != nil {
			return err
		}
		sets = append(sets, config.Set{Key: key, Values: values})
		return nil
	}
	err = a.ask("1 of 3. What trains? auto, cpu"+gpuNames(), cfg.Device, func(s string) error { return try("device", s) })
	if err != nil {
		return nil, err
	}
	err = a.ask("2 of 3. How much of the disk in GB, and of the line in Mbit/s? Such as 50 20: at most\n  50 GB for models and data, 20 Mbit/s in each direction. 0 is all there is; the LAN is\n  never limited.", "0 0", func(s string) error {
		before := len(sets)
		err := limits(s, try)
		if err != nil {
			sets = sets[:before]
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = a.ask("3 of 3. When? always, nights ("+nights+"), or times such as\n  Mon-Fri 22:00-07:00; Sat,Sun 00:00-24:00", "always", func(s string) error {
		switch strings.ToLower(s) {
		case "always":
			return nil
		case "nights":
			s = nights
		}
		return try("work.schedule", s)
	})
	return sets, err
}

func gpuNames() string {
	list, err := cuda.Devices()
	if err != nil {
		return ""
	}
	var b strings.Builder
	for _, g := range list {
		if g.Err == nil {
			fmt.Fprintf(&b, ", or cuda:%d (%s)", g.Ordinal, g.Name)
		}
	}
	return b.String()
}

// limits reads the second answer.
func limits(s string, try func(key string, values ...string) error) error {
	parts := strings.Fields(s)
	if len(parts) > 2 {
		return fmt.Errorf("%q is more than two numbers", s)
	}
	gb, err := strconv.ParseFloat(parts[0], 64)
	if err != nil || gb < 0 || gb > 1e6 {
		return fmt.Errorf("%q is not a number of GB", parts[0])
	}
	if gb > 0 {
		if err := try("cache_max_mb", strconv.FormatInt(int64(gb*1000), 10)); err != nil {
			return err
		}
	}
	if len(parts) < 2 || parts[1] == "0" {
		return nil
	}
	if err := try("network.upload_mbit", parts[1]); err != nil {
		return err
	}
	return try("network.download_mbit", parts[1])
}

// terminal returns who can be asked, nil if nobody can.
func terminal(cmd *cobra.Command) *asker {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return nil
	}
	out, ok := cmd.ErrOrStderr().(*os.File)
	if !ok || !term.IsTerminal(int(out.Fd())) {
		return nil
	}
	return &asker{bufio.NewReader(in), out}
}
