// Command mootd is the daemon of a moot node. Everything a node does happens in
// it; moot is its remote control.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/moot-net/moot/node/api"
)

func main() {
	ctx := interruptible(context.Background(), os.Stderr)
	if err := newRoot().ExecuteContext(ctx); err != nil {
		os.Exit(report(os.Stderr, err))
	}
}

// sameInterrupt is how long a second signal counts as the first one: programs
// such as timeout send one to the process and one to its group.
const sameInterrupt = 100 * time.Millisecond

// interruptible returns a context that the first SIGINT or SIGTERM ends. The
// second one ends the process.
func interruptible(ctx context.Context, w io.Writer) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		fmt.Fprintln(w, "mootd: saves and stops; interrupt again to stop at once")
		cancel()
		for first := time.Now(); time.Since(first) < sameInterrupt; {
			<-signals
		}
		os.Exit(api.CodeInterrupted.Exit())
	}()
	return ctx
}

// report tells what went wrong and the way out, and returns the exit code.
func report(w io.Writer, err error) int {
	fmt.Fprintf(w, "mootd: %v\n", err)
	e := new(api.Error)
	if !errors.As(err, &e) {
		return 1
	}
	if e.Hint != "" {
		fmt.Fprintf(w, "mootd: hint: %s\n", e.Hint)
	}
	return e.Code.Exit()
}
