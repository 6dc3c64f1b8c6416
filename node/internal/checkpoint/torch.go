package checkpoint

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/moot-net/moot/shard/safetensors"
)

const (
	maxPickleBytes = 64 << 20
	maxDims        = 64
	// maxGatherBytes bounds what is held in memory for a tensor that is not
	// stored in the order of its elements.
	maxGatherBytes = 1 << 30
	// maxReuse bounds how often on average the bytes of a file are used, so
	// that a small file does not become a large model.
	maxReuse = 4
)

// storageTypes are the types of elements, by the name of their storage.
var storageTypes = map[global]safetensors.DType{
	"torch FloatStorage": safetensors.F32, "torch HalfStorage": safetensors.F16, "torch BFloat16Storage": safetensors.BF16,
	"torch DoubleStorage": safetensors.F64, "torch LongStorage": safetensors.I64, "torch IntStorage": safetensors.I32,
	"torch ShortStorage": safetensors.I16, "torch CharStorage": safetensors.I8, "torch ByteStorage": safetensors.U8,
	"torch BoolStorage": safetensors.Bool,
}

// storage is a run of elements in the file.
type storage struct {
	dtype safetensors.DType
	key   string
	numel int64
}

// torchTensor is a view of a storage.
type torchTensor struct {
	storage
	offset       int64 // in elements
	size, stride []int64
}

// pushStorage replaces the description of a storage by the storage.
func (m *machine) pushStorage() error {
	v, err := m.pop(1)
	if err != nil {
		return err
	}
	id, ok := v[0].(tuple)
	if !ok || len(id) < 5 || len(id) > 6 || id[0] != any("storage") || len(id) == 6 && id[5] != nil {
		return errors.New("an external object that is no storage")
	}
	kind, ok1 := id[1].(global)
	key, ok2 := id[2].(string)
	numel, ok3 := id[4].(int64)
	if !ok1 || !ok2 || !ok3 || storageTypes[kind] == "" || numel < 0 || numel > math.MaxInt64/8 {
		return errors.New("a storage without a type, a key or a size")
	}
	m.push(storage{storageTypes[kind], key, numel})
	return nil
}

// rebuild makes a tensor from the arguments (storage, offset, size, stride).
func rebuild(args tuple) (*torchTensor, error) {
	s, ok1 := args[0].(storage)
	offset, ok2 := args[1].(int64)
	size, ok3 := integers(args[2])
	stride, ok4 := integers(args[3])
	if !ok1 || !ok2 || !ok3 || !ok4 || len(size) != len(stride) || offset < 0 || offset > s.numel {
		return nil, errors.New("a tensor without a storage, an offset, sizes or strides")
	}
	t := &torchTensor{s, offset, size, stride}
	elements, last := int64(1), offset
	for i, n := range size {
		if n == 0 {
			return t, nil
		}
		if elements > math.MaxInt64/8/n || stride[i] != 0 && n-1 > (math.MaxInt64-last)/stride[i] {
			return nil, fmt.Errorf("a tensor of size %v and strides %v", size, stride)
		}
		elements *= n
		last += (n - 1) * stride[i]
	}
	if last >= s.numel {
		return nil, fmt.Errorf("a tensor that reaches element %d of a storage of %d", last, s.numel)
	}
	return t, nil
}

func integers(v any) ([]int64, bool) {
	list, ok := v.(tuple)
	if !ok || len(list) > maxDims {
		return nil, false
	}
	out := make([]int64, len(list))
	for i, x := range list {
		n, ok := x.(int64)
		if !ok || n < 0 {
			return nil, false
		}
		out[i] = n
	}
	return out, true
}

func (t *torchTensor) elements() int64 {
	n := int64(1)
	for _, d := range t.size {
		n *= d
	}
	return n
}

// contiguous reports whether elements are stored in their order.
func (t *torchTensor) contiguous() bool {
	want := int64(1)
	for i := len(t.size) - 1; i >= 0; i-- {
		if t.size[i] != 1 && t.stride[i] != want {
			return false
		}
		want *= t.size[i]
	}
	return true
}

// TorchFile is an open pytorch_model.bin, or another file of a dictionary of
// tensors that torch.save wrote. Its methods may be called from several
// goroutines.
type TorchFile struct {
	f       *os.File
	tensors map[string]*torchTensor
	list    []Tensor
	starts  map[string]int64 // where each storage is in the file
}

