package tensor

import (
	"fmt"
	"math"
)

// DType is how a backend keeps the values of a buffer. What goes in and comes
// out by Upload and Download is float32.
type DType uint8

const (
	// Float32 is the type of everything but activations.
	Float32 DType = iota
	// BFloat16 is the upper half of float32, rounded to nearest, to even.
	BFloat16
)

// Bytes returns how much memory a value takes.
func (t DType) Bytes() int {
	if t == BFloat16 {
		return 2
	}
	return 4
}

// Buffer is memory of a backend.
type Buffer struct {
	Len  int
	Type DType
	// Host holds the values of a backend that computes in the host's memory.
	Host []float32
	// Packed holds them instead where a buffer is only read.
	Packed Packed
	// Device is for a backend that keeps them elsewhere.
	Device any
}

// Packed holds values that are only read in less memory than float32 takes:
// BF16, or weights of four bits (package nf4).
type Packed interface {
	Len() int
	// DequantRange sets dst to the values from up to, but not including, to.
	// Several goroutines may call it at once.
	DequantRange(dst []float32, from, to int)
}

// BF16 are bfloat16 values, which are the upper halves of float32 ones.
type BF16 []uint16

// Len returns the number of values.
func (v BF16) Len() int { return len(v) }

// DequantRange sets dst to the values from up to, but not including, to.
func (v BF16) DequantRange(dst []float32, from, to int) {
	dst = dst[:to-from]
	for i, x := range v[from:to] {
		dst[i] = math.Float32frombits(uint32(x) << 16)
	}
}

// Mat is a row-major view of a buffer. Element (i, j) is value
// Off + i*Stride + j. The zero Mat is "none" where an operation allows that.
type Mat struct {
	Buf                     *Buffer
	Off, Rows, Cols, Stride int
}

// Mat returns a dense view of rows*cols values from off on.
func (b *Buffer) Mat(off, rows, cols int) Mat {
	if off < 0 || rows < 0 || cols < 0 || off+rows*cols > b.Len {
		panic(fmt.Sprintf("bug: view of (%d,%d) at %d in a buffer of %d", rows, cols, off, b.Len))
	}
	return Mat{Buf: b, Off: off, Rows: rows, Cols: cols, Stride: cols}
}

// Vec returns all values as one row.
func (b *Buffer) Vec() Mat { return b.Mat(0, 1, b.Len) }

// None reports whether m is the zero Mat.
func (m Mat) None() bool { return m.Buf == nil }

// RowRange returns rows i to j, j excluded.
func (m Mat) RowRange(i, j int) Mat {
	if i < 0 || j < i || j > m.Rows {
		panic(fmt.Sprintf("bug: rows %d to %d of %d", i, j, m.Rows))
	}
	m.Off, m.Rows = m.Off+i*m.Stride, j-i
	return m
}

// ColRange returns columns i to j, j excluded.
func (m Mat) ColRange(i, j int) Mat {
	if i < 0 || j < i || j > m.Cols {
		panic(fmt.Sprintf("bug: columns %d to %d of %d", i, j, m.Cols))
	}
	m.Off, m.Cols = m.Off+i, j-i
	return m
}

// Reshape returns a dense matrix with other numbers of rows and columns.
func (m Mat) Reshape(rows, cols int) Mat {
	if m.Stride != m.Cols || rows*cols != m.Rows*m.Cols {
		panic(fmt.Sprintf("bug: (%d,%d), rows %d apart, as (%d,%d)", m.Rows, m.Cols, m.Stride, rows, cols))
	}
	m.Rows, m.Cols, m.Stride = rows, cols, cols
	return m
}

// Host returns the values from element (0, 0) to the last one, rows Stride
// apart. The buffer must be in the host's memory.
func (m Mat) Host() []float32 {
	if m.Rows == 0 || m.Cols == 0 {
		return nil
	}
	return m.Buf.Host[m.Off : m.Off+(m.Rows-1)*m.Stride+m.Cols]
}

// HostRow returns row i.
func (m Mat) HostRow(i int) []float32 {
	at := m.Off + i*m.Stride
	return m.Buf.Host[at : at+m.Cols : at+m.Cols]
}
