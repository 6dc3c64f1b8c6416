package safetensors

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
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

// Source is a tensor of any type to write, whose bytes are made only when it is
// their turn.
type Source struct {
	Name  string
	DType DType
	Shape []int64
	// Write writes all bytes of the tensor, little endian.
	Write func(w io.Writer) error
}

// Write writes tensors as the reference implementation does: wider types
// first, then by name, the header padded with spaces to 8 bytes. The bytes
// depend only on the arguments' content, not on the order of tensors.
func Write(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	sources := make([]Source, len(tensors))
	for i, t := range tensors {
		info := Info{Name: t.Name, DType: t.DType, Shape: t.Shape}
		if !isFloat(t.DType) {
			return fmt.Errorf("tensor %s: type cannot be written", info)
		}
		if n, ok := info.bytes(); ok && n != int64(len(t.Values))*t.DType.Size() {
			return fmt.Errorf("tensor %s: %d values", info, len(t.Values))
		}
		sources[i] = Source{t.Name, t.DType, t.Shape, t.write}
	}
	return WriteSources(w, sources, metadata)
}

func (t Tensor) write(w io.Writer) error {
	const chunk = 1 << 18
	var buf []byte
	for part := range slices.Chunk(t.Values, chunk) {
		buf = AppendFloats(buf[:0], part, t.DType)
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

// WriteSources writes what Write would write, one tensor after the other,
// without holding any of them.
func WriteSources(w io.Writer, sources []Source, metadata map[string]string) error {
	sources = slices.Clone(sources)
	slices.SortFunc(sources, func(a, b Source) int {
		if a.DType != b.DType {
			return b.DType.rank() - a.DType.rank()
		}
		return strings.Compare(a.Name, b.Name)
	})
	header, err := makeHeader(sources, metadata)
	if err != nil {
		return err
	}
	if _, err := w.Write(header); err != nil {
		return err
	}
	for _, s := range sources {
		info := Info{Name: s.Name, DType: s.DType, Shape: s.Shape}
		want, _ := info.bytes()
		c := &counter{w: w, left: want}
		if err := s.Write(c); err != nil {
			return fmt.Errorf("write tensor %s: %w", info, err)
		}
		if c.left != 0 {
			return fmt.Errorf("write tensor %s: %d bytes too few", info, c.left)
		}
	}
	return nil
}

// counter refuses more bytes than a tensor has.
type counter struct {
	w    io.Writer
	left int64
}

func (c *counter) Write(b []byte) (int, error) {
	if int64(len(b)) > c.left {
		return 0, fmt.Errorf("%d bytes too many", int64(len(b))-c.left)
	}
	c.left -= int64(len(b))
	return c.w.Write(b)
}

// makeHeader returns the length, the JSON and its padding.
func makeHeader(tensors []Source, metadata map[string]string) ([]byte, error) {
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
		size, err := info.check()
		if err != nil {
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
		if at > math.MaxInt64-size {
			return nil, fmt.Errorf("tensor %s: too many bytes", info)
		}
		at += size
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

// check returns the bytes of a tensor that can be written.
func (i Info) check() (int64, error) {
	switch {
	case i.DType.Size() == 0:
		return 0, fmt.Errorf("tensor %s: unknown type", i)
	case i.Name == metadataKey, !utf8.ValidString(i.Name):
		return 0, fmt.Errorf("tensor %s: not a name", i)
	case len(i.Shape) > maxDims:
		return 0, fmt.Errorf("tensor %s: more than %d dimensions", i, maxDims)
	}
	for _, d := range i.Shape {
		if d < 0 {
			return 0, fmt.Errorf("tensor %s: negative dimension", i)
		}
	}
	n, ok := i.bytes()
	if !ok {
		return 0, fmt.Errorf("tensor %s: too many bytes", i)
	}
	return n, nil
}
