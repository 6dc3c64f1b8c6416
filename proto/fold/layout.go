package fold

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// The bounds of a layout.
const (
	// ChunkValues is the number of values that share a scale. A chunk never
	// crosses the end of a tensor, so the last one of a tensor may be shorter.
	ChunkValues = 4096

	MaxParams    = 1 << 28 // values in all tensors
	MaxTensors   = 1 << 13
	MaxNameBytes = 256 // of a tensor's name
)

// Tensor is one tensor of the adapter, row-major.
type Tensor struct {
	Name string // as PEFT names it in adapter_model.safetensors
	Rows int
	Cols int
}

// Layout says where each tensor lies in the vector of all parameters. It does
// not change after NewLayout.
type Layout struct {
	tensors []Tensor
	offsets []int // first value of each tensor
	params  int
	chunks  []chunk
	bytes   []byte            // canonical
	digest  [sha256.Size]byte // of bytes
}

// chunk is a run of at most ChunkValues values of one tensor.
type chunk struct {
	tensor int
	start  int // first value
	n      int
}

// NewLayout checks the tensors: names of printable ASCII sorted bytewise, each
// once, dimensions positive, not more than MaxParams values in all.
func NewLayout(tensors []Tensor) (*Layout, error) {
	if len(tensors) == 0 || len(tensors) > MaxTensors {
		return nil, fmt.Errorf("layout: tensors are %d, must be 1 to %d", len(tensors), MaxTensors)
	}
	l := &Layout{tensors: append([]Tensor(nil), tensors...)}
	for i, t := range l.tensors {
		if err := checkName(t.Name); err != nil {
			return nil, err
		}
		if i > 0 && l.tensors[i-1].Name >= t.Name {
			return nil, fmt.Errorf("layout: tensor %s is out of order or there twice", t.Name)
		}
		// The bound on Rows comes first, so that the division is safe and the
		// product cannot overflow.
		room := MaxParams - l.params
		if t.Rows < 1 || t.Cols < 1 || t.Rows > room || t.Cols > room/t.Rows {
			return nil, fmt.Errorf("layout: tensor %s is %d x %d, must be at least 1 x 1 and at most %d values in all",
				t.Name, t.Rows, t.Cols, MaxParams)
		}
		l.offsets = append(l.offsets, l.params)
		l.addChunks(i, t.Rows*t.Cols)
		l.params += t.Rows * t.Cols
	}
	l.bytes = appendLayout(nil, l.tensors)
	l.digest = sha256.Sum256(l.bytes)
	return l, nil
}

func checkName(name string) error {
	if len(name) == 0 || len(name) > MaxNameBytes {
		return fmt.Errorf("layout: a tensor's name has %d bytes, must have 1 to %d", len(name), MaxNameBytes)
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] > '~' {
			return fmt.Errorf("layout: tensor name %q must be printable ASCII without spaces", name)
		}
	}
	return nil
}

func (l *Layout) addChunks(tensor, n int) {
	for start := 0; start < n; start += ChunkValues {
		l.chunks = append(l.chunks, chunk{tensor: tensor, start: l.params + start, n: min(ChunkValues, n-start)})
	}
}

// appendLayout appends the canonical bytes of a layout: the number of tensors,
// then for each the length of its name, the name, rows and columns.
func appendLayout(b []byte, tensors []Tensor) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(tensors)))
	for _, t := range tensors {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(t.Name)))
		b = append(b, t.Name...)
		b = binary.LittleEndian.AppendUint32(b, uint32(t.Rows))
		b = binary.LittleEndian.AppendUint32(b, uint32(t.Cols))
	}
	return b
}

// Params returns the number of values in all tensors.
func (l *Layout) Params() int { return l.params }

// Len returns the number of tensors.
func (l *Layout) Len() int { return len(l.tensors) }

// Tensor returns the i-th tensor.
func (l *Layout) Tensor(i int) Tensor { return l.tensors[i] }

// Offset returns the index of the i-th tensor's first value.
func (l *Layout) Offset(i int) int { return l.offsets[i] }

// Equal reports whether both have the same tensors.
func (l *Layout) Equal(other *Layout) bool { return l == other || l.digest == other.digest }
