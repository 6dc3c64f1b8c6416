package main

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/vt"
	"golang.org/x/sys/unix"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
	"github.com/moot-net/moot/node/client"
)

// The screen follows a daemon that is paused, killed and started again.
func TestTopFollowsTheDaemon(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mootd", "top", "--data-dir", dir).CombinedOutput(); err == nil || !strings.Contains(string(out), "start one with: mootd --data-dir") {
		t.Errorf("without a daemon: %s, %v", out, err)
	}
	p, c, id := daemon(t, dir)
	out, err := exec.Command("mootd", "top", "--once", "--data-dir", dir).Output()
	if err != nil || !strings.HasPrefix(string(out), "moot  idle ") || !strings.Contains(string(out), api.ShortID(id)) {
		t.Errorf("--once: %s, %v", out, err)
	}

	master, slave := apitest.Terminal(t)
	screen := vt.NewSafeEmulator(80, 24)
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 80, Row: 24}); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(screen, master) }() // ends with master, which the cleanup closes
	go func() { _, _ = io.Copy(master, screen) }()
	t.Cleanup(func() { // Close is not safe beside a Read
		if w, ok := screen.InputPipe().(io.Closer); ok {
			w.Close()
		}
	})
	cmd := exec.Command("mootd", "top", "--data-dir", dir)
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "LANG=C.UTF-8")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	slave.Close()
	shows := func(texts ...string) {
		t.Helper()
		deadline := time.Now().Add(2 * time.Minute)
		for _, text := range texts {
			for !strings.Contains(screen.Render(), text) {
				if time.Now().After(deadline) {
					t.Fatalf("no %q on\n%s", text, screen.Render())
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	shows("moot  idle", api.ShortID(id), "in no run")
	if _, err := master.WriteString("p"); err != nil {
		t.Fatal(err)
	}
	shows("moot  paused", "it was paused")
	if s, err := c.Status(t.Context()); err != nil || s.Reason != "paused" {
		t.Errorf("status %+v, %v", s, err)
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.ends()
	shows("moot  no daemon")
	daemon(t, dir)
	shows("moot  paused")
	if _, err := master.WriteString("rq"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	// The daemon goes on.
	if c, err = client.Open(dir); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("after top ended: %v", err)
	}
}
