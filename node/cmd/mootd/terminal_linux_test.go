package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api/apitest"
	"github.com/moot-net/moot/node/client"
)

// On a terminal, the daemon asks and then starts; the next time it only starts.
func TestFirstRunOnATerminal(t *testing.T) {
	home := t.TempDir()
	data := filepath.Join(home, "data", "moot")
	// A browser that notes what it was to show.
	bin, page := t.TempDir(), filepath.Join(home, "page")
	if err := os.WriteFile(filepath.Join(bin, "xdg-open"), []byte("#!/bin/sh\nprintf %s \"$1\" >"+page+".new && mv "+page+".new "+page+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var begun *exec.Cmd
	begin := func() (*exec.Cmd, *bufio.Reader, *os.File) {
		master, slave := apitest.Terminal(t)
		cmd := exec.Command("mootd", "--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0", "--no-mdns")
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "DISPLAY=:77", "HOME="+home, "XDG_CONFIG_HOME="+filepath.Join(home, "config"), "XDG_DATA_HOME="+filepath.Join(home, "data"))
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
		slave.Close()
		begun = cmd
		return cmd, bufio.NewReader(master), master
	}
	// until reads what is written up to text.
	until := func(r *bufio.Reader, text string) string {
		t.Helper()
		var b strings.Builder
		watch := time.AfterFunc(2*time.Minute, func() { begun.Process.Kill() }) // which ends what is read
		defer watch.Stop()
		for !strings.HasSuffix(b.String(), text) {
			c, err := r.ReadByte()
			if err != nil {
				t.Fatalf("it does not say %q, but %q: %v", text, b.String(), err)
			}
			b.WriteByte(c)
		}
		return b.String()
	}
	ends := func(cmd *exec.Cmd, r *bufio.Reader) {
		t.Helper()
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		until(r, "saves and stops")
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}

	cmd, out, in := begin()
	for n, answer := range []string{"cpu", "50 20", "nights"} {
		until(out, fmt.Sprintf("%d of 3.", n+1))
		if _, err := os.Stat(data); err == nil {
			t.Fatal("the data folder was made before somebody agreed")
		}
		until(out, "> ")
		fmt.Fprintln(in, answer)
	}
	until(out, "api http://")
	c, err := client.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// By day the schedule forbids work, by night it does not: either way somebody agreed.
	if s, err := c.Status(t.Context()); err != nil || s.Reason == "consent" {
		t.Errorf("status %+v, %v", s, err)
	}
	if b, err := os.ReadFile(filepath.Join(data, "control.json")); err != nil || !strings.Contains(string(b), `"consent":true`) {
		t.Errorf("control %s, %v", b, err)
	}
	until(out, "The dashboard is at "+c.DashboardURL())
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(page); err == nil {
			if string(b) != c.DashboardURL() {
				t.Errorf("the browser shows %s, not %s", b, c.DashboardURL())
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no browser was opened")
		}
	}
	if err := os.Remove(page); err != nil {
		t.Fatal(err)
	}
	ends(cmd, out)

	cmd, out, _ = begin()
	if said := until(out, "api http://"); strings.Contains(said, "of 3.") {
		t.Errorf("it asks again: %s", said)
	}
	ends(cmd, out)
	if _, err := os.Stat(page); err == nil {
		t.Error("it opens a browser at each start")
	}
}
