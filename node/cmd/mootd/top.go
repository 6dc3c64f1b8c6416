package main

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
	"github.com/moot-net/moot/node/internal/top"
)

func newTop(s *settings) *cobra.Command {
	var once bool
	c := &cobra.Command{
		Use: "top", Short: "Watch the node on this terminal", Args: noArgs,
		Long: `Shows what the node does and why, its run with the round and who is awaited,
losses, speed, devices, credits and peers, and lets you pause, resume and finish
by single keys (? lists them). The daemon goes on when you quit; one that is
restarted is found again. It needs 80 columns and 24 lines, and no colours.

Where the output is no terminal, or a dumb one, and with --once, it prints what
there is to see as plain lines.`,
		Example: `  mootd top
  mootd top --once`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load(cmd)
			if err != nil {
				return err
			}
			open := func() (top.Source, error) {
				c, err := client.Open(cfg.DataDir)
				if err != nil {
					return nil, err // not a nil *Client in an interface
				}
				return c, nil
			}
			return runTop(cmd, open, once)
		},
	}
	c.Flags().BoolVar(&once, "once", false, "print it once, as plain lines")
	return c
}

// plainInterval is how often a dumb terminal is told.
const plainInterval = 5 * time.Second

func runTop(cmd *cobra.Command, open func() (top.Source, error), once bool) error {
	in, isIn := cmd.InOrStdin().(*os.File)
	out, isOut := cmd.OutOrStdout().(*os.File)
	terminal := isIn && isOut && term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(out.Fd()))
	if once || !terminal {
		return top.Print(cmd.Context(), open, cmd.OutOrStdout(), os.Environ())
	}
	// Who has no daemon learns so before the screen is taken.
	first, err := open()
	if err != nil {
		return err
	}
	first.Close()
	if os.Getenv("TERM") == "dumb" {
		return plainTop(cmd, open)
	}
	if err := top.Run(cmd.Context(), top.Options{Open: open, In: in, Out: out, Environ: os.Environ()}); err != nil {
		return api.Errorf(api.CodeInternal, "top: %w", err).WithHint(`"mootd top --once" prints it as plain lines`)
	}
	return nil
}

// plainTop prints again and again on a terminal that cannot do more.
func plainTop(cmd *cobra.Command, open func() (top.Source, error)) error {
	for {
		if err := top.Print(cmd.Context(), open, cmd.OutOrStdout(), os.Environ()); err != nil {
			return err
		}
		cmd.Println()
		if !sleep(cmd.Context(), plainInterval) {
			return nil
		}
	}
}

// sleep waits, and reports whether ctx is not done.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
