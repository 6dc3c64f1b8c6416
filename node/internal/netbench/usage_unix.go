//go:build unix

package main

import (
	"runtime"
	"syscall"
)

// usage returns how long this process has computed, and the most memory that
// it has had, in bytes.
func usage() (seconds float64, peak int64) {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail with these arguments
	peak = u.Maxrss
	if runtime.GOOS != "darwin" { // bytes there, kibibytes elsewhere
		peak <<= 10
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9, peak
}
