package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/shard/safetensors"
)

const (
	weightsFile = "model.safetensors"
	torchFile   = "pytorch_model.bin"
	indexSuffix = ".index.json"
	configFile  = "config.json"

	maxIndexBytes  = 32 << 20
	maxConfigBytes = 4 << 20
)

// Tensor is a tensor of a checkpoint. One that is stored in four bits has the
// type and the shape that it had before.
type Tensor struct {
	Name  string
	DType safetensors.DType
	Shape []int64
	NF4   bool
}

// Elements returns the product of the shape.
func (t Tensor) Elements() int64 { return safetensors.Info{Shape: t.Shape}.Elements() }

// Bytes returns the bytes of the tensor in its type.
func (t Tensor) Bytes() int64 { return t.Elements() * t.DType.Size() }

// String returns the name, type and shape, for errors.
func (t Tensor) String() string { return fmt.Sprintf("%s %s%v", t.Name, t.DType, t.Shape) }

// file is a file of tensors.
type file interface {
	Tensors() []Tensor
	Data(name string) (io.Reader, error)
	Close() error
}

// safeFile is a safetensors file.
type safeFile struct{ *safetensors.File }

func (f safeFile) Tensors() []Tensor {
	list := make([]Tensor, 0, len(f.Header().Tensors))
	for _, t := range f.Header().Tensors {
		list = append(list, Tensor{Name: t.Name, DType: t.DType, Shape: t.Shape})
	}
	return list
}

func (f safeFile) Data(name string) (io.Reader, error) {
	r, _, err := f.Section(name)
	return r, err
}

// Folder is an open checkpoint. Its methods may be called from several
// goroutines.
type Folder struct {
	dir    string
	open   []file
	raw    map[string]stored // every tensor of the files
	states map[string]quantState
	list   []Tensor
	byName map[string]Tensor
}

// stored is a tensor as a file has it.
type stored struct {
	Tensor
	file file
}

// Open opens the weights in a folder: model.safetensors, or shards with an
// index, or else pytorch_model.bin or its shards.
func Open(dir string) (*Folder, error) {
	f := &Folder{dir: dir, raw: map[string]stored{}, byName: map[string]Tensor{}}
	err := f.openFiles()
	if err == nil {
		err = f.resolve()
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open checkpoint %s: %w", dir, err)
	}
	return f, nil
}

// OpenFile opens one file of weights as if it were a folder's only one: by its
// name a safetensors file, or else one that torch.save wrote.
func OpenFile(path string) (*Folder, error) {
	f := &Folder{dir: filepath.Dir(path), raw: map[string]stored{}, byName: map[string]Tensor{}}
	err := f.add(filepath.Base(path), nil)
	if err == nil {
		err = f.resolve()
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func (f *Folder) openFiles() error {
	for _, name := range []string{weightsFile, torchFile} {
		err := f.add(name, nil)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		err = f.openShards(name)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fmt.Errorf("%w: neither %s nor %s, nor an index of shards: %w", ErrUnsupported, weightsFile, torchFile, fs.ErrNotExist)
}

// add opens a file and takes those of its tensors that want says, or all.
func (f *Folder) add(name string, want func(tensor string) bool) error {
	path := filepath.Join(f.dir, name)
	var opened file
	if strings.HasSuffix(name, ".safetensors") {
		s, err := safetensors.Open(path)
		if err != nil {
			return err
		}
		opened = safeFile{s}
	} else {
		t, err := OpenTorch(path)
		if err != nil {
			return err
		}
		opened = t
	}
	f.open = append(f.open, opened)
	for _, t := range opened.Tensors() {
		if want == nil || want(t.Name) {
			f.raw[t.Name] = stored{t, opened}
		}
	}
	return nil
}

func (f *Folder) openShards(name string) error {
	b, err := readSmall(filepath.Join(f.dir, name+indexSuffix), maxIndexBytes)
	if err != nil {
		return err
	}
	index, err := parseIndex(b, filepath.Ext(name))
	if err != nil {
		return fmt.Errorf("%s: %w", name+indexSuffix, err)
	}
	var shards []string
	for _, shard := range index {
		shards = append(shards, shard)
	}
	slices.Sort(shards)
	for _, shard := range slices.Compact(shards) {
		err := f.add(shard, func(tensor string) bool { return index[tensor] == shard })
		if err != nil {
			return fmt.Errorf("%s: %w", name+indexSuffix, notMissing(err))
		}
	}
	for tensor, shard := range index {
		if f.raw[tensor].file == nil {
			return fmt.Errorf("%s: tensor %q is not in %s", name+indexSuffix, tensor, shard)
		}
	}
	return nil
}

// notMissing hides that a file is missing: it is not the index.
func notMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrFormat, err.Error())
	}
	return err
}

// parseIndex returns the file of each tensor. Files are named as files beside
// the index, with the extension ext.
func parseIndex(b []byte, ext string) (map[string]string, error) {
	var index struct {
		Map map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(b, &index); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if len(index.Map) == 0 {
		return nil, fmt.Errorf("%w: no tensors in weight_map", ErrFormat)
	}
	for tensor, name := range index.Map {
		if filepath.Ext(name) != ext || strings.ContainsAny(name, `/\:`) || !filepath.IsLocal(name) {
			return nil, fmt.Errorf("%w: tensor %q is in %q, which is not the name of a file beside it", ErrFormat, tensor, name)
		}
	}
	return index.Map, nil
}

func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return b, err
}

