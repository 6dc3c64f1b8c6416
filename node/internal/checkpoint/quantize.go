package checkpoint

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/shard/safetensors"
)

// QuantizeOptions say how a checkpoint is quantised.
type QuantizeOptions struct {
	// MaxShardBytes is the size from which a new file is begun. Default
	// MaxShardBytes.
	MaxShardBytes int64
}

// rowBlock is how many values are in memory at a time: whole blocks of 64.
const rowBlock = 1 << 20

// Quantize writes the checkpoint in src as bitsandbytes does with NF4 and
// double quantisation: the linear layers of the blocks in four bits,
// embeddings, norms, biases and the output layer as they are. dst is empty or
// does not exist. The bytes depend on the content of src and the options
// alone. The weights are read twice and never held: memory is a few hundred
// megabytes for a model of any size.
func Quantize(ctx context.Context, src, dst string, o QuantizeOptions, progress func(done, total int64)) error {
	if err := quantize(ctx, src, dst, o, progress); err != nil {
		return fmt.Errorf("quantise %s: %w", src, err)
	}
	return nil
}

func quantize(ctx context.Context, src, dst string, o QuantizeOptions, progress func(done, total int64)) error {
	c, err := ReadConfig(src)
	if err != nil {
		return err
	}
	if v := c["quantization_config"]; len(v) > 0 && string(v) != "null" {
		return fmt.Errorf("%w: it is quantised already; use the 16-bit one", ErrUnsupported)
	}
	if kind := c.Text("model_type"); kind == "gpt2" {
		return fmt.Errorf("%w: %s keeps its weights transposed, which four-bit checkpoints do not", ErrUnsupported, kind)
	}
	f, err := Open(src)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	groups, compute, err := f.quantized()
	if err != nil {
		return err
	}
	if err := NewFolder(dst); err != nil {
		return err
	}
	if err := WriteShards(ctx, dst, groups, WriteOptions{MaxShardBytes: o.MaxShardBytes, Progress: progress}); err != nil {
		return err
	}
	if err := CopyRest(dst, src); err != nil {
		return err
	}
	if c["quantization_config"], err = json.Marshal(quantizationConfig(compute)); err != nil {
		return err
	}
	return c.Write(dst)
}

// quantized returns what to write, and the type of the weights.
func (f *Folder) quantized() (groups []Group, compute safetensors.DType, err error) {
	for _, t := range f.list {
		switch {
		case t.NF4:
			return nil, "", fmt.Errorf("%w: tensor %s is quantised already", ErrUnsupported, t)
		case !Quantizable(t):
			groups = append(groups, f.Plain(t))
			continue
		}
		if compute == "" {
			compute = t.DType
		}
		n := t.Elements()
		groups = append(groups, Group{
			Bytes: n/2 + n/nf4.BlockSize + n/4096 + 2048,
			Prepare: func() ([]safetensors.Source, error) {
				return f.quantizeTensor(t)
			},
		})
	}
	if compute == "" {
		return nil, "", fmt.Errorf("%w: no linear layers of blocks with weights of 16 or 32 bits", ErrUnsupported)
	}
	return groups, compute, nil
}

// Quantizable reports whether a tensor is the weight of a linear layer of a
// block: a matrix, with the number of a block in its name. In the blocks of
// the known architectures nothing else is a matrix.
func Quantizable(t Tensor) bool {
	path, ok := strings.CutSuffix(t.Name, ".weight")
	if !ok || len(t.Shape) != 2 || t.Elements() == 0 || !isFloat(t.DType) {
		return false
	}
	numbered := false
	for _, part := range strings.Split(path, ".") {
		if _, err := strconv.Atoi(part); err == nil {
			numbered = true
		}
		if strings.Contains(part, "norm") || strings.Contains(part, "embed") || part == "lm_head" {
			return false
		}
	}
	return numbered
}

