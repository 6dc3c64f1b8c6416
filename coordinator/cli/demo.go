package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/coordinator/cli/demo"
	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

// demoFlags are the flags of the demo.
type demoFlags struct {
	dir     string
	keep    bool
	mootd   string
	rounds  int
	timeout time.Duration
}

func newDemo(e *env) *cobra.Command {
	var o demoFlags
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show a whole run on this machine, without a daemon of your own",
		Long: `Starts real daemons on this machine, which find each other over libp2p on loopback
and fine-tune a small bundled model. While they train, the daemon that launched
the run and one volunteer are killed, and a new one joins. At the end the living
must have the same adapter, byte for byte, and it must answer better than the base
model; if not, the exit code is 18.

No network, no GPU and no account is needed; two cores take one to two minutes.
The adapter stays in a temporary folder, whose path is printed. With --keep-data
so do the daemons' folders, of which "moot replay" computes the run again. With
--keep the daemons that live go on, for you to look at, until you press Ctrl-C.`,
		Example: `  moot demo
  moot demo --keep
  moot demo --json --keep-data ./demo`,
		Args: needs(false),
		RunE: func(cmd *cobra.Command, _ []string) error { return runDemo(cmd.Context(), e, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "keep-data", "", "work in this `folder`, empty or new, and leave everything there,\nthe daemons' folders too")
	f.StringVar(&o.dir, "dir", "", "the same as --keep-data, by its first name")
	_ = f.MarkHidden("dir") // it is there
	f.BoolVar(&o.keep, "keep", false, "leave the daemons running at the end, until Ctrl-C,\nand then their data and logs")
	f.StringVar(&o.mootd, "mootd", "", "`path` of the daemon (default: beside moot, or found on PATH)")
	f.IntVar(&o.rounds, "rounds", 0, "train this `number` of rounds (default: as the bundled run file says)")
	f.DurationVar(&o.timeout, "timeout", 10*time.Minute, "give up after this `time`")
	return cmd
}

func runDemo(ctx context.Context, e *env, o demoFlags) error {
	if o.rounds != 0 && o.rounds < demo.MinRounds {
		return api.Errorf(api.CodeUsage, "--rounds is %d, must be at least %d", o.rounds, demo.MinRounds).
			WithHint("the launcher is killed after two rounds, and somebody joins after that")
	}
	if o.timeout <= 0 {
		return api.Errorf(api.CodeUsage, "--timeout is %v, must be positive", o.timeout)
	}
	mootd, err := findMootd(o.mootd)
	if err != nil {
		return err
	}
	dir, err := demoDir(o.dir)
	if err != nil {
		return err
	}
	tidy := o.dir == "" && !o.keep
	say := func(r demo.Report) error {
		if !tidy {
			r.DataDir = dir
		}
		return e.answer(r, func(p *page) { demoSummary(p, r) })
	}
	opts := demo.Options{Mootd: mootd, Dir: dir, Rounds: o.rounds, Timeout: o.timeout, Screen: screen{e}}
	if o.keep {
		opts.Hold = func(ctx context.Context, r demo.Report, open []demo.Open) error {
			if err := say(r); err != nil {
				return err
			}
			sayOpen(screen{e}, dir, r.Run, open)
			<-ctx.Done()
			return nil
		}
	}
	report, err := demo.Run(ctx, opts)
	switch {
	case tidy && report.OK:
		err = cleanDemo(dir)
	case tidy && api.AsError(err).Code == api.CodeInterrupted:
		os.RemoveAll(dir)
	case err != nil || o.keep:
		screen{e}.Say("daemons' data and logs are in %s", dir)
	}
	switch {
	case err == nil && o.keep: // Hold has said it
		return nil
	case e.json && report.Error != nil:
		if werr := say(report); werr != nil {
			return werr
		}
		return reported{err}
	case err != nil:
		return err
	}
	return say(report)
}

// sayOpen says how to look at the daemons that go on.
func sayOpen(s screen, dir, run string, open []demo.Open) {
	s.Say("")
	s.Say("The daemons that live go on; look at one with a browser on this machine:")
	for _, x := range open {
		s.Say("  %s   %s", x.Name, x.Dashboard)
	}
	s.Say("or from another terminal:")
	s.Say("  bin/moot --data-dir %s run show %s", filepath.Join(dir, "node3"), api.ShortID(run))
	s.Say("Ctrl-C stops them.")
}

func demoSummary(p *page, r demo.Report) {
	p.line("")
	p.line("ok: %d rounds in %.0f s; the launcher was killed after round %d, a new peer was", r.Rounds, r.WallS, r.LauncherKilledAfterRound)
	p.line("in from round %d on, %s were pulled, %s of them deltas.", r.JoinedAtRound, size(r.Bytes.Pulled), size(r.Bytes.Deltas))
	p.line("The adapter is in %s", plain.Clean(r.AdapterDir))
}

// screen shows the demo: what stays is its answer, but with --json that is the
// report alone.
type screen struct{ e *env }

func (s screen) Say(format string, args ...any) {
	w := s.e.out
	if s.e.json {
		w = s.e.err
	}
	text := cleanText(fmt.Sprintf(format, args...))
	s.e.board.around(func() { fmt.Fprintln(w, text) })
}

func (s screen) Progress(name string) api.ProgressFunc { return s.e.board.progress(name) }

func (s screen) Now(text string) {
	if s.e.board.fd >= 0 {
		s.e.board.set("now", text)
	}
}

func (s screen) Clear() { s.e.board.close() }

// findMootd finds the daemon's program.
func findMootd(given string) (string, error) {
	name := "mootd"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	if given != "" {
		path, err := absolute(given)
		if err != nil {
			return "", err
		}
		if info, err := os.Stat(path); err != nil {
			return "", api.Errorf(api.CodeNotFound, "--mootd: %w", err)
		} else if info.IsDir() {
			return "", api.Errorf(api.CodeNotFound, "--mootd: %s is a folder", path).WithHint("give the path of the program, such as %s", filepath.Join(path, name))
		}
		return path, nil
	}
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), name)
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", api.Errorf(api.CodeNotFound, "the daemon %s is neither beside moot nor on PATH", name).
			WithHint("give its path with --mootd, or build both with ./scripts/build.sh")
	}
	return path, nil
}

// demoDir makes the folder of a demo. A given one must be empty.
func demoDir(given string) (string, error) {
	if given == "" {
		dir, err := os.MkdirTemp("", "moot-demo-")
		if err == nil {
			dir, err = filepath.Abs(dir)
		}
		if err != nil {
			return "", api.Errorf(api.CodeDisk, "make a temporary folder: %w", err)
		}
		return dir, nil
	}
	dir, err := absolute(given)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", api.Errorf(api.CodeUsage, "--dir: %w", err)
	}
	l, err := os.ReadDir(dir)
	if err != nil {
		return "", api.Errorf(api.CodeUsage, "--dir: %w", err)
	}
	if len(l) > 0 {
		return "", api.Errorf(api.CodeConflict, "%s is not empty", dir).WithHint("choose another folder, or remove what an earlier demo left")
	}
	return dir, nil
}

// cleanDemo removes everything but the adapter.
func cleanDemo(dir string) error {
	l, err := os.ReadDir(dir)
	for _, x := range l {
		if x.Name() != demo.AdapterDir {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, x.Name())))
		}
	}
	if err != nil {
		return api.Errorf(api.CodeInternal, "clean up after the demo: %w", err)
	}
	return nil
}
