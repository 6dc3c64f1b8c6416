//go:build cuda && cgo

package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/cuda/cuext"
	"github.com/moot-net/moot/node/internal/tensor"
)

// lab makes the same values on a device and for the backend that computes on
// the host, which is the oracle.
type lab struct {
	t *testing.T
	d *device
	b tensor.Backend
	r *rand.Rand
	// halves decides which matrices are in 16 bits.
	halves func() bool
	odd    bool // matrices begin at odd places
	name   string
}

// types are which matrices of an operation are in 16 bits.
var types = []string{"float32", "bfloat16", "mixed"}

func newLab(t *testing.T, d *device, kind string, odd bool) *lab {
	l := &lab{t: t, d: d, b: cpu.New(cpu.Options{Threads: 1}), r: rand.New(rand.NewPCG(3, 4)), odd: odd}
	l.name = fmt.Sprintf("%s, odd %v", kind, odd)
	switch kind {
	case "float32":
		l.halves = func() bool { return false }
	case "bfloat16":
		l.halves = func() bool { return true }
	default:
		l.halves = func() bool { return l.r.IntN(2) == 0 }
	}
	return l
}

// operand is a matrix in both places. On the device it lies between guards.
type operand struct {
	tensor.Mat
	v     view
	l     *lab
	base  uintptr
	elems int // from base on, with guards
	first int // place of element (0,0)
}

const guardValue = -12345.5

// matrix has normal values, of the lab's type.
func (l *lab) matrix(rows, cols int) operand { return l.typed(rows, cols, l.halves()) }

// floats is a matrix in float32.
func (l *lab) floats(rows, cols int) operand { return l.typed(rows, cols, false) }

func (l *lab) typed(rows, cols int, half bool) operand {
	l.t.Helper()
	first, stride := 64, cols+8*l.r.IntN(3)
	if l.odd {
		first, stride = 61, cols+l.r.IntN(4)
	}
	o := operand{l: l, first: first, elems: first + rows*stride + 64}
	o.Mat = l.b.Alloc(rows*cols).Mat(0, rows, cols)
	o.v = view{rows: rows, cols: cols, stride: stride, bf16: half}
	base, err := l.d.alloc(o.elems * o.v.elem())
	if err != nil {
		l.t.Fatal(err)
	}
	o.base, o.v.ptr = base, base+uintptr(first*o.v.elem())
	for i := range o.Host() {
		o.Host()[i] = float32(l.r.NormFloat64())
	}
	o.send()
	return o
}

func (o operand) free() { o.l.d.free(o.base) }

// set gives the matrix values, which are rounded to its type.
func (o operand) set(f func(i int) float32) operand {
	for i := range o.Host() {
		o.Host()[i] = f(i)
	}
	o.send()
	return o
}

// send copies the host's values, rounded, to the device.
func (o operand) send() {
	all := make([]float32, o.elems)
	for i := range all {
		all[i] = guardValue
	}
	for i := range o.Rows {
		for j := range o.Cols {
			p := &o.Host()[i*o.Cols+j]
			if o.v.bf16 {
				*p = bf16Float(floatBF16(*p))
			}
			all[o.first+i*o.v.stride+j] = *p
		}
	}
	b := bytesOf(all)
	if o.v.bf16 {
		short := make([]uint16, len(all))
		for i, v := range all {
			short[i] = floatBF16(v)
		}
		b = bytesOf(short)
	}
	o.l.d.do(func() error { return cuext.ToDevice(o.base, b, o.l.d.stream) })
	o.l.d.sync()
}

// values returns what is on the device, guards included.
func (o operand) values() []float32 {
	o.l.t.Helper()
	if !o.v.bf16 {
		return read[float32](o.l.t, o.l.d, o.base, o.elems)
	}
	out := make([]float32, o.elems)
	for i, v := range read[uint16](o.l.t, o.l.d, o.base, o.elems) {
		out[i] = bf16Float(v)
	}
	return out
}

// check compares the device's values with the host's: a difference of tolerance
// of 1 and of the value is allowed, and in 16 bits that of rounding once.
func (o operand) check(what string, tolerance float64) {
	o.l.t.Helper()
	guard, relative := float32(guardValue), tolerance
	if o.v.bf16 {
		guard = bf16Float(floatBF16(guard))
		relative += 1.0 / 256
	}
	for i, v := range o.values() {
		at := i - o.first
		row, col := at/max(1, o.v.stride), at%max(1, o.v.stride)
		if at < 0 || row >= o.Rows || col >= o.Cols {
			if v != guard {
				o.l.t.Fatalf("%s (%s): value %d outside of (%d,%d) was overwritten with %v", what, o.l.name, at, o.Rows, o.Cols, v)
			}
			continue
		}
		want := float64(o.Host()[row*o.Cols+col])
		if diff := math.Abs(float64(v) - want); !(diff <= tolerance+relative*math.Abs(want)) {
			o.l.t.Fatalf("%s (%s): element (%d,%d) of (%d,%d), rows %d apart, 16 bits %v, is %v, want %v",
				what, o.l.name, row, col, o.Rows, o.Cols, o.v.stride, o.v.bf16, v, want)
		}
	}
}

// scratch is device memory for n bytes, of zeros.
func (l *lab) scratch(bytes int) uintptr {
	l.t.Helper()
	p, err := l.d.alloc(bytes)
	if err != nil {
		l.t.Fatal(err)
	}
	l.d.do(func() error { return cuext.ToDevice(p, make([]byte, bytes), l.d.stream) })
	l.d.sync()
	return p
}

func bf16Float(v uint16) float32 { return math.Float32frombits(uint32(v) << 16) }

// floatBF16 rounds to the nearest value, the even one of two.
func floatBF16(f float32) uint16 {
	u := math.Float32bits(f)
	if f != f {
		return uint16(u>>16) | 64
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

// eachType runs fn on every capability, for every mixture of types, on views
// that are aligned and on such that are not. Sources that are the same for all
// capabilities are not tested with all of this on each of the emulated ones.
func eachType(t *testing.T, fn func(l *lab)) {
	t.Setenv("MOOT_EMU_SEED", "11")
	eachCapability(t, func(t *testing.T, d *device) {
		for _, kind := range types {
			for _, odd := range []bool{false, true} {
				if emulated != nil && d.capability > targets[0] && (kind == "float32" || kind == "mixed" && !odd) {
					continue
				}
				fn(newLab(t, d, kind, odd))
			}
		}
		d.release()
	})
}

// copyIn copies bytes to the device.
func (d *device) copyIn(t *testing.T, to uintptr, b []byte) {
	t.Helper()
	d.do(func() error { return cuext.ToDevice(to, b, d.stream) })
	d.sync()
	if err := d.err(); err != nil {
		t.Fatal(err)
	}
}
