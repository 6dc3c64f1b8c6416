package safetensors

import "fmt"

// DType is an element type, by the name it has in a header.
type DType string

// The element types of the format. Only F32, BF16 and F16 can be read as
// float32 here; the others are validated.
const (
	Bool   DType = "BOOL"
	U8     DType = "U8"
	I8     DType = "I8"
	F8E5M2 DType = "F8_E5M2"
	F8E4M3 DType = "F8_E4M3"
	F8E8M0 DType = "F8_E8M0"
	I16    DType = "I16"
	U16    DType = "U16"
	F16    DType = "F16"
	BF16   DType = "BF16"
	I32    DType = "I32"
	U32    DType = "U32"
	F32    DType = "F32"
	C64    DType = "C64"
	F64    DType = "F64"
	I64    DType = "I64"
	U64    DType = "U64"
)

// dtypes lists the types in the order of the reference implementation, which
// writes tensors of later types first.
var dtypes = []struct {
	name DType
	size int64
}{
	{Bool, 1},
	{U8, 1},
	{I8, 1},
	{F8E5M2, 1},
	{F8E4M3, 1},
	{F8E8M0, 1},
	{I16, 2},
	{U16, 2},
	{F16, 2},
	{BF16, 2},
	{I32, 4},
	{U32, 4},
	{F32, 4},
	{C64, 8},
	{F64, 8},
	{I64, 8},
	{U64, 8},
}

// Size returns the bytes of one element, and 0 for an unknown type.
func (d DType) Size() int64 {
	if r := d.rank(); r >= 0 {
		return dtypes[r].size
	}
	return 0
}

func (d DType) rank() int {
	for i, t := range dtypes {
		if t.name == d {
			return i
		}
	}
	return -1
}

// Info says where a tensor is and what it holds.
type Info struct {
	Name  string
	DType DType
	Shape []int64 // empty for a scalar
	// Begin and End bound the tensor's bytes, counted from Header.DataStart.
	Begin, End int64
}

// Elements returns the product of the shape.
func (i Info) Elements() int64 {
	n := int64(1)
	for _, d := range i.Shape {
		n *= d
	}
	return n
}

// String returns the name, type and shape, for errors.
func (i Info) String() string { return fmt.Sprintf("%s %s%v", i.Name, i.DType, i.Shape) }
