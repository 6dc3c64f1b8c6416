//go:build unix && !linux

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// giveWay lowers the priority of the process.
func giveWay() error {
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, niceness); err != nil {
		return fmt.Errorf("lower priority: %w", err)
	}
	return nil
}
