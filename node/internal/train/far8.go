package train

import (
	"slices"
	"unsafe"

	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/node/internal/tensor"
)

// far8 are the moments of eight bits where a backend elsewhere computes with
// them. The codes lie four to a value.
type far8 struct {
	b             tensor.Backend
	eight         tensor.EightBit
	codes, scales tensor.Mat // the first moments, then the second
	maps          tensor.Mat
	buf           []float32 // codes on their way
}

func newFar8(b tensor.Backend, e tensor.EightBit, n, blocks int) *far8 {
	f := &far8{
		b: b, eight: e, codes: b.Alloc((2*n + 3) / 4).Vec(), scales: b.Alloc(2 * blocks).Vec(), maps: b.Alloc(512).Vec(),
	}
	b.Upload(f.maps, slices.Concat(nf4.DynamicMap[:], unsignedMap[:]))
	return f
}

// bytes are the codes on their way.
func (f *far8) bytes() []byte {
	if f.buf == nil {
		f.buf = make([]float32, f.codes.Cols)
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(f.buf))), 4*len(f.buf))
}

// push copies the moments of o there.
func (f *far8) push(o *adam8) {
	b := f.bytes()
	copy(b[copy(b, o.m.code):], o.v.code)
	f.b.Upload(f.codes, f.buf)
	f.b.Upload(f.scales, slices.Concat(o.m.scale, o.v.scale))
}

// pull copies them back; f may be nil.
func (f *far8) pull(o *adam8) {
	if f == nil {
		return
	}
	b := f.bytes()
	f.b.Download(f.buf, f.codes)
	copy(o.m.code, b)
	copy(o.v.code, b[len(o.m.code):])
	scales := downloaded(f.b, f.scales)
	copy(o.v.scale, scales[copy(o.m.scale, scales):])
}

func (f *far8) step(o *adam8, p, g tensor.Mat, code, scale int, s update, factor float64) {
	f.eight.AdamW8(p, g, tensor.Moments8{
		Codes: f.codes, M: code, V: len(o.m.code) + code,
		Scales: f.scales, MScale: scale, VScale: len(o.m.scale) + scale, Maps: f.maps,
	}, tensor.AdamW{
		LearningRate: s.rate * factor, Beta1: o.adam.Beta1, Beta2: o.adam.Beta2, Epsilon: o.adam.Epsilon,
		WeightDecay: o.adam.WeightDecay, Step: s.number, GradScale: s.gradScale,
	})
}
