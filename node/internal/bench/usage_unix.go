//go:build unix

package main

import (
	"runtime"
	"syscall"
)

// processorSeconds returns how long this process has computed.
func processorSeconds() float64 {
	u := usage()
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// peakBytes returns the most memory that this process has had.
func peakBytes() int64 {
	u := usage()
	if runtime.GOOS == "darwin" { // bytes there, kibibytes elsewhere
		return u.Maxrss
	}
	return u.Maxrss << 10
}

func usage() (u syscall.Rusage) {
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail with these arguments
	return u
}
