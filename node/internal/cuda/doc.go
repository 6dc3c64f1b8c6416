// Package cuda computes on an NVIDIA GPU: tensor.Backend over the driver API,
// through gorgonia.org/cu, with kernels that are shipped as PTX. It needs the
// driver and nothing else on the user's machine, and nothing of NVIDIA's to be
// built.
//
// Without the build tag cuda, or without cgo, Open is an error that says how to
// get the real one.
//
// See README.md for how it is put together, and how it is tested without a GPU.
package cuda
