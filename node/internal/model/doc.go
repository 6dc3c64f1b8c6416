// Package model runs transformer language models forward and backward on a
// tensor.Backend. There is one definition of a block; architectures differ by
// data. It reads and writes Hugging Face folders.
package model
