package cpu

import (
	"fmt"
	"math"

	"github.com/moot-net/moot/node/internal/tensor"
)

// rowTask applies fn to ranges of rows. fn is a plain function, not a closure,
// so that nothing is allocated; what it needs is in the other fields.
type rowTask struct {
	fn             func(t *rowTask, i, j int)
	k              *kernels
	rows, step     int
	u, v, w, x, y  tensor.Mat
	a              float32
	idx            []int32
	heads, headDim int
}

func (t *rowTask) piece(_, i int) { t.fn(t, i*t.step, min((i+1)*t.step, t.rows)) }

// minRowWork is the number of values below which a range of rows is not worth
// a goroutine.
const minRowWork = 1 << 15

// overRows runs b.rowOp on rows of about cols values.
func (b *Backend) overRows(rows, cols int) {
	t := &b.rowOp
	t.k, t.rows = b.k, rows
	t.step = max(1, minRowWork/max(1, cols), ceilDiv(rows, 4*b.pool.threads))
	b.pool.do(ceilDiv(rows, t.step), t)
	*t = rowTask{}
}

// Upload copies src, dense, to dst.
func (b *Backend) Upload(dst tensor.Mat, src []float32) {
	if len(src) != dst.Rows*dst.Cols {
		panic(fmt.Sprintf("bug: upload of %d values to (%d,%d)", len(src), dst.Rows, dst.Cols))
	}
	for i := range dst.Rows {
		copy(dst.HostRow(i), src[i*dst.Cols:])
	}
}

// Download copies src to dst, dense.
func (b *Backend) Download(dst []float32, src tensor.Mat) {
	if len(dst) != src.Rows*src.Cols {
		panic(fmt.Sprintf("bug: download of (%d,%d) to %d values", src.Rows, src.Cols, len(dst)))
	}
	for i := range src.Rows {
		b.readRow(dst[i*src.Cols:(i+1)*src.Cols], src, i)
	}
}

// readRow sets dst to row i of src, which may be packed.
func (b *Backend) readRow(dst []float32, src tensor.Mat, i int) {
	if i < 0 || i >= src.Rows {
		panic(fmt.Sprintf("bug: row %d of %d", i, src.Rows))
	}
	if p := src.Buf.Packed; p != nil {
		b.k.unpack(dst, p, src.Off+i*src.Stride)
		return
	}
	copy(dst, src.HostRow(i))
}

// Zero sets m to 0.
func (b *Backend) Zero(m tensor.Mat) {
	for i := range m.Rows {
		clear(m.HostRow(i))
	}
}

// Copy sets dst to src.
func (b *Backend) Copy(dst, src tensor.Mat) {
	mustShape("source", src, dst.Rows, dst.Cols)
	b.rowOp.u, b.rowOp.v = dst, src
	b.rowOp.fn = func(t *rowTask, i, j int) {
		for ; i < j; i++ {
			copy(t.u.HostRow(i), t.v.HostRow(i))
		}
	}
	b.overRows(dst.Rows, dst.Cols)
}

// Add adds src to dst.
func (b *Backend) Add(dst, src tensor.Mat) {
	mustShape("source", src, dst.Rows, dst.Cols)
	b.rowOp.u, b.rowOp.v = dst, src
	b.rowOp.fn = func(t *rowTask, i, j int) {
		for ; i < j; i++ {
			t.k.add(t.u.HostRow(i), t.v.HostRow(i))
		}
	}
	b.overRows(dst.Rows, dst.Cols)
}

// AddRow adds row to each row of m.
func (b *Backend) AddRow(m, row tensor.Mat) {
	mustShape("row", row, 1, m.Cols)
	b.rowOp.u, b.rowOp.v = m, row
	b.rowOp.fn = func(t *rowTask, i, j int) {
		for ; i < j; i++ {
			t.k.add(t.u.HostRow(i), t.v.HostRow(0))
		}
	}
	b.overRows(m.Rows, m.Cols)
}

// SumRows adds the sum of m's rows to row. The sum is along rows, so that it
// is one piece.
func (b *Backend) SumRows(row, m tensor.Mat) {
	mustShape("row", row, 1, m.Cols)
	for i := range m.Rows {
		b.k.add(row.HostRow(0), m.HostRow(i))
	}
}

// Gather sets row i of dst to row idx[i] of src.
func (b *Backend) Gather(dst, src tensor.Mat, idx []int32) {
	mustShape("destination", dst, len(idx), src.Cols)
	for i, at := range idx {
		b.readRow(dst.HostRow(i), src, int(at))
	}
}

// Scatter sets row idx[i] of dst to row i of src.
func (b *Backend) Scatter(dst, src tensor.Mat, idx []int32) {
	mustShape("source", src, len(idx), dst.Cols)
	for i, at := range idx {
		copy(dst.RowRange(int(at), int(at)+1).Host(), src.HostRow(i))
	}
}

// ScatterAdd adds row i of src to row idx[i] of dst.
func (b *Backend) ScatterAdd(dst, src tensor.Mat, idx []int32) {
	mustShape("source", src, len(idx), dst.Cols)
	for i, at := range idx {
		b.k.add(dst.RowRange(int(at), int(at)+1).Host(), src.HostRow(i))
	}
}

