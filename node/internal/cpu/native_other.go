//go:build !amd64 && !arm64

package cpu

// native returns the sets of kernels that this processor runs, the fastest
// last.
func native() []kernels { return nil }
