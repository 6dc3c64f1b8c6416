package model

import (
	"fmt"
	"math"

	"github.com/moot-net/moot/node/internal/tensor"
)

// dora scales what a layer with an adapter makes of its input, before the
// bias: out = m / |W + scale B A| * (W x + scale B A x), |.| being the length
// of each row. It is made for the weights at the time, and is not trained.
type dora struct {
	factor []float32   // m / |W + scale B A| of each output
	out    *tensor.Mat // (T,out) or more, shared by all layers
}

// doraBlock is how many weights are looked at at a time.
const doraBlock = 1 << 20

// newDora computes the factors of a layer.
func (m *Model) newDora(l *linear, a *LowRank) (*dora, error) {
	if len(a.Magnitude) != l.Out {
		return nil, fmt.Errorf("adapter of %s has %d magnitudes for %d outputs", l.Path, len(a.Magnitude), l.Out)
	}
	rows := min(l.Out, max(1, doraBlock/l.In))
	host := make([]float32, rows*l.In)
	sum := m.b.Alloc(rows*l.In).Mat(0, rows, l.In)
	defer m.b.Free(sum.Buf)
	d := &dora{factor: make([]float32, l.Out), out: &m.doraOut}
	for i := 0; i < l.Out; i += rows {
		j := min(i+rows, l.Out)
		s, part := sum.RowRange(0, j-i), host[:(j-i)*l.In]
		m.b.Download(part, l.w.RowRange(i, j)) // weights may be packed
		m.b.Upload(s, part)
		m.b.MatMul(s, a.B.RowRange(i, j), a.A, tensor.MatMul{Add: true, Alpha: a.Scale})
		m.b.Download(part, s)
		for o := i; o < j; o++ {
			square := 0.0
			for _, v := range part[(o-i)*l.In : (o-i+1)*l.In] {
				square += float64(v) * float64(v)
			}
			f := float32(float64(a.Magnitude[o]) / math.Sqrt(square))
			if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
				return nil, fmt.Errorf("adapter of %s: magnitude %v of output %d for a row of length %v", l.Path, a.Magnitude[o], o, math.Sqrt(square))
			}
			d.factor[o] = f
		}
	}
	return d, nil
}

// forward sets y (T,out), or adds to it, what the layer makes of x (T,in)
// without its bias.
func (d *dora) forward(b tensor.Backend, l *linear, y, x, low tensor.Mat, add bool) {
	n := x.Rows * l.Out
	if d.out.None() || d.out.Buf.Len < n {
		b.Free(d.out.Buf)
		*d.out = b.AllocActivations(n).Vec()
	}
	out := d.out.Buf.Mat(0, x.Rows, l.Out)
	b.MatMul(out, x, l.w, tensor.MatMul{TransB: true})
	b.MatMul(low, x, l.lora.A, tensor.MatMul{TransB: true})
	b.MatMul(out, low, l.lora.B, tensor.MatMul{TransB: true, Add: true, Alpha: l.lora.Scale})
	scaleColumns(b, out, d.factor)
	if add {
		b.Add(y, out)
	} else {
		b.Copy(y, out)
	}
}

// scaleColumns multiplies each row of m, which is dense, by row. Backends have
// no operation for it, since nothing that is trained needs it.
func scaleColumns(b tensor.Backend, m tensor.Mat, row []float32) {
	values := m.Buf.Host
	if values == nil {
		values = make([]float32, m.Rows*m.Cols)
		b.Download(values, m)
	} else {
		values = m.Host()
	}
	for i := range m.Rows {
		for j, f := range row {
			values[i*m.Cols+j] *= f
		}
	}
	if m.Buf.Host == nil {
		b.Upload(m, values)
	}
}
