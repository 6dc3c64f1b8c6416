package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
)

func newStop(e *env) *cobra.Command {
	wait := 30 * time.Second
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Stop the daemon",
		Long: `Asks the daemon to finish its inner step, save and end, as Ctrl-C does where it
runs, and waits until it has. Its runs go on when it is started again.`,
		Example: `  moot stop`,
		Args:    needs(false),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runStop(cmd.Context(), e, wait) },
	}
	cmd.Flags().DurationVar(&wait, "wait", wait, "how long to wait for the end; 0: not at all")
	return cmd
}

// stopPoll is how often is looked whether the daemon still answers.
const stopPoll = 100 * time.Millisecond

func runStop(ctx context.Context, e *env, wait time.Duration) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	pid := c.Endpoint().PID
	if err := c.Shutdown(ctx); err != nil {
		return err
	}
	answer := api.Stopping{Stopping: true}
	if wait > 0 {
		if answer.Stopped = waitGone(ctx, c, pid, wait); !answer.Stopped {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return api.Errorf(api.CodeRetry, "the daemon (process %d) was told to stop and is still there after %s", pid, wait).
				WithHint("it saves its runs first; wait longer with --wait")
		}
	}
	return e.answer(answer, func(p *page) {
		if answer.Stopped {
			p.line("the daemon (process %d) has stopped", pid)
			return
		}
		p.line("the daemon (process %d) is stopping", pid)
	})
}

// waitGone reports whether the daemon ended in time. It saves after it has
// stopped to answer.
func waitGone(ctx context.Context, c *client.Client, pid int, wait time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(stopPoll)
	defer tick.Stop()
	for {
		if err := c.Healthy(ctx); err != nil && ctx.Err() == nil && !alive(pid) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// alive reports whether there is a process with this ID that has not ended.
func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false // Windows finds only those that are there
	}
	defer func() { _ = p.Release() }() // what cannot be released was not held
	if runtime.GOOS == "windows" {
		return true
	}
	err = p.Signal(syscall.Signal(0))
	return (err == nil || errors.Is(err, syscall.EPERM)) && !zombie(pid)
}

// zombie reports whether a process has ended and nobody has asked how: in a container
// whose first process does not, it stays there. Only Linux says so.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The state comes after the name, which may have any bytes.
	i := bytes.LastIndex(b, []byte(") "))
	return i >= 0 && len(b) > i+2 && (b[i+2] == 'Z' || b[i+2] == 'X')
}
