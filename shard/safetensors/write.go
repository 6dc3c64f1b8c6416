package safetensors

import (
	"errors"
	"io"
)

// Tensor is a tensor to write. Values are rounded to DType, which is F32, BF16
// or F16, to the nearest, ties to even.
type Tensor struct {
	Name   string
	DType  DType
	Shape  []int64
	Values []float32
}

// Write writes tensors as the reference implementation does: wider types
// first, then by name, the header padded with spaces to 8 bytes. The bytes
// depend only on the arguments' content, not on the order of tensors.
func Write(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	return errors.ErrUnsupported
}
