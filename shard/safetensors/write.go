package safetensors

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
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
	tensors = slices.Clone(tensors)
	slices.SortFunc(tensors, func(a, b Tensor) int {
		if a.DType != b.DType {
			return b.DType.rank() - a.DType.rank()
		}
		return strings.Compare(a.Name, b.Name)
	})
	header, err := makeHeader(tensors, metadata)
	if err != nil {
		return err
	}
	if _, err := w.Write(header); err != nil {
		return err
	}
	const chunk = 1 << 18
	var buf []byte
	for _, t := range tensors {
		for part := range slices.Chunk(t.Values, chunk) {
			buf = appendFloats(buf[:0], part, t.DType)
			if _, err := w.Write(buf); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeHeader returns the length, the JSON and its padding.
func makeHeader(tensors []Tensor, metadata map[string]string) ([]byte, error) {
	b := append(make([]byte, lengthBytes), '{')
	if len(metadata) > 0 {
		b = append(appendString(b, metadataKey), ":{"...)
		for i, k := range slices.Sorted(maps.Keys(metadata)) {
			if !utf8.ValidString(k) || !utf8.ValidString(metadata[k]) {
				return nil, fmt.Errorf("metadata %q is not UTF-8", k)
			}
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(append(appendString(b, k), ':'), metadata[k])
		}
		b = append(b, '}')
	}
	at := int64(0)
	seen := make(map[string]bool, len(tensors))
	for i, t := range tensors {
		info := Info{Name: t.Name, DType: t.DType, Shape: t.Shape}
		if err := t.check(info); err != nil {
			return nil, err
		}
		if seen[t.Name] {
			return nil, fmt.Errorf("tensor %q is given twice", t.Name)
		}
		seen[t.Name] = true
		if i > 0 || len(metadata) > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, t.Name), `:{"dtype":"`...)
		b = append(append(b, t.DType...), `","shape":[`...)
		for j, d := range t.Shape {
			if j > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, d, 10)
		}
		b = append(b, `],"data_offsets":[`...)
		b = strconv.AppendInt(b, at, 10)
		at += int64(len(t.Values)) * t.DType.Size()
		b = append(strconv.AppendInt(append(b, ','), at, 10), "]}"...)
	}
	b = append(b, '}')
	for len(b)%8 != 0 {
		b = append(b, ' ')
	}
	if len(b)-lengthBytes > MaxHeaderBytes {
		return nil, fmt.Errorf("header of %d bytes, at most %d", len(b), MaxHeaderBytes)
	}
	binary.LittleEndian.PutUint64(b, uint64(len(b)-lengthBytes))
	return b, nil
}

func (t Tensor) check(info Info) error {
	switch {
	case !isFloat(t.DType):
		return fmt.Errorf("tensor %s: type cannot be written", info)
	case t.Name == metadataKey, !utf8.ValidString(t.Name):
		return fmt.Errorf("tensor %s: not a name", info)
	case len(t.Shape) > maxDims:
		return fmt.Errorf("tensor %s: more than %d dimensions", info, maxDims)
	}
	for _, d := range t.Shape {
		if d < 0 {
			return fmt.Errorf("tensor %s: negative dimension", info)
		}
	}
	if n, ok := info.bytes(); !ok || n != int64(len(t.Values))*t.DType.Size() {
		return fmt.Errorf("tensor %s: %d values", info, len(t.Values))
	}
	return nil
}
