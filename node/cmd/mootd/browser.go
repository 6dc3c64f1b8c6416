package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/moot-net/moot/node/client"
)

// welcome tells who started a node for the first time where its page is, and
// opens it if that is wanted. The address has the token in it, so that it is for
// a terminal alone.
func welcome(ctx context.Context, w io.Writer, dataDir string, open bool) {
	c, err := client.Open(dataDir)
	if err != nil {
		return // the daemon says why
	}
	defer c.Close()
	fmt.Fprintf(w, "The dashboard is at %s\n\"moot dashboard\" prints its address again, \"mootd top\" shows the node on a terminal.\n", c.DashboardURL())
	if open {
		if err := openBrowser(ctx, c.DashboardURL(), os.Getenv); err != nil {
			fmt.Fprintf(w, "No browser was opened: %v\n", err)
		}
	}
}

// browserTime is how long the program that opens a browser may take.
const browserTime = 10 * time.Second

// openBrowser opens a page, where somebody can see it.
func openBrowser(ctx context.Context, url string, getenv func(string) string) error {
	name, args := browserCommand(runtime.GOOS, url)
	if runtime.GOOS == "linux" && getenv("DISPLAY") == "" && getenv("WAYLAND_DISPLAY") == "" {
		return fmt.Errorf("there is no desktop here")
	}
	ctx, cancel := context.WithTimeout(ctx, browserTime)
	cmd := exec.CommandContext(ctx, name, args...)
	if err := cmd.Start(); err != nil {
		cancel()
		return err
	}
	go func() {
		defer cancel()
		_ = cmd.Wait() // the page is a convenience
	}()
	return nil
}

// browserCommand is what opens a page on a system.
func browserCommand(system, url string) (name string, args []string) {
	switch system {
	case "windows":
		return "rundll32", []string{"url.dll,FileProtocolHandler", url}
	case "darwin":
		return "open", []string{url}
	}
	return "xdg-open", []string{url}
}
