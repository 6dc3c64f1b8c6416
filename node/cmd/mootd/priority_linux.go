package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// giveWay lowers the priority of each thread: on Linux it is one of threads.
// Those that are started later take over that of the one that starts them.
func giveWay() error {
	done := map[int]bool{}
	for {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list threads: %w", err)
		}
		more := false
		for _, t := range tasks {
			id, err := strconv.Atoi(t.Name())
			if err != nil || done[id] {
				continue
			}
			done[id], more = true, true
			// The system call returns 20 minus the niceness.
			if now, err := unix.Getpriority(unix.PRIO_PROCESS, id); err == nil && 20-now >= niceness {
				continue // somebody wants even less
			}
			if err := unix.Setpriority(unix.PRIO_PROCESS, id, niceness); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("lower priority: %w", err)
			}
		}
		if !more {
			return nil
		}
	}
}
