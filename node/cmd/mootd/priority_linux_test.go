package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Every thread of a daemon gives way to other programs, unless that is not
// wanted.
func TestPriority(t *testing.T) {
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	for priority, want := range map[string]int{"low": max(20-own, niceness), "normal": 20 - own} {
		t.Setenv("MOOT_WORK_PRIORITY", priority)
		p, _, _ := daemon(t, t.TempDir())
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.cmd.Process.Pid))
		if err != nil || len(tasks) < 2 {
			t.Fatalf("threads %v, %v", tasks, err)
		}
		for _, task := range tasks {
			id, err := strconv.Atoi(filepath.Base(task))
			if err != nil {
				t.Fatal(err)
			}
			n, err := unix.Getpriority(unix.PRIO_PROCESS, id)
			if err != nil {
				continue // it has ended
			}
			if 20-n != want {
				t.Errorf("%s: thread %d has niceness %d, want %d", priority, id, 20-n, want)
			}
		}
		if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		p.ends()
	}
}
