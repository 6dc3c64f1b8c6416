package lora

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/moot-net/moot/shard/safetensors"
)

// MaxGGUFBytes bounds a GGUF adapter that is read.
const MaxGGUFBytes = 4 << 30

// ErrGGUF is wrapped by the error for bytes that are no GGUF adapter.
var ErrGGUF = errors.New("not a GGUF adapter")

// ReadGGUF reads an adapter as llama.cpp does: by the names of its tensors,
// with its order of rows, and with alpha divided by the rank as the scale of
// every layer. modules are the layers that the base model has. The file is read
// as WriteGGUF writes it: version 3, two-dimensional tensors of F32 or F16.
func ReadGGUF(b []byte, base GGUFBase, modules []Module) (*Adapter, error) {
	a, err := decodeGGUF(b, base, modules)
	if err != nil {
		return nil, fmt.Errorf("read GGUF adapter: %w", err)
	}
	return a, nil
}

func decodeGGUF(b []byte, base GGUFBase, modules []Module) (*Adapter, error) {
	f, err := parseGGUF(b)
	if err != nil {
		return nil, err
	}
	family, ok := ggufFamilies[base.ModelType]
	if !ok {
		return nil, fmt.Errorf("%w: no names of llama.cpp are known for models of type %q", ErrUnsupported, base.ModelType)
	}
	if f.texts["general.architecture"] != family.arch || f.texts["general.type"] != "adapter" || f.texts["adapter.type"] != "lora" {
		return nil, fmt.Errorf("%w: it is %q of type %q for %q, want a lora adapter for %s", ErrGGUF,
			f.texts["adapter.type"], f.texts["general.type"], f.texts["general.architecture"], family.arch)
	}
	if alpha := float64(f.alpha); math.IsNaN(alpha) || math.IsInf(alpha, 0) {
		return nil, fmt.Errorf("%w: adapter.lora.alpha is %v, %w: the file is damaged", ErrGGUF, f.alpha, ErrNotFinite)
	}
	s := Spec{Alpha: 1}
	for _, m := range modules {
		name, err := family.tensor(m.Path)
		if err != nil {
			continue // llama.cpp has no such layer
		}
		t, ok := f.tensors[name+ggufA]
		if !ok {
			continue
		}
		if s.Rank == 0 {
			s.Rank = t.rows
		} else if t.rows != s.Rank {
			s.Ranks = append(s.Ranks, Override{m.Path, t.rows})
		}
		s.Targets = append(s.Targets, m.Path)
	}
	a, err := New(s, modules)
	if err != nil {
		return nil, err
	}
	if want := len(a.layout); len(f.tensors) != want {
		return nil, fmt.Errorf("%w: of %d tensors %d are of layers of the model", ErrGGUF, len(f.tensors), want)
	}
	for i := range a.parts {
		if err := a.takeGGUF(&a.parts[i], f, family, base); err != nil {
			return nil, fmt.Errorf("%s: %w", a.parts[i].Path, err)
		}
	}
	return a, nil
}

// takeGGUF fills in the adapter of a layer.
func (a *Adapter) takeGGUF(p *Part, f *ggufContent, family ggufFamily, base GGUFBase) error {
	name, err := family.tensor(p.Path)
	if err != nil {
		return err
	}
	ta, tb := f.tensors[name+ggufA], f.tensors[name+ggufB]
	if ta.rows != p.Rank || ta.cols != p.In || tb.rows != p.Out || tb.cols != p.Rank {
		return fmt.Errorf("%w: tensors of %d x %d and %d x %d, want %d x %d and %d x %d", ErrGGUF,
			ta.rows, ta.cols, tb.rows, tb.cols, p.Rank, p.In, p.Out, p.Rank)
	}
	for _, t := range []ggufTensor{ta, tb} {
		if err := finite(t.name, t.values); err != nil {
			return err
		}
	}
	copy(a.Tensor(p.A), ta.values)
	from, err := family.order(name, base, p.Out)
	if err != nil {
		return err
	}
	for o := range p.Out {
		row := o
		if from != nil {
			row = from[o]
		}
		copy(a.Tensor(p.B)[row*p.Rank:(row+1)*p.Rank], tb.values[o*p.Rank:])
	}
	p.Scale = float32(float64(f.alpha) / float64(p.Rank))
	return nil
}

// ggufContent is what there is in a GGUF adapter.
type ggufContent struct {
	texts   map[string]string
	alpha   float32
	tensors map[string]ggufTensor
}

// The bounds of a header, far above those of real adapters.
const (
	maxGGUFCount = 1 << 16
	maxGGUFDepth = 4
)

