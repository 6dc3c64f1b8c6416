//go:build unix

package cpu

import (
	"syscall"
	"time"
)

// processorTime returns how long the process has computed, which other programs
// on the machine change less than the time that passed.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
