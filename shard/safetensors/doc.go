// Package safetensors reads and writes the safetensors format: named tensors
// behind a JSON header. Files come from strangers, so that everything in a
// header is checked before it is used, and a file that is accepted is one that
// the reference implementation accepts too.
//
// Layout: the header's length as 8 bytes, little endian; the header, a JSON
// object from names to type, shape and data offsets; the data.
package safetensors