// RMSNorm sets out = x * inv * w for each row.
func (b *Backend) RMSNorm(out, inv, x, w tensor.Mat, o tensor.RMSNorm) {
	mustShape("out", out, x.Rows, x.Cols)
	mustShape("inv", inv, x.Rows, 1)
	mustShape("w", w, 1, x.Cols)
	b.rowOp = rowTask{u: out, v: inv, x: x, w: b.scales(w, o), a: o.Eps}
	b.rowOp.fn = func(t *rowTask, i, j int) {
		w := t.w.HostRow(0)
		for ; i < j; i++ {
			x := t.x.HostRow(i)
			mean := float64(t.k.dot(x, x)) / float64(len(x))
			inv := float32(1 / math.Sqrt(mean+float64(t.a)))
			t.v.HostRow(i)[0] = inv
			t.k.mulScale(t.u.HostRow(i), x, w, inv)
		}
	}
	b.overRows(x.Rows, x.Cols)
}

// scales returns what an RMS norm multiplies by.
func (b *Backend) scales(w tensor.Mat, o tensor.RMSNorm) tensor.Mat {
	if !o.PlusOne {
		return w
	}
	b.plusOne.Host = grow(b.plusOne.Host, w.Cols)
	b.plusOne.Len = w.Cols
	for i, v := range w.HostRow(0) {
		b.plusOne.Host[i] = 1 + v
	}
	return b.plusOne.Vec()
}

// RMSNormBackward adds the derivatives by x to dx and by w to dw.
func (b *Backend) RMSNormBackward(dx, dw, dout, x, inv, w tensor.Mat, o tensor.RMSNorm) {
	mustShape("dx", dx, x.Rows, x.Cols)
	mustShape("dout", dout, x.Rows, x.Cols)
	mustShape("inv", inv, x.Rows, 1)
	mustShape("w", w, 1, x.Cols)
	if !dw.None() {
		mustShape("dw", dw, 1, x.Cols)
		row := dw.HostRow(0)
		for i := range x.Rows {
			xi, di, inv := x.HostRow(i), dout.HostRow(i), inv.HostRow(i)[0]
			for c := range row {
				row[c] += di[c] * (xi[c] * inv)
			}
		}
	}
	b.rowOp = rowTask{u: dx, v: inv, w: b.scales(w, o), x: x, y: dout}
	b.rowOp.fn = func(t *rowTask, i, j int) {
		w := t.w.HostRow(0)
		for ; i < j; i++ {
			x, dy, inv := t.x.HostRow(i), t.y.HostRow(i), t.v.HostRow(i)[0]
			mean := t.k.dot3(dy, w, x) * inv / float32(len(x)) // of dy*w*(x*inv)
			t.k.normBack(t.u.HostRow(i), dy, w, x, inv, inv*inv*mean)
		}
	}
	b.overRows(x.Rows, 2*x.Cols)
}

// Rope turns pairs of x by angles.
func (b *Backend) Rope(x, cos, sin tensor.Mat, headDim int, pos []int32, back bool) {
	half := cos.Cols
	mustShape("sin", sin, cos.Rows, half)
	if half == 0 || headDim < 2*half || x.Cols%headDim != 0 || len(pos) != x.Rows {
		panic(fmt.Sprintf("bug: rotary tables (%d,%d), %d positions for (%d,%d) with heads of %d", cos.Rows, half, len(pos), x.Rows, x.Cols, headDim))
	}
	sign := float32(1)
	if back {
		sign = -1
	}
	b.rowOp = rowTask{u: x, v: cos, w: sin, a: sign, idx: pos, heads: x.Cols / headDim, headDim: headDim}
	b.rowOp.fn = func(t *rowTask, i, j int) {
		half := t.v.Cols
		for ; i < j; i++ {
			x, p := t.u.HostRow(i), int(t.idx[i])
			cos, sin := t.v.HostRow(p), t.w.HostRow(p)
			for h := range t.heads {
				head := x[h*t.headDim:]
				t.k.rotate(head[:half], head[half:2*half], cos, sin, t.a)
			}
		}
	}
	b.overRows(x.Rows, x.Cols)
}

// SwiGLU sets out = silu(gate) * up.
func (b *Backend) SwiGLU(out, gate, up tensor.Mat) {
	mustShape("gate", gate, out.Rows, out.Cols)
	mustShape("up", up, out.Rows, out.Cols)
	b.rowOp.u, b.rowOp.v, b.rowOp.w = out, gate, up
	b.rowOp.fn = func(t *rowTask, i, j int) {
		for ; i < j; i++ {
			t.k.swiglu(t.u.HostRow(i), t.v.HostRow(i), t.w.HostRow(i))
		}
	}
	b.overRows(out.Rows, 4*out.Cols)
}

// SwiGLUBackward replaces gate and up by the derivatives by them.
func (b *Backend) SwiGLUBackward(dout, gate, up tensor.Mat) {
	mustShape("gate", gate, dout.Rows, dout.Cols)
	mustShape("up", up, dout.Rows, dout.Cols)
	b.rowOp.u, b.rowOp.v, b.rowOp.w = dout, gate, up
	b.rowOp.fn = func(t *rowTask, i, j int) {
		for ; i < j; i++ {
			t.k.swigluBack(t.u.HostRow(i), t.v.HostRow(i), t.w.HostRow(i))
		}
	}
	b.overRows(dout.Rows, 4*dout.Cols)
}