// OpenTorch opens a file and validates it. Nothing in it is executed.
func OpenTorch(path string) (*TorchFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	t := &TorchFile{f: f, tensors: map[string]*torchTensor{}, starts: map[string]int64{}}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil {
		err = t.read(f, st.Size())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// oldMagic begins files of before 2020: a pickle of one number.
var oldMagic = []byte("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.")

func (t *TorchFile) read(r io.ReaderAt, size int64) error {
	head := make([]byte, min(size, int64(len(oldMagic))))
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var err error
	switch {
	case bytes.Equal(head, oldMagic):
		err = t.readOld(r, size)
	case bytes.HasPrefix(head, []byte("PK")):
		err = t.readZip(r, size)
	default:
		err = fmt.Errorf("%w: neither a zip archive nor an old file of torch.save", ErrFormat)
	}
	if err != nil {
		return err
	}
	total := int64(0)
	for _, info := range t.list {
		n := info.Bytes()
		if n > maxReuse*size-total {
			return fmt.Errorf("%w: tensors have more than %d times the bytes of the file", ErrFormat, maxReuse)
		}
		total += n
	}
	return nil
}

func (t *TorchFile) readZip(r io.ReaderAt, size int64) error {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	entries := make(map[string]*zip.File, len(z.File))
	root := ""
	for _, e := range z.File {
		if entries[e.Name] != nil {
			return fmt.Errorf("%w: %q is twice in the archive", ErrFormat, e.Name)
		}
		entries[e.Name] = e
		if prefix, ok := strings.CutSuffix(e.Name, "/data.pkl"); ok && !strings.Contains(prefix, "/") {
			root = prefix
		}
	}
	section := func(name string) (*io.SectionReader, int64, error) {
		e := entries[root+"/"+name]
		if e == nil {
			return nil, 0, fmt.Errorf("%w: %s is missing in the archive", ErrFormat, name)
		}
		at, err := e.DataOffset()
		n := int64(e.UncompressedSize64)
		if err != nil || e.Method != zip.Store || e.Flags&1 != 0 || e.CompressedSize64 != e.UncompressedSize64 || n < 0 || n > size-at {
			return nil, 0, fmt.Errorf("%w: %s is not stored plainly in the archive", ErrFormat, name)
		}
		return io.NewSectionReader(r, at, n), at, nil
	}
	if entries[root+"/byteorder"] != nil {
		s, _, err := section("byteorder")
		if err != nil {
			return err
		}
		var order [7]byte
		if n, _ := s.ReadAt(order[:], 0); string(order[:n]) != "little" {
			return fmt.Errorf("%w: byte order %q", ErrUnsupported, order[:n])
		}
	}
	s, _, err := section("data.pkl")
	if err != nil {
		return err
	}
	if s.Size() > maxPickleBytes {
		return fmt.Errorf("%w: data.pkl has %d bytes, at most %d", ErrFormat, s.Size(), maxPickleBytes)
	}
	b := make([]byte, s.Size())
	if _, err := io.ReadFull(s, b); err != nil {
		return err
	}
	v, n, err := unpickle(b)
	if err != nil {
		return err
	}
	if n != len(b) {
		return fmt.Errorf("%w: something after the pickle", ErrFormat)
	}
	if err := t.take(v); err != nil {
		return err
	}
	for _, x := range t.tensors {
		s, at, err := section("data/" + x.key)
		if err != nil {
			return err
		}
		if err := t.place(x, at, s.Size()); err != nil {
			return err
		}
	}
	return nil
}

// readOld reads the format of before 2020: four pickles, the names of the
// storages, and each storage behind its length.
func (t *TorchFile) readOld(r io.ReaderAt, size int64) error {
	b := make([]byte, min(size, maxPickleBytes))
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	at := len(oldMagic)
	var values [4]any // version, system, tensors, keys
	for i := range values {
		v, n, err := unpickle(b[at:])
		if err != nil {
			return err
		}
		values[i] = v
		at += n
	}
	if values[0] != any(int64(1001)) {
		return fmt.Errorf("%w: version %v of the old format", ErrUnsupported, values[0])
	}
	system, ok := values[1].(*dict)
	if !ok || !slices.Contains(system.keys, any("little_endian")) || system.values[slices.Index(system.keys, any("little_endian"))] != any(true) {
		return fmt.Errorf("%w: numbers that are not little endian", ErrUnsupported)
	}
	if err := t.take(values[2]); err != nil {
		return err
	}
	keys, ok := values[3].(*list)
	if !ok {
		return fmt.Errorf("%w: no list of storages", ErrFormat)
	}
	byKey := map[string][]*torchTensor{}
	for _, x := range t.tensors {
		byKey[x.key] = append(byKey[x.key], x)
	}
	pos := int64(at)
	for _, k := range keys.items {
		key, _ := k.(string)
		uses := byKey[key]
		if len(uses) == 0 {
			return fmt.Errorf("%w: storage %v belongs to no tensor", ErrFormat, k)
		}
		var length [8]byte
		if _, err := r.ReadAt(length[:], pos); err != nil {
			return fmt.Errorf("%w: storage %q: %w", ErrFormat, key, err)
		}
		pos += 8
		bytes := uses[0].numel * uses[0].dtype.Size()
		if binary.LittleEndian.Uint64(length[:]) != uint64(uses[0].numel) || bytes > size-pos {
			return fmt.Errorf("%w: storage %q has another length than its tensors say", ErrFormat, key)
		}
		for _, x := range uses {
			if err := t.place(x, pos, bytes); err != nil {
				return err
			}
		}
		delete(byKey, key)
		pos += bytes
	}
	if len(byKey) > 0 || pos != size {
		return fmt.Errorf("%w: storages and tensors do not agree", ErrFormat)
	}
	return nil
}

// take keeps the tensors of a dictionary.
func (t *TorchFile) take(v any) error {
	d, ok := v.(*dict)
	if !ok {
		return fmt.Errorf("%w: not a dictionary of tensors", ErrUnsupported)
	}
	for i, k := range d.keys {
		name, ok := k.(string)
		if !ok {
			return fmt.Errorf("%w: a tensor without a name", ErrUnsupported)
		}
		x, ok := d.values[i].(*torchTensor)
		if !ok {
			return fmt.Errorf("%w: %.80q is no tensor: only a dictionary of tensors is read, not a program's other state", ErrUnsupported, name)
		}
		if t.tensors[name] != nil {
			return fmt.Errorf("%w: tensor %q is there twice", ErrFormat, name)
		}
		t.tensors[name] = x
		t.list = append(t.list, Tensor{Name: name, DType: x.dtype, Shape: x.size})
	}
	slices.SortFunc(t.list, func(a, b Tensor) int { return natural(a.Name, b.Name) })
	return nil
}

// place notes where a tensor's storage is.
func (t *TorchFile) place(x *torchTensor, at, bytes int64) error {
	if bytes != x.numel*x.dtype.Size() {
		return fmt.Errorf("%w: storage %q has %d bytes, its tensors say %d elements of %s", ErrFormat, x.key, bytes, x.numel, x.dtype)
	}
	if span := x.span(); !x.contiguous() && span > maxGatherBytes {
		return fmt.Errorf("%w: a transposed tensor of %d bytes, at most %d", ErrUnsupported, span, int64(maxGatherBytes))
	}
	t.starts[x.key] = at
	return nil
}

// span returns the bytes from the first to the last element.
func (t *torchTensor) span() int64 {
	if t.elements() == 0 {
		return 0
	}
	n := int64(1)
	for i, d := range t.size {
		n += (d - 1) * t.stride[i]
	}
	return n * t.dtype.Size()
}

// Tensors lists the tensors, in natural order of their names. The caller must
// not change it.
func (t *TorchFile) Tensors() []Tensor { return t.list }

// Data returns a reader of the bytes of a tensor, row-major.
func (t *TorchFile) Data(name string) (io.Reader, error) {
	x := t.tensors[name]
	if x == nil {
		return nil, fmt.Errorf("%s: no tensor %q", t.f.Name(), name)
	}
	width := x.dtype.Size()
	section := io.NewSectionReader(t.f, t.starts[x.key]+x.offset*width, x.span())
	if x.contiguous() {
		return section, nil
	}
	b := make([]byte, x.span())
	if _, err := io.ReadFull(section, b); err != nil {
		return nil, fmt.Errorf("%s: tensor %q: %w", t.f.Name(), name, err)
	}
	return bytes.NewReader(x.gather(b)), nil
}

// gather puts the elements of a view into their order.
func (t *torchTensor) gather(b []byte) []byte {
	width := t.dtype.Size()
	out := make([]byte, 0, t.elements()*width)
	index := make([]int64, len(t.size))
	at := int64(0)
	for range t.elements() {
		out = append(out, b[at*width:(at+1)*width]...)
		for d := len(index) - 1; d >= 0; d-- {
			index[d]++
			at += t.stride[d]
			if index[d] < t.size[d] {
				break
			}
			at -= t.size[d] * t.stride[d]
			index[d] = 0
		}
	}
	return out
}

// Close closes the file.
func (t *TorchFile) Close() error { return t.f.Close() }
