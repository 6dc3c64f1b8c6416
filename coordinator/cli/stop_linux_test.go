package cli

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// A process that has ended is not waited for, also where its parent never asks how it
// ended; one that runs or sleeps, and has any name, is there.
func TestZombieHasEnded(t *testing.T) {
	t.Parallel()
	if !alive(os.Getpid()) {
		t.Error("this process is not there")
	}
	cat := exec.Command("cat") // until its input ends
	in, err := cat.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cat.Start(); err != nil {
		t.Skip(err)
	}
	pid := cat.Process.Pid
	if !alive(pid) {
		t.Error("a process that waits for input is not there")
	}
	in.Close()
	for { // until it has ended, and leave it as it is
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			break
		} else if err != unix.EINTR {
			t.Fatal(err)
		}
	}
	if alive(pid) {
		t.Error("a process that has ended is waited for")
	}
	if err := cat.Wait(); err != nil {
		t.Error(err)
	}
	if alive(pid) {
		t.Error("a process that is gone is there")
	}
}
