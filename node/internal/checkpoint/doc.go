// Package checkpoint reads and writes the folders in which models are
// published: safetensors with or without an index, the older
// pytorch_model.bin, and bitsandbytes' four-bit tensors. All of it comes from
// strangers. A .bin is a pickle, which elsewhere runs as a program; here only
// the few instructions that describe tensors are understood, nothing is
// executed, and anything else is refused.
//
// Weights are streamed: what is held in memory does not grow with the model.
package checkpoint
