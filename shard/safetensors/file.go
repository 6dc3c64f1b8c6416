package safetensors

import (
	"fmt"
	"io"
	"os"
)

// File is an open file. Its methods may be called from several goroutines.
type File struct {
	f      *os.File
	header *Header
}

// Open opens a file and validates its header.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	h, err := ReadHeader(f, st.Size())
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &File{f: f, header: h}, nil
}

// Header returns the header. The caller must not change it.
func (f *File) Header() *Header { return f.header }

// ReadFloat32 reads an F32, BF16 or F16 tensor into dst, whose length must be
// the number of elements.
func (f *File) ReadFloat32(name string, dst []float32) error {
	info, ok := f.header.Lookup(name)
	switch {
	case !ok:
		return fmt.Errorf("%s: no tensor %q", f.f.Name(), name)
	case !isFloat(info.DType):
		return fmt.Errorf("%s: tensor %s cannot be read as float32", f.f.Name(), info)
	case info.Elements() != int64(len(dst)):
		return fmt.Errorf("%s: tensor %s has %d elements, want %d", f.f.Name(), info, info.Elements(), len(dst))
	}
	size := int(info.DType.Size())
	buf := make([]byte, min(len(dst)*size, 1<<20))
	off := f.header.DataStart + info.Begin
	for len(dst) > 0 {
		n := min(len(dst), len(buf)/size)
		if err := readFull(f.f, buf[:n*size], off); err != nil {
			return fmt.Errorf("%s: read tensor %s: %w", f.f.Name(), info, err)
		}
		DecodeFloats(dst[:n], buf, info.DType)
		dst, off = dst[n:], off+int64(n*size)
	}
	return nil
}

// ReadTensor is like ReadFloat32 and allocates the result.
func (f *File) ReadTensor(name string) ([]float32, Info, error) {
	info, ok := f.header.Lookup(name)
	if !ok {
		return nil, Info{}, fmt.Errorf("%s: no tensor %q", f.f.Name(), name)
	}
	values := make([]float32, info.Elements())
	return values, info, f.ReadFloat32(name, values)
}

// ReadRaw returns the bytes of a tensor of any type.
func (f *File) ReadRaw(name string) ([]byte, Info, error) {
	info, ok := f.header.Lookup(name)
	if !ok {
		return nil, Info{}, fmt.Errorf("%s: no tensor %q", f.f.Name(), name)
	}
	b := make([]byte, info.End-info.Begin)
	if err := readFull(f.f, b, f.header.DataStart+info.Begin); err != nil {
		return nil, Info{}, fmt.Errorf("%s: read tensor %s: %w", f.f.Name(), info, err)
	}
	return b, info, nil
}

// Section returns a reader of the bytes of a tensor of any type.
func (f *File) Section(name string) (*io.SectionReader, Info, error) {
	info, ok := f.header.Lookup(name)
	if !ok {
		return nil, Info{}, fmt.Errorf("%s: no tensor %q", f.f.Name(), name)
	}
	return io.NewSectionReader(f.f, f.header.DataStart+info.Begin, info.End-info.Begin), info, nil
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }
