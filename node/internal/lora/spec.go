package lora

import "errors"

// Spec says which linear layers get an adapter, and of what kind.
type Spec struct {
	Rank  int
	Alpha int
	// Targets are the names of layers ("q_proj", "layers.0.mlp.up_proj"): a
	// layer is a target when its path is the name or ends with "." and it.
	Targets []string
}

// Module is a linear layer of a model: its path in the checkpoint without
// ".weight" ("model.layers.0.self_attn.q_proj") and its width.
type Module struct {
	Path    string
	In, Out int
}

// TensorInfo is a tensor of an adapter. A is (rank, in), B is (out, rank).
type TensorInfo struct {
	Name       string // as PEFT names it in adapter_model.safetensors
	Rows, Cols int
}

// Layout lists the tensors that s makes on modules, sorted bytewise by name.
// Laid out row-major one after the other they are the adapter's parameters.
func (s Spec) Layout(modules []Module) ([]TensorInfo, error) { return nil, errors.ErrUnsupported }

// Params returns the number of parameters of a layout.
func Params(layout []TensorInfo) int {
	n := 0
	for _, t := range layout {
		n += t.Rows * t.Cols
	}
	return n
}