// resolve makes the list of tensors, in which the parts of a four-bit tensor
// are one.
func (f *Folder) resolve() error {
	if err := f.readStates(); err != nil {
		return err
	}
	for name, t := range f.raw {
		if f.partOf(name) {
			continue
		}
		if s, ok := f.states[name]; ok {
			t.DType, t.Shape, t.NF4 = s.dtype, []int64{int64(s.rows), int64(s.cols)}, true
		}
		f.list = append(f.list, t.Tensor)
		f.byName[name] = t.Tensor
	}
	slices.SortFunc(f.list, func(a, b Tensor) int { return natural(a.Name, b.Name) })
	return nil
}

// Close closes all files.
func (f *Folder) Close() error {
	var errs []error
	for _, o := range f.open {
		errs = append(errs, o.Close())
	}
	return errors.Join(errs...)
}

// Tensors lists the tensors in natural order of their names, in which block 10
// follows block 9. The caller must not change it.
func (f *Folder) Tensors() []Tensor { return f.list }

// Lookup finds a tensor by name.
func (f *Folder) Lookup(name string) (Tensor, bool) {
	t, ok := f.byName[name]
	return t, ok
}

// Find returns the tensor of a name, or of that without its first part, which
// checkpoints of a model without its output layer lack ("h.0.ln_1.weight" for
// "transformer.h.0.ln_1.weight").
func (f *Folder) Find(name string) (Tensor, bool) {
	if t, ok := f.Lookup(name); ok {
		return t, true
	}
	_, short, ok := strings.Cut(name, ".")
	if !ok {
		return Tensor{}, false
	}
	return f.Lookup(short)
}

// Values returns a reader of the values of a floating-point tensor, row-major.
// One stored in four bits is dequantised.
func (f *Folder) Values(name string) (*Values, error) {
	t, ok := f.byName[name]
	switch {
	case !ok:
		return nil, fmt.Errorf("checkpoint %s: no tensor %q", f.dir, name)
	case !isFloat(t.DType):
		return nil, fmt.Errorf("checkpoint %s: %w: tensor %s has no floating-point numbers of 16 or 32 bits", f.dir, ErrUnsupported, t)
	}
	v := &Values{tensor: t, left: t.Elements()}
	var err error
	if t.NF4 {
		v.weight, err = f.ReadNF4(name)
	} else {
		v.data, err = f.raw[name].file.Data(name)
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", f.dir, err)
	}
	return v, nil
}

// ReadFloat32 reads a floating-point tensor into dst, whose length must be the
// number of elements.
func (f *Folder) ReadFloat32(name string, dst []float32) error {
	v, err := f.Values(name)
	if err != nil {
		return err
	}
	if v.left != int64(len(dst)) {
		return fmt.Errorf("checkpoint %s: tensor %s has %d elements, want %d", f.dir, v.tensor, v.left, len(dst))
	}
	return v.Read(dst)
}

func isFloat(d safetensors.DType) bool {
	return d == safetensors.F32 || d == safetensors.BF16 || d == safetensors.F16
}

// Values reads a tensor from its beginning to its end.
type Values struct {
	tensor Tensor
	left   int64
	data   io.Reader
	weight *nf4.Weight // instead of data
	buf    []byte
}

// Read fills dst with the next values.
func (v *Values) Read(dst []float32) error {
	if int64(len(dst)) > v.left {
		return fmt.Errorf("tensor %s: %w", v.tensor, io.ErrUnexpectedEOF)
	}
	if v.weight != nil {
		at := int(v.tensor.Elements() - v.left)
		v.weight.DequantRange(dst, at, at+len(dst))
		v.left -= int64(len(dst))
		return nil
	}
	width := int(v.tensor.DType.Size())
	if v.buf == nil {
		v.buf = make([]byte, 1<<20)
	}
	v.left -= int64(len(dst))
	for len(dst) > 0 {
		n := min(len(dst), len(v.buf)/width)
		if _, err := io.ReadFull(v.data, v.buf[:n*width]); err != nil {
			return fmt.Errorf("tensor %s: %w", v.tensor, err)
		}
		safetensors.DecodeFloats(dst[:n], v.buf, v.tensor.DType)
		dst = dst[n:]
	}
	return nil
}

// natural compares names with runs of digits as numbers.
func natural(a, b string) int {
	x, y := a, b
	for x != "" && y != "" {
		m, n := digits(x), digits(y)
		if m == 0 || n == 0 {
			if x[0] != y[0] {
				return int(x[0]) - int(y[0])
			}
			x, y = x[1:], y[1:]
			continue
		}
		p, q := strings.TrimLeft(x[:m], "0"), strings.TrimLeft(y[:n], "0")
		if len(p) != len(q) {
			return len(p) - len(q)
		}
		if c := strings.Compare(p, q); c != 0 {
			return c
		}
		x, y = x[m:], y[n:]
	}
	if c := len(x) - len(y); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}
