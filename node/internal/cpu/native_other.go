//go:build !amd64

package cpu

// native returns the fastest kernels that this processor runs, or nil.
func native() *kernels { return nil }
