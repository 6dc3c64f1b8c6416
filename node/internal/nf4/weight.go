package nf4

import (
	"errors"
	"fmt"
	"math"
)

// Weight is a quantised matrix (Rows, Cols), row-major. Its fields are not
// changed once it is in use, so that any number of goroutines may read it.
type Weight struct {
	Rows, Cols int
	BlockSize  int
	Packed     []byte
	Code       [16]float32 // Code, or what a file says

	// Scales has one number for each block. With double quantisation it is
	// nil, and Nested holds them.
	Scales []float32
	Nested *Nested
}

// Nested are scales in eight bits: Map[Q[b]] * Scales[b/BlockSize] + Offset.
type Nested struct {
	Q         []byte // one for each block of the weight
	Map       [256]float32
	Scales    []float32
	BlockSize int
	Offset    float32
}

// New quantises a matrix, with double quantisation, in blocks of BlockSize.
func New(src []float32, rows, cols int) (*Weight, error) {
	if len(src) != rows*cols {
		return nil, fmt.Errorf("nf4: %d values are no matrix (%d,%d)", len(src), rows, cols)
	}
	blocks := Blocks(len(src), BlockSize)
	w := &Weight{Rows: rows, Cols: cols, BlockSize: BlockSize, Packed: make([]byte, PackedSize(len(src))), Code: Code}
	scales := make([]float32, blocks)
	if err := Quantize(w.Packed, scales, src, BlockSize); err != nil {
		return nil, err
	}
	w.Nested = NewNested(scales)
	return w, nil
}

// NewNested quantises scales.
func NewNested(scales []float32) *Nested {
	n := &Nested{
		Q: make([]byte, len(scales)), Map: DynamicMap, BlockSize: NestedBlockSize,
		Scales: make([]float32, Blocks(len(scales), NestedBlockSize)),
	}
	n.Offset = QuantizeScales(n.Q, n.Scales, scales)
	return n
}

// Len returns the number of values.
func (w *Weight) Len() int { return w.Rows * w.Cols }

// Bytes returns how much memory the weight takes.
func (w *Weight) Bytes() int {
	n := len(w.Packed) + 4*len(w.Scales)
	if w.Nested != nil {
		n += len(w.Nested.Q) + 4*len(w.Nested.Scales) + 4*len(w.Nested.Map)
	}
	return n
}

// Validate checks that all parts have the sizes that the shape asks for, and
// that no value is infinite or NaN.
func (w *Weight) Validate() error {
	if w.Rows < 1 || w.Cols < 1 || w.Rows > math.MaxInt/w.Cols {
		return fmt.Errorf("nf4: shape (%d,%d)", w.Rows, w.Cols)
	}
	if err := CheckBlockSize(w.BlockSize); err != nil {
		return err
	}
	blocks := Blocks(w.Len(), w.BlockSize)
	switch {
	case len(w.Packed) != PackedSize(w.Len()):
		return fmt.Errorf("nf4: %d packed bytes for %d values, want %d", len(w.Packed), w.Len(), PackedSize(w.Len()))
	case !finite(w.Code[:]):
		return errors.New("nf4: a code is not finite")
	case w.Nested == nil && len(w.Scales) != blocks:
		return fmt.Errorf("nf4: %d scales, want %d", len(w.Scales), blocks)
	case w.Nested == nil && !finite(w.Scales):
		return errors.New("nf4: a scale is not finite")
	case w.Nested != nil:
		return w.Nested.validate(blocks)
	}
	return nil
}

func (n *Nested) validate(blocks int) error {
	if err := CheckBlockSize(n.BlockSize); err != nil {
		return fmt.Errorf("scales: %w", err)
	}
	switch want := Blocks(blocks, n.BlockSize); {
	case len(n.Q) != blocks:
		return fmt.Errorf("nf4: %d scales, want %d", len(n.Q), blocks)
	case len(n.Scales) != want:
		return fmt.Errorf("nf4: %d scales of scales, want %d", len(n.Scales), want)
	case !finite(n.Map[:]), !finite(n.Scales), !finite([]float32{n.Offset}):
		return errors.New("nf4: a scale is not finite")
	}
	return nil
}

func finite(v []float32) bool {
	for _, x := range v {
		if math.Float32bits(x)&infinity == infinity {
			return false
		}
	}
	return true
}

// Scale returns the scale of block b.
func (w *Weight) Scale(b int) float32 {
	n := w.Nested
	if n == nil {
		return w.Scales[b]
	}
	// The conversion keeps the product from being fused with the sum.
	return float32(n.Map[n.Q[b]]*n.Scales[b/n.BlockSize]) + n.Offset
}

// DequantRange sets dst to the values from up to, but not including, to, in
// row-major order. It allocates nothing. Ranges that begin and end at a
// multiple of BlockSize are fastest, even numbers nearly so.
func (w *Weight) DequantRange(dst []float32, from, to int) {
	if from < 0 || to < from || to > w.Len() || len(dst) < to-from {
		panic(fmt.Sprintf("bug: nf4: range %d to %d of %d values, room for %d", from, to, w.Len(), len(dst)))
	}
	var values [16]float32
	for from < to {
		b := from / w.BlockSize
		end := min(to, (b+1)*w.BlockSize)
		scale := w.Scale(b)
		for i, c := range w.Code {
			values[i] = c * scale
		}
		if from%2 == 1 {
			dst[0] = values[w.Packed[from/2]&15]
			dst, from = dst[1:], from+1
		}
		packed := w.Packed[from/2 : (end+1)/2]
		n := (end - from) / 2
		unpack(dst[:2*n], packed[:n], &values)
		dst, from = dst[2*n:], from+2*n
		if from < end {
			dst[0] = values[packed[n]>>4]
			dst, from = dst[1:], end
		}
	}
}

func unpack(dst []float32, packed []byte, values *[16]float32) {
	for _, p := range packed {
		pair := dst[:2]
		pair[0], pair[1] = values[p>>4], values[p&15]
		dst = dst[2:]
	}
}

// Dequant sets dst to all values.
func (w *Weight) Dequant(dst []float32) { w.DequantRange(dst, 0, w.Len()) }

// DequantRows sets dst to whole rows of the matrix.
func (w *Weight) DequantRows(dst []float32, from, to int) {
	w.DequantRange(dst, from*w.Cols, to*w.Cols)
}
