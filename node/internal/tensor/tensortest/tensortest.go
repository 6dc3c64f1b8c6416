// Package tensortest checks implementations of tensor.Backend: each operation
// against a naive one in float64, derivatives against differences of that,
// views inside larger memory, and that the number of threads changes no bit.
package tensortest

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/moot-net/moot/node/internal/tensor"
)

// Backend runs all checks on the backends that open returns.
func Backend(t *testing.T, open func(threads int) tensor.Backend) {
	for _, c := range []struct {
		name string
		fn   func(t *testing.T, b tensor.Backend)
	}{
		{"MatMul", matMul},
		{"MatMulSum", matMulSum},
		{"Packed", packed},
		{"Rows", rows},
		{"RMSNorm", rmsNorm},
		{"LayerNorm", layerNorm},
		{"Rope", rope},
		{"Attention", attention},
		{"SwiGLU", swiGLU},
		{"GELU", gelu},
		{"Limits", limits},
		{"CrossEntropy", crossEntropy},
		{"SumSquares", sumSquares},
		{"AdamW", adamW},
	} {
		t.Run(c.name, func(t *testing.T) { c.fn(t, open(2)) })
	}
	t.Run("Threads", func(t *testing.T) { threads(t, open) })
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// guard is put around matrices; nothing may write it.
const guard = float32(-12345.5)

// mat is a matrix inside a larger buffer, with its values in float64 too.
type mat struct {
	tensor.Mat
	b    tensor.Backend
	want []float64 // dense
}

// random returns a matrix of normal values with pad more columns between rows.
func random(b tensor.Backend, r *rand.Rand, rows, cols, pad int) mat {
	const margin = 40
	stride := cols + pad
	buf := b.Alloc(2*margin + rows*stride)
	fill := make([]float32, buf.Len)
	for i := range fill {
		fill[i] = guard
	}
	b.Upload(buf.Vec(), fill)
	m := mat{Mat: tensor.Mat{Buf: buf, Off: margin, Rows: rows, Cols: cols, Stride: stride}, b: b}
	values := make([]float32, rows*cols)
	m.want = make([]float64, len(values))
	for i := range values {
		values[i] = float32(r.NormFloat64())
		m.want[i] = float64(values[i])
	}
	b.Upload(m.Mat, values)
	return m
}

func (m mat) set(values []float64) {
	f := make([]float32, len(values))
	for i, v := range values {
		f[i] = float32(v)
		m.want[i] = float64(f[i])
	}
	m.b.Upload(m.Mat, f)
}

// check compares the matrix with m.want and looks at the guard.
func (m mat) check(t *testing.T, what string, tolerance float64) {
	t.Helper()
	got := make([]float32, m.Rows*m.Cols)
	m.b.Download(got, m.Mat)
	for i, w := range m.want {
		if d := math.Abs(float64(got[i]) - w); !(d <= tolerance*(1+math.Abs(w))) {
			t.Fatalf("%s: element (%d,%d) of (%d,%d) is %v, want %v", what, i/m.Cols, i%m.Cols, m.Rows, m.Cols, got[i], w)
		}
	}
	all := make([]float32, m.Buf.Len)
	m.b.Download(all, m.Buf.Vec())
	for i, v := range all {
		at := i - m.Off
		inside := at >= 0 && at < m.Rows*m.Stride && at%max(1, m.Stride) < m.Cols
		if !inside && v != guard {
			t.Fatalf("%s: value %d outside the matrix was overwritten with %v", what, i, v)
		}
	}
}

// derivative checks got, the derivative that a backend found for x, against
// differences of f, which depends on x.want. base is what got held before.
func derivative(t *testing.T, what string, got mat, base []float64, x []float64, f func() float64, tolerance float64) {
	t.Helper()
	const h = 1e-5
	for i := range x {
		old := x[i]
		x[i] = old + h
		up := f()
		x[i] = old - h
		down := f()
		x[i] = old
		got.want[i] = (up - down) / (2 * h)
		if base != nil {
			got.want[i] += base[i]
		}
	}
	got.check(t, what, tolerance)
}

func clone(x []float64) []float64 { return append([]float64(nil), x...) }

func inner(x, y []float64) float64 {
	s := 0.0
	for i := range x {
		s += x[i] * y[i]
	}
	return s
}
