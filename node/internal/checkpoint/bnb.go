package checkpoint

import (
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

// The tensors beside a four-bit tensor W, as bitsandbytes names them.
const (
	suffixState     = ".quant_state.bitsandbytes__"
	suffixAbsMax    = ".absmax"
	suffixMap       = ".quant_map"
	suffixNested    = ".nested_absmax"
	suffixNestedMap = ".nested_quant_map"

	typeNF4       = "nf4"
	maxStateBytes = 4096
)

var dtypeNames = map[safetensors.DType]string{
	safetensors.F32: "float32", safetensors.BF16: "bfloat16", safetensors.F16: "float16",
}

// quantState is what a file says about a four-bit tensor.
type quantState struct {
	dtype        safetensors.DType
	rows, cols   int
	blockSize    int
	nested       bool
	nestedBlock  int
	nestedOffset float32
}

// parseState reads the JSON of a quantisation state.
func parseState(b []byte) (quantState, error) {
	var raw struct {
		Type         string   `json:"quant_type"`
		BlockSize    int      `json:"blocksize"`
		DType        string   `json:"dtype"`
		Shape        []int    `json:"shape"`
		NestedBlock  *int     `json:"nested_blocksize"`
		NestedDType  string   `json:"nested_dtype"`
		NestedOffset *float64 `json:"nested_offset"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return quantState{}, fmt.Errorf("%w: quantisation state: %w", ErrFormat, err)
	}
	s := quantState{blockSize: raw.BlockSize}
	for d, name := range dtypeNames {
		if name == raw.DType {
			s.dtype = d
		}
	}
	switch {
	case raw.Type != typeNF4:
		return s, fmt.Errorf("%w: four-bit type %q, only nf4 is read", ErrUnsupported, raw.Type)
	case s.dtype == "":
		return s, fmt.Errorf("%w: four-bit tensor of type %q", ErrUnsupported, raw.DType)
	case len(raw.Shape) != 2:
		return s, fmt.Errorf("%w: four-bit tensor of shape %v, only matrices are read", ErrUnsupported, raw.Shape)
	case raw.Shape[0] < 1 || raw.Shape[1] < 1 || raw.Shape[0] > math.MaxInt/8/raw.Shape[1]:
		return s, fmt.Errorf("%w: four-bit tensor of shape %v", ErrFormat, raw.Shape)
	}
	s.rows, s.cols = raw.Shape[0], raw.Shape[1]
	if err := nf4.CheckBlockSize(s.blockSize); err != nil {
		return s, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if raw.NestedBlock == nil && raw.NestedOffset == nil {
		return s, nil
	}
	if raw.NestedBlock == nil || raw.NestedOffset == nil || raw.NestedDType != "float32" {
		return s, fmt.Errorf("%w: quantisation state with a part of double quantisation: %.200s", ErrFormat, b)
	}
	if err := nf4.CheckBlockSize(*raw.NestedBlock); err != nil {
		return s, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if math.Abs(*raw.NestedOffset) > math.MaxFloat32 {
		return s, fmt.Errorf("%w: nested_offset %v", ErrFormat, *raw.NestedOffset)
	}
	s.nested, s.nestedBlock, s.nestedOffset = true, *raw.NestedBlock, float32(*raw.NestedOffset)
	return s, nil
}

// marshal writes the JSON byte for byte as bitsandbytes does.
func (s quantState) marshal() []byte {
	b := fmt.Appendf(nil, `{"quant_type": "%s", "blocksize": %d, "dtype": "%s", "shape": [%d, %d]`, typeNF4, s.blockSize, dtypeNames[s.dtype], s.rows, s.cols)
	if s.nested {
		b = fmt.Appendf(b, `, "nested_blocksize": %d, "nested_dtype": "float32", "nested_offset": %s`, s.nestedBlock, pythonFloat(float64(s.nestedOffset)))
	}
	return append(b, '}')
}

// pythonFloat writes a number as Python does.
func pythonFloat(x float64) string {
	if a := math.Abs(x); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(x, 'e', -1, 64)
	}
	text := strconv.FormatFloat(x, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

// readStates finds the four-bit tensors.
func (f *Folder) readStates() error {
	f.states = map[string]quantState{}
	for name, t := range f.raw {
		weight, kind, ok := strings.Cut(name, suffixState)
		if !ok {
			continue
		}
		if kind != typeNF4 {
			return fmt.Errorf("%w: tensor %s is quantised as %q, only nf4 is read", ErrUnsupported, weight, kind)
		}
		if t.DType != safetensors.U8 || t.Bytes() > maxStateBytes {
			return fmt.Errorf("%w: tensor %s is no quantisation state", ErrFormat, t)
		}
		b, err := f.bytes(name)
		if err != nil {
			return err
		}
		s, err := parseState(b)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", weight, err)
		}
		if f.raw[weight].file == nil {
			return fmt.Errorf("%w: tensor %s is missing, its quantisation state is there", ErrFormat, weight)
		}
		f.states[weight] = s
	}
	return nil
}

// partOf reports whether a tensor is beside a four-bit one.
func (f *Folder) partOf(name string) bool {
	if strings.Contains(name, suffixState) {
		return true
	}
	for _, suffix := range []string{suffixNested, suffixNestedMap, suffixAbsMax, suffixMap} {
		if weight, ok := strings.CutSuffix(name, suffix); ok {
			_, ok := f.states[weight]
			return ok
		}
	}
	return false
}

func (f *Folder) bytes(name string) ([]byte, error) {
	t, ok := f.raw[name]
	if !ok {
		return nil, fmt.Errorf("%w: tensor %s is missing", ErrFormat, name)
	}
	r, err := t.file.Data(name)
	if err != nil {
		return nil, err
	}
	b := make([]byte, t.Bytes())
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read tensor %s: %w", t, err)
	}
	return b, nil
}

// floats reads a part that has n numbers.
func (f *Folder) floats(name string, dst []float32) error {
	t := f.raw[name]
	if t.file != nil && (t.DType != safetensors.F32 || t.Elements() != int64(len(dst))) {
		return fmt.Errorf("%w: tensor %s, want %d of type F32", ErrFormat, t, len(dst))
	}
	b, err := f.bytes(name)
	if err != nil {
		return err
	}
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return nil
}

// ReadNF4 reads a tensor that is stored in four bits.
func (f *Folder) ReadNF4(name string) (*nf4.Weight, error) {
	s, ok := f.states[name]
	if !ok {
		return nil, fmt.Errorf("checkpoint %s: tensor %q is not stored in four bits", f.dir, name)
	}
	w, err := f.readNF4(name, s)
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: read %s: %w", f.dir, name, err)
	}
	return w, nil
}

func (f *Folder) readNF4(name string, s quantState) (*nf4.Weight, error) {
	w := &nf4.Weight{Rows: s.rows, Cols: s.cols, BlockSize: s.blockSize}
	blocks := nf4.Blocks(w.Len(), s.blockSize)
	// Sizes are compared before anything is allocated for them. The packed
	// bytes may be stored as another type.
	if t := f.raw[name]; t.Bytes() != int64(nf4.PackedSize(w.Len())) {
		return nil, fmt.Errorf("%w: tensor %s, want %d bytes for (%d,%d)", ErrFormat, t, nf4.PackedSize(w.Len()), s.rows, s.cols)
	}
	var err error
	if w.Packed, err = f.bytes(name); err != nil {
		return nil, err
	}
	if err := f.floats(name+suffixMap, w.Code[:]); err != nil {
		return nil, err
	}
	if s.nested {
		w.Nested, err = f.readNested(name, s, blocks)
	} else {
		w.Scales = make([]float32, blocks)
		err = f.floats(name+suffixAbsMax, w.Scales)
	}
	if err != nil {
		return nil, err
	}
	if err := w.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return w, nil
}

func (f *Folder) readNested(name string, s quantState, blocks int) (*nf4.Nested, error) {
	n := &nf4.Nested{BlockSize: s.nestedBlock, Offset: s.nestedOffset, Scales: make([]float32, nf4.Blocks(blocks, s.nestedBlock))}
	if t := f.raw[name+suffixAbsMax]; t.file != nil && (t.DType != safetensors.U8 || t.Elements() != int64(blocks)) {
		return nil, fmt.Errorf("%w: tensor %s, want %d of type U8", ErrFormat, t, blocks)
	}
	var err error
	if n.Q, err = f.bytes(name + suffixAbsMax); err != nil {
		return nil, err
	}
	if err := f.floats(name+suffixNested, n.Scales); err != nil {
		return nil, err
	}
	return n, f.floats(name+suffixNestedMap, n.Map[:])
}
