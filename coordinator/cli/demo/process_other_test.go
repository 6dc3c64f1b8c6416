//go:build !linux

package demo

// exists is known on Linux only.
func exists(int) bool { return false }
