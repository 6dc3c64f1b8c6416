package fold

import "errors"

// ChunkValues is the number of values that share a scale. A chunk never
// crosses the end of a tensor, so the last one of a tensor may be shorter.
const ChunkValues = 4096

// Tensor is one tensor of the adapter, row-major.
type Tensor struct {
	Name string // as PEFT names it in adapter_model.safetensors
	Rows int
	Cols int
}

// Layout says where each tensor lies in the vector of all parameters. It does
// not change after NewLayout.
type Layout struct {
	tensors []Tensor
	offsets []int
	params  int
}

// NewLayout checks the tensors: names sorted bytewise, each once, dimensions
// positive, not more than MaxParams values in all.
func NewLayout(tensors []Tensor) (*Layout, error) { return nil, errors.New("layout") }

// Params returns the number of values in all tensors.
func (l *Layout) Params() int { return l.params }

// Len returns the number of tensors.
func (l *Layout) Len() int { return len(l.tensors) }

// Tensor returns the i-th tensor.
func (l *Layout) Tensor(i int) Tensor { return l.tensors[i] }

// Offset returns the index of the i-th tensor's first value.
func (l *Layout) Offset(i int) int { return l.offsets[i] }
