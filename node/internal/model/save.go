package model

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moot-net/moot/shard/safetensors"
)

var dtypeNames = map[safetensors.DType]string{
	safetensors.F32: "float32", safetensors.BF16: "bfloat16", safetensors.F16: "float16",
}

// Save writes a Hugging Face folder: config.json, generation_config.json and
// model.safetensors with weights of the given type. Files of a tokenizer are
// the caller's. The bytes depend on the model alone.
func (m *Model) Save(dir string, dtype safetensors.DType) error {
	if err := m.save(dir, dtype); err != nil {
		return fmt.Errorf("save model %s: %w", dir, err)
	}
	return nil
}

func (m *Model) save(dir string, dtype safetensors.DType) error {
	name, ok := dtypeNames[dtype]
	if !ok {
		return fmt.Errorf("%w: weights of type %s", ErrUnsupported, dtype)
	}
	config, err := m.cfg.marshal(name)
	if err != nil {
		return err
	}
	generation := struct {
		BOS *int32 `json:"bos_token_id,omitempty"`
		EOS any    `json:"eos_token_id,omitempty"`
	}{EOS: eosValue(m.cfg.EOS)}
	if m.cfg.BOS >= 0 {
		generation.BOS = &m.cfg.BOS
	}
	generationConfig, err := marshalIndent(generation)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tensors := make([]safetensors.Tensor, 0, len(m.params))
	for _, p := range m.params {
		tensors = append(tensors, safetensors.Tensor{Name: p.Name, DType: dtype, Shape: p.Shape, Values: m.Stored(p)})
	}
	if err := writeTensors(filepath.Join(dir, weightsFile), tensors); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "generation_config.json"), generationConfig, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644)
}

// Stored returns the values of a parameter as the checkpoint has them, of the
// shape p.Shape.
func (m *Model) Stored(p Param) []float32 {
	values := make([]float32, p.Value.Rows*p.Value.Cols)
	m.b.Download(values, p.Value)
	return p.Stored(values)
}

// Stored returns values in the order in which the model has those of the
// parameter, in that of the checkpoint.
func (p Param) Stored(values []float32) []float32 {
	if p.transposed {
		return transpose(values, p.Value.Rows, p.Value.Cols)
	}
	return values
}

// transpose returns the transpose of a dense matrix.
func transpose[T any](x []T, rows, cols int) []T {
	y := make([]T, len(x))
	for i := range rows {
		for j, v := range x[i*cols : (i+1)*cols] {
			y[j*rows+i] = v
		}
	}
	return y
}

func writeTensors(path string, tensors []safetensors.Tensor) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	if err := safetensors.Write(w, tensors, map[string]string{"format": "pt"}); err != nil {
		f.Close()
		return err
	}
	if err := w.Flush(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