func parseGGUF(b []byte) (*ggufContent, error) {
	r := &ggufReader{b: b}
	if string(r.bytes(4)) != ggufMagic || r.u32() != ggufVersion {
		return nil, fmt.Errorf("%w: it does not begin with GGUF and version %d", ErrGGUF, ggufVersion)
	}
	tensors, entries := r.u64(), r.u64()
	if tensors > maxGGUFCount || entries > maxGGUFCount {
		return nil, fmt.Errorf("%w: %d tensors and %d entries, at most %d", ErrGGUF, tensors, entries, maxGGUFCount)
	}
	f := &ggufContent{texts: map[string]string{}, tensors: map[string]ggufTensor{}}
	for ; entries > 0 && !r.bad; entries-- {
		key, kind := r.text(), r.u32()
		switch {
		case kind == ggufString:
			f.texts[key] = r.text()
		case key == "adapter.lora.alpha" && kind == ggufFloat32:
			f.alpha = math.Float32frombits(r.u32())
		case key == "general.alignment": // the only other one that says how to read
			return nil, fmt.Errorf("%w: it has its own alignment", ErrUnsupported)
		default:
			r.skip(kind, maxGGUFDepth)
		}
	}
	type place struct {
		name       string
		rows, cols uint64
		kind       uint32
		at         uint64
	}
	var places []place
	for ; tensors > 0 && !r.bad; tensors-- {
		p := place{name: r.text()}
		if dims := r.u32(); dims != 2 && !r.bad {
			return nil, fmt.Errorf("%w: tensor %.80q has %d dimensions, want 2", ErrGGUF, p.name, dims)
		}
		p.cols, p.rows, p.kind, p.at = r.u64(), r.u64(), r.u32(), r.u64()
		places = append(places, p)
	}
	if r.bad {
		return nil, fmt.Errorf("%w: its header is cut short, or has values of an unknown type", ErrGGUF)
	}
	data := aligned(uint64(r.off))
	for _, p := range places {
		dtype, ok := map[uint32]safetensors.DType{ggufF32: safetensors.F32, ggufF16: safetensors.F16}[p.kind]
		_, twice := f.tensors[p.name]
		room := uint64(len(b)) - min(data, uint64(len(b)))
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: tensor %.80q is of type %d, want F32 or F16", ErrUnsupported, p.name, p.kind)
		case twice:
			return nil, fmt.Errorf("%w: tensor %.80q is there twice", ErrGGUF, p.name)
		case p.rows == 0 || p.cols == 0 || p.rows > room || p.cols > room/p.rows, // no overflow below
			p.at > room, p.rows*p.cols > (room-p.at)/uint64(dtype.Size()):
			return nil, fmt.Errorf("%w: tensor %.80q of %d x %d does not lie in the file", ErrGGUF, p.name, p.rows, p.cols)
		}
		t := ggufTensor{name: p.name, rows: int(p.rows), cols: int(p.cols), values: make([]float32, p.rows*p.cols)}
		from := data + p.at
		safetensors.DecodeFloats(t.values, b[from:from+uint64(len(t.values))*uint64(dtype.Size())], dtype)
		f.tensors[p.name] = t
	}
	return f, nil
}

// ggufReader reads the header of a GGUF file.
type ggufReader struct {
	b   []byte
	off int
	bad bool
}

func (r *ggufReader) bytes(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)-r.off) {
		r.bad = true
		return make([]byte, 8) // for what is read of it before bad is looked at
	}
	p := r.b[r.off : r.off+int(n)]
	r.off += int(n)
	return p
}

func (r *ggufReader) u32() uint32  { return binary.LittleEndian.Uint32(r.bytes(4)) }
func (r *ggufReader) u64() uint64  { return binary.LittleEndian.Uint64(r.bytes(8)) }
func (r *ggufReader) text() string { return string(r.bytes(r.u64())) }

// skip passes over a value of a metadata entry, arrays in arrays to a depth.
func (r *ggufReader) skip(kind uint32, depth int) {
	const array = 9
	switch kind {
	case 0, 1, 7:
		r.bytes(1)
	case 2, 3:
		r.bytes(2)
	case 4, 5, ggufFloat32:
		r.bytes(4)
	case 10, 11, 12:
		r.bytes(8)
	case ggufString:
		r.text()
	case array:
		of := r.u32()
		for n := r.u64(); n > 0 && !r.bad && depth > 0; n-- {
			r.skip(of, depth-1)
		}
		r.bad = r.bad || depth == 0
	default:
		r.bad = true
	}
}
