// Package cpu is the tensor.Backend that computes on the host's processor.
//
// Everything is built on a table of small kernels (kernels), of which there is
// a portable set in Go and sets in assembly, for amd64 with AVX2 and FMA, with
// AVX-512 and with AVX512_BF16, and for arm64, chosen when a Backend is made.
// Work is cut into tasks along rows or tiles of
// the result, never along a sum, so that results do not depend on the number
// of threads. After the first steps have sized the scratch memory nothing is
// allocated.
package cpu
