package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/app"
	"github.com/moot-net/moot/node/config"
	"github.com/moot-net/moot/node/internal/logs"
)

const rootLong = `mootd is a node of a moot network: it holds models and data, trains in the runs
it has joined, and serves what it holds to other nodes. The command moot tells
it what to do. It runs until it is interrupted; then it finishes the training
step that is under way, saves it, and goes on from there at the next start.

Settings come from, in this order: a flag, the environment (each setting has a
variable, such as MOOT_BOOTSTRAP, and MOOT_WORK_DUTY_PERCENT for work.duty_percent),
the configuration file, the default. "mootd config show --origin" lists them. The
file may be changed while the daemon runs: what concerns work, limits and the log
takes effect at once.

Nothing is computed for others before somebody agreed: by the three questions that
it asks on a terminal at the first start, by --yes, or by joining or launching a
run on this node.

On standard output it prints its peer ID, its addresses and the address of its
API, each on a line of its own; its log goes to standard error, or to --log-file.`

const rootExample = `  mootd
  mootd --data-dir ~/second-node --listen /ip4/0.0.0.0/tcp/0 --api 127.0.0.1:0
  mootd --threads 2 --no-mdns
  mootd --yes`

func newRoot() *cobra.Command {
	s := new(settings)
	var yes bool
	c := &cobra.Command{
		Use: "mootd", Short: "Run a node", Long: rootLong, Example: rootExample,
		Args: noArgs, SilenceErrors: true, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load(cmd)
			if err != nil {
				return err
			}
			reload := func() (*config.Config, error) {
				l, err := s.load(cmd)
				if err != nil {
					return nil, err
				}
				return &l.Config, nil
			}
			agreed, started := (*bool)(nil), func() {}
			if yes {
				agreed = &yes
			} else if agreed, err = firstRun(cmd.Context(), cfg, terminal(cmd)); err != nil {
				return err
			} else if agreed != nil {
				if cfg, err = s.load(cmd); err != nil {
					return err
				}
				started = func() { welcome(cmd.Context(), cmd.ErrOrStderr(), cfg.DataDir, cfg.OpenBrowser) }
			}
			return runDaemon(cmd.Context(), cfg, daemonOptions{agreed, reload, started}, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	s.register(c)
	c.Flags().BoolVar(&yes, "yes", false, "this machine works for others; without questions")
	c.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return api.Errorf(api.CodeUsage, "%w", err).WithHint("%q lists the flags", cmd.CommandPath()+" --help")
	})
	c.CompletionOptions.HiddenDefaultCmd = true
	c.AddCommand(newStatus(s), newPause(s), newResume(s), newFinish(s), newConfig(s), newPaths(s), newTop(s), newDoctor(s), newService(s), newReplay(s), newGPU(), newSim(), newVersion())
	return c
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return api.Errorf(api.CodeUsage, "%s does not know %q", cmd.CommandPath(), args[0]).
		WithHint("%q shows what it knows", cmd.CommandPath()+" --help")
}

// daemonOptions are what a daemon is started with beside its configuration.
type daemonOptions struct {
	agreed  *bool // what somebody said just now, nil: nobody was asked
	reload  func() (*config.Config, error)
	started func() // is called once it answers
}

func runDaemon(ctx context.Context, cfg *config.Loaded, o daemonOptions, out, errOut io.Writer) error {
	w := errOut
	if cfg.LogFile != "" {
		f, err := logs.Open(cfg.LogFile, logs.MaxBytes, logs.MaxOld)
		if err != nil {
			return api.Errorf(api.CodeConfig, "log_file: %w", err).WithHint("give another one with --log-file")
		}
		defer func() { _ = f.Close() }() // what was written is written
		w = f
	}
	levels := new(logs.Levels)
	if err := levels.Parse(cfg.LogLevel); err != nil {
		return api.Errorf(api.CodeConfig, "log_level: %w", err)
	}
	log, err := logs.New(w, cfg.LogFormat, levels)
	if err != nil {
		return api.Errorf(api.CodeConfig, "%w", err)
	}
	setPriority(cfg.Work.Priority, log)
	return app.Run(ctx, app.Options{
		Config: cfg.Config, File: cfg.File, Reload: o.reload, Levels: levels, Consent: o.agreed,
		Log: log,
		Started: func(e api.Endpoint) {
			fmt.Fprintf(out, "peer %s\n", e.Peer)
			for _, a := range e.Addrs {
				fmt.Fprintf(out, "address %s\n", a)
			}
			fmt.Fprintf(out, "api %s\n", e.URL)
			o.started()
		},
	})
}
