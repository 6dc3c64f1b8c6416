// Package kernels holds the sources of the GPU's kernels, for the emulated
// driver that tests compile them into. What a GPU gets is in ptx/.
package kernels

import "embed"

// Sources are the .cu files and their headers.
//
//go:embed *.cu *.cuh
var Sources embed.FS
