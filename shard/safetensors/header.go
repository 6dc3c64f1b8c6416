package safetensors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// MaxHeaderBytes bounds the JSON of a header, as in the reference
// implementation.
const MaxHeaderBytes = 100_000_000

const (
	lengthBytes = 8
	maxDims     = 64
	metadataKey = "__metadata__"
)

// ErrFormat is wrapped by every error about a file that breaks the format.
var ErrFormat = errors.New("invalid safetensors")

// Header is a validated header: every tensor lies inside the file, tensors
// follow one another without gaps or overlaps, and sizes agree with shapes.
type Header struct {
	Tensors   []Info // in the order of their data
	Metadata  map[string]string
	DataStart int64 // offset of the data in the file
	DataBytes int64

	byName map[string]int
}

// ReadHeader reads and validates the header of a file of size bytes. It
// allocates in proportion to the header's length, which is bounded by size and
// by MaxHeaderBytes.
func ReadHeader(r io.ReaderAt, size int64) (*Header, error) {
	if size < lengthBytes {
		return nil, fmt.Errorf("%w: %d bytes are too few", ErrFormat, size)
	}
	var length [lengthBytes]byte
	if err := readFull(r, length[:], 0); err != nil {
		return nil, fmt.Errorf("read header length: %w", err)
	}
	n := binary.LittleEndian.Uint64(length[:])
	switch {
	case n > MaxHeaderBytes:
		return nil, fmt.Errorf("%w: header of %d bytes, at most %d", ErrFormat, n, MaxHeaderBytes)
	case int64(n) > size-lengthBytes:
		return nil, fmt.Errorf("%w: header of %d bytes in a file of %d", ErrFormat, n, size)
	}
	b := make([]byte, n)
	if err := readFull(r, b, lengthBytes); err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	h, err := parseHeader(b)
	if err != nil {
		return nil, err
	}
	h.DataStart = lengthBytes + int64(n)
	h.DataBytes = size - h.DataStart
	if err := h.validate(); err != nil {
		return nil, err
	}
	return h, nil
}

func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Lookup finds a tensor by name.
func (h *Header) Lookup(name string) (Info, bool) {
	i, ok := h.byName[name]
	if !ok {
		return Info{}, false
	}
	return h.Tensors[i], true
}

func parseHeader(b []byte) (*Header, error) {
	h := &Header{Metadata: map[string]string{}, byName: map[string]int{}}
	s := &scanner{b: b}
	if len(b) == 0 || b[0] != '{' {
		return nil, s.errorf("a header starts with {")
	}
	sawMetadata := false
	err := s.object(func(key string) error {
		if key == metadataKey {
			if sawMetadata {
				return s.errorf("%s appears twice", metadataKey)
			}
			sawMetadata = true
			return s.metadata(h.Metadata)
		}
		if _, ok := h.byName[key]; ok {
			return s.errorf("tensor %q appears twice", key)
		}
		h.byName[key] = -1
		info, err := s.info(key)
		h.Tensors = append(h.Tensors, info)
		return err
	})
	if err != nil {
		return nil, err
	}
	if s.space(); s.pos != len(b) {
		return nil, s.errorf("something after the header")
	}
	return h, nil
}

func (s *scanner) metadata(m map[string]string) error {
	return s.object(func(key string) error {
		if _, ok := m[key]; ok {
			return s.errorf("metadata %q appears twice", key)
		}
		value, err := s.str()
		m[key] = value
		return err
	})
}

func (s *scanner) info(name string) (Info, error) {
	info := Info{Name: name, Begin: -1}
	err := s.object(func(key string) error {
		switch {
		case key == "dtype" && info.DType == "":
			text, err := s.str()
			if err == nil && DType(text).Size() == 0 {
				err = s.errorf("tensor %q: unknown dtype %q", name, text)
			}
			info.DType = DType(text)
			return err
		case key == "shape" && info.Shape == nil:
			var err error
			info.Shape, err = s.integers(maxDims)
			return err
		case key == "data_offsets" && info.Begin < 0:
			o, err := s.integers(2)
			if err == nil && len(o) != 2 {
				err = s.errorf("tensor %q: data_offsets are two numbers", name)
			}
			if err == nil {
				info.Begin, info.End = o[0], o[1]
			}
			return err
		}
		return s.errorf("tensor %q: field %q is unknown or appears twice", name, key)
	})
	if err == nil && (info.DType == "" || info.Shape == nil || info.Begin < 0) {
		err = s.errorf("tensor %q: dtype, shape or data_offsets is missing", name)
	}
	return info, err
}

// validate sorts the tensors by offset and checks that they tile the data.
func (h *Header) validate() error {
	slices.SortStableFunc(h.Tensors, func(a, b Info) int {
		if a.Begin != b.Begin {
			return compare(a.Begin, b.Begin)
		}
		return compare(a.End, b.End)
	})
	at := int64(0)
	for i, t := range h.Tensors {
		h.byName[t.Name] = i
		if t.Begin != at || t.End < t.Begin {
			return fmt.Errorf("%w: tensor %q has bytes %d to %d, want it to start at %d", ErrFormat, t.Name, t.Begin, t.End, at)
		}
		want, ok := t.bytes()
		if !ok || want != t.End-t.Begin {
			return fmt.Errorf("%w: tensor %s has %d bytes", ErrFormat, t, t.End-t.Begin)
		}
		at = t.End
	}
	if at != h.DataBytes {
		return fmt.Errorf("%w: tensors have %d bytes, the file has %d", ErrFormat, at, h.DataBytes)
	}
	return nil
}

func compare(a, b int64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// bytes returns the size that the shape and type ask for; ok is false when it
// does not fit.
func (i Info) bytes() (n int64, ok bool) {
	n = i.DType.Size()
	for _, d := range i.Shape {
		if d != 0 && n > math.MaxInt64/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}
