// Package nf4 quantises weights to four bits and back, as QLoRA and
// bitsandbytes do: NormalFloat4 in blocks, each with its largest magnitude as
// scale, and optionally the scales in eight bits ("double quantisation").
//
// What it writes is what bitsandbytes writes on a CPU with one thread, byte
// for byte, and the same on every processor: float32 only, in a fixed order,
// and no product is added to anything without being rounded first (a compiler
// may fuse the two otherwise).
//
// Files are the matter of package checkpoint.
package nf4
