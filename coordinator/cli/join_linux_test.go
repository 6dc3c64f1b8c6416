package cli

import (
	"bytes"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api/apitest"
)

// On a terminal, a join says what the run needs and asks before it pulls.
func TestJoinAsksOnATerminal(t *testing.T) {
	d := &fakeDaemon{dir: t.TempDir(), watched: make(chan struct{}, 100)}
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.stop)
	// join answers the question, and returns what was shown and the exit code.
	join := func(answer string, args ...string) (string, int) {
		t.Helper()
		master, slave := apitest.Terminal(t)
		cmd := exec.Command("moot", append([]string{"join", apitest.ID("fits"), "--data-dir", d.dir}, args...)...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		slave.Close()
		var mu sync.Mutex
		var shown bytes.Buffer
		read := make(chan struct{})
		go func() {
			defer close(read)
			b := make([]byte, 4096)
			for {
				n, err := master.Read(b)
				mu.Lock()
				shown.Write(b[:n])
				asked := strings.Contains(shown.String(), "[y/N]")
				mu.Unlock()
				if err != nil {
					return // nobody has the other end any more
				}
				if asked && answer != "" {
					_, _ = master.WriteString(answer + "\n") // who does not get it hangs, and the test fails
					answer = ""
				}
			}
		}()
		watch := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
		defer watch.Stop()
		_ = cmd.Wait() // the exit code says it
		<-read
		return shown.String(), cmd.ProcessState.ExitCode()
	}
	shown, code := join("n")
	if code != 130 || !strings.Contains(shown, "memory") || !strings.Contains(shown, "nothing was pulled and joined") {
		t.Errorf("after a no: exit code %d\n%s", code, shown)
	}
	if shown, code := join("y"); code != 0 || !strings.Contains(shown, apitest.ID("fits")) || strings.Count(shown, "38.1 MiB") != 1 {
		t.Errorf("after a yes: exit code %d\n%s", code, shown)
	}
	if shown, code := join("", "--yes"); code != 0 || strings.Contains(shown, "[y/N]") {
		t.Errorf("with --yes: exit code %d\n%s", code, shown)
	}
}