// quantizeTensor reads a tensor once for its scales, and makes the sources
// that read it again for the packed values.
func (f *Folder) quantizeTensor(t Tensor) ([]safetensors.Source, error) {
	if t.Elements() > math.MaxInt32*64 || t.Shape[0] > math.MaxInt32 || t.Shape[1] > math.MaxInt32 {
		return nil, fmt.Errorf("%w: tensor %s is too large", ErrUnsupported, t)
	}
	n := int(t.Elements())
	scales := make([]float32, nf4.Blocks(n, nf4.BlockSize))
	err := f.blocks(t, func(at int, values []float32) error {
		return nf4.AbsMax(scaleRange(scales, at, len(values)), values, nf4.BlockSize)
	})
	if err != nil {
		return nil, err
	}
	nested := nf4.NewNested(scales)
	state := quantState{
		dtype: t.DType, rows: int(t.Shape[0]), cols: int(t.Shape[1]), blockSize: nf4.BlockSize,
		nested: true, nestedBlock: nf4.NestedBlockSize, nestedOffset: nested.Offset,
	}.marshal()
	return []safetensors.Source{
		{Name: t.Name, DType: safetensors.U8, Shape: []int64{int64(nf4.PackedSize(n)), 1}, Write: func(w io.Writer) error {
			packed, scales := make([]byte, rowBlock/2), make([]float32, rowBlock/nf4.BlockSize)
			return f.blocks(t, func(_ int, values []float32) error {
				p := packed[:nf4.PackedSize(len(values))]
				if err := nf4.Quantize(p, scales[:nf4.Blocks(len(values), nf4.BlockSize)], values, nf4.BlockSize); err != nil {
					return err
				}
				_, err := w.Write(p)
				return err
			})
		}},
		vector(t.Name+suffixAbsMax, safetensors.U8, nested.Q),
		vector(t.Name+suffixMap, safetensors.F32, floatBytes(nf4.Code[:])),
		vector(t.Name+suffixNested, safetensors.F32, floatBytes(nested.Scales)),
		vector(t.Name+suffixNestedMap, safetensors.F32, floatBytes(nf4.DynamicMap[:])),
		vector(t.Name+suffixState+typeNF4, safetensors.U8, state),
	}, nil
}

// scaleRange returns the scales of n values from at.
func scaleRange(scales []float32, at, n int) []float32 {
	first := at / nf4.BlockSize
	return scales[first : first+nf4.Blocks(n, nf4.BlockSize)]
}

// AsNF4 quantises a matrix as Quantize does, without the unquantised one ever
// being in memory as a whole. One that is stored in four bits is only read.
func (f *Folder) AsNF4(name string) (*nf4.Weight, error) {
	t, ok := f.Lookup(name)
	switch {
	case ok && t.NF4:
		return f.ReadNF4(name)
	case !ok || len(t.Shape) != 2 || t.Elements() > math.MaxInt32*64:
		return nil, fmt.Errorf("checkpoint %s: no matrix %q", f.dir, name)
	}
	n := int(t.Elements())
	w := &nf4.Weight{Rows: int(t.Shape[0]), Cols: int(t.Shape[1]), BlockSize: nf4.BlockSize, Packed: make([]byte, nf4.PackedSize(n)), Code: nf4.Code}
	scales := make([]float32, nf4.Blocks(n, nf4.BlockSize))
	err := f.blocks(t, func(at int, values []float32) error {
		return nf4.Quantize(w.Packed[at/2:at/2+nf4.PackedSize(len(values))], scaleRange(scales, at, len(values)), values, nf4.BlockSize)
	})
	w.Nested = nf4.NewNested(scales)
	return w, err
}

// blocks calls fn with the values of a tensor, rowBlock at a time.
func (f *Folder) blocks(t Tensor, fn func(at int, values []float32) error) error {
	v, err := f.Values(t.Name)
	if err != nil {
		return err
	}
	buf := make([]float32, min(rowBlock, t.Elements()))
	for at := int64(0); at < t.Elements(); at += rowBlock {
		part := buf[:min(rowBlock, t.Elements()-at)]
		if err := v.Read(part); err != nil {
			return err
		}
		if err := fn(int(at), part); err != nil {
			return fmt.Errorf("tensor %s: %w", t, err)
		}
	}
	return nil
}

func vector(name string, d safetensors.DType, b []byte) safetensors.Source {
	return safetensors.Source{Name: name, DType: d, Shape: []int64{int64(len(b)) / d.Size()}, Write: func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	}}
}

func floatBytes(v []float32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// quantizationConfig is what transformers writes for NF4 with double
// quantisation.
func quantizationConfig(compute safetensors.DType) map[string]any {
	return map[string]any{
		"_load_in_4bit": true, "_load_in_8bit": false, "load_in_4bit": true, "load_in_8bit": false,
		"bnb_4bit_compute_dtype": dtypeNames[compute], "bnb_4bit_quant_storage": "uint8",
		"bnb_4bit_quant_type": typeNF4, "bnb_4bit_use_double_quant": true,
		"llm_int8_enable_fp32_cpu_offload": false, "llm_int8_has_fp16_weight": false,
		"llm_int8_skip_modules": nil, "llm_int8_threshold": json.Number("6.0"),
		"quant_method": "bitsandbytes",
	}
}
