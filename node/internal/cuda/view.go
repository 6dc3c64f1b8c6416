//go:build cuda && cgo

package cuda

import "fmt"

// view is a matrix in device memory, rows stride elements apart. The zero view
// is "none" where an operation allows that.
type view struct {
	ptr                uintptr // address of element (0, 0)
	rows, cols, stride int
	bf16               bool // else float32
}

func (v view) none() bool { return v.ptr == 0 }

// elem returns the bytes of an element.
func (v view) elem() int {
	if v.bf16 {
		return 2
	}
	return 4
}

// at returns the address of element (i, j).
func (v view) at(i, j int) uintptr { return v.ptr + uintptr((i*v.stride+j)*v.elem()) }

// rowRange returns rows i to j, j excluded.
func (v view) rowRange(i, j int) view {
	if i < 0 || j < i || j > v.rows {
		panic(fmt.Sprintf("bug: rows %d to %d of %d", i, j, v.rows))
	}
	v.ptr, v.rows = v.at(i, 0), j-i
	return v
}

// dense reports whether the rows follow each other.
func (v view) dense() bool { return v.stride == v.cols || v.rows <= 1 }

// aligned reports whether each row begins at a multiple of n bytes, so that it
// can be read n bytes at a time.
func (v view) aligned(n int) bool {
	return v.ptr%uintptr(n) == 0 && (v.rows <= 1 || v.stride*v.elem()%n == 0)
}

func mustShape(what string, v view, rows, cols int) {
	if v.rows != rows || v.cols != cols {
		panic(fmt.Sprintf("bug: %s is (%d,%d), want (%d,%d)", what, v.rows, v.cols, rows, cols))
	}
}

// Arguments of kernels are 8 bytes each. A pointer is its address, a number a
// long long; a float is passed as a double.
func ptr(v view) uint64 { return uint64(v.ptr) }
func num(n int) uint64  { return uint64(int64(n)) }

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
