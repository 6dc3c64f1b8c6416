// Command moot is the remote control of mootd.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/moot-net/moot/coordinator/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	os.Exit(cli.Main(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
