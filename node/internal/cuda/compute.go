//go:build cuda && cgo

package cuda

import (
	"fmt"
	"math"

	"github.com/moot-net/moot/node/internal/cuda/cuext"
	"github.com/moot-net/moot/node/internal/tensor"
)

var (
	_ tensor.Fuser     = (*Backend)(nil)
	_ tensor.Offloader = (*Backend)(nil)
)

// The operations of tensor.Backend; what they do is in ops.go, attention.go and
// gemm.go.

// Zero sets m to 0.
func (b *Backend) Zero(m tensor.Mat) { b.d.zero(b.view(m)) }

// Copy sets dst to src, one of which may be from AllocOffload.
func (b *Backend) Copy(dst, src tensor.Mat) {
	to, from := mem(dst.Buf).pinned, mem(src.Buf).pinned
	switch {
	case to != nil:
		at := b.dense(src, dst)
		b.d.later(func() error { return cuext.ToHost(part(to, dst), at, b.d.stream) })
	case from != nil:
		at := b.dense(dst, src)
		b.d.later(func() error { return cuext.ToDevice(at, part(from, src), b.d.stream) })
	default:
		b.d.copy(b.view(dst), b.view(src))
	}
}

// dense returns the address of m, which must be as long as what is offloaded.
func (b *Backend) dense(m, offloaded tensor.Mat) uintptr {
	v := b.view(m)
	mustShape("what is offloaded", v, offloaded.Rows, offloaded.Cols)
	if !v.dense() || offloaded.Stride != offloaded.Cols || m.Buf.Type != offloaded.Buf.Type {
		panic("bug: offloaded values with gaps, or of another type")
	}
	return v.ptr
}

// part is the memory of a dense matrix.
func part(b []byte, m tensor.Mat) []byte {
	size := m.Buf.Type.Bytes()
	return b[m.Off*size : (m.Off+m.Rows*m.Cols)*size]
}

// Add adds src to dst.
func (b *Backend) Add(dst, src tensor.Mat) { b.d.add(b.view(dst), b.view(src)) }

// AddRow adds row to each row of m.
func (b *Backend) AddRow(m, row tensor.Mat) { b.d.addRow(b.view(m), b.view(row)) }

// SumRows adds the sum of m's rows to row.
func (b *Backend) SumRows(row, m tensor.Mat) { b.d.sumRows(b.view(row), b.view(m)) }

// Gather sets row i of dst to row idx[i] of src. Rows of values that stayed with
// the host are copied from there.
func (b *Backend) Gather(dst, src tensor.Mat, idx []int32) {
	p := mem(src.Buf).host
	if p == nil {
		v, free := b.plain(src)
		b.d.gather(b.view(dst), v, idx)
		free()
		return
	}
	if dst.Rows != len(idx) || dst.Cols != src.Cols {
		panic(fmt.Sprintf("bug: destination is (%d,%d), want (%d,%d)", dst.Rows, dst.Cols, len(idx), src.Cols))
	}
	for _, at := range idx {
		if at < 0 || int(at) >= src.Rows {
			panic(fmt.Sprintf("bug: row %d of %d", at, src.Rows))
		}
	}
	n := len(idx) * src.Cols
	if half, ok := p.(tensor.BF16); ok && dst.Buf.Type == tensor.BFloat16 { // as they are
		b.half = grow(b.half, n)
		for i, at := range idx {
			copy(b.half[i*src.Cols:(i+1)*src.Cols], half[src.Off+int(at)*src.Stride:])
		}
		b.d.toDevice2D(b.view(dst), bytesOf(b.half[:n]))
		return
	}
	b.rows = grow(b.rows, n)
	for i, at := range idx {
		from := src.Off + int(at)*src.Stride
		p.DequantRange(b.rows[i*src.Cols:(i+1)*src.Cols], from, from+src.Cols)
	}
	b.Upload(dst, b.rows[:n])
}

// grow returns a slice of at least n values, which may be any.
func grow[T any](s []T, n int) []T {
	if len(s) < n {
		return make([]T, n)
	}
	return s
}

// Scatter sets row idx[i] of dst to row i of src.
func (b *Backend) Scatter(dst, src tensor.Mat, idx []int32) {
	b.d.scatter(b.view(dst), b.view(src), idx)
}

// ScatterAdd adds row i of src to row idx[i] of dst.
func (b *Backend) ScatterAdd(dst, src tensor.Mat, idx []int32) {
	b.d.scatterAdd(b.view(dst), b.view(src), idx)
}

// MatMul sets c to the product of op(a) and op(b).
func (b *Backend) MatMul(c, a, w tensor.Mat, o tensor.MatMul) {
	b.multiply(product{c: b.view(c), a: b.view(a), alpha: o.Alpha}, w, o)
}

// MatMulSum sets c to op(a) op(b) + op(a2) op(b2) + bias.
func (b *Backend) MatMulSum(c, a, w, a2, w2, bias tensor.Mat, o tensor.MatMul) {
	b.multiply(product{c: b.view(c), a: b.view(a), a2: b.view(a2), b2: b.view(w2), bias: b.view(bias)}, w, o)
}

// multiply computes a product whose right operand may be of four bits.
func (b *Backend) multiply(p product, w tensor.Mat, o tensor.MatMul) {
	p.transA, p.transB, p.add, p.exact = o.TransA, o.TransB, o.Add, b.options.Float32
	m, free := mem(w.Buf).weight, func() {}
	if m != nil && w.Off == 0 && w.Rows == m.rows && w.Cols == m.cols && w.Stride == w.Cols {
		p.nf4 = m
	} else {
		p.b, free = b.plain(w)
	}
	b.d.matMul(p)
	free()
}

// Scale multiplies m by a.
func (b *Backend) Scale(m tensor.Mat, a float32) { b.d.scale(b.view(m), a) }

// Clamp limits m to -limit to limit.
func (b *Backend) Clamp(m tensor.Mat, limit float32) { b.d.clamp(b.view(m), limit) }

// ClampBackward sets d to 0 where y is at a limit.
func (b *Backend) ClampBackward(d, y tensor.Mat, limit float32) {
	b.d.clampBackward(b.view(d), b.view(y), limit)
}

// SoftCap sets m to limit * tanh(m/limit).
func (b *Backend) SoftCap(m tensor.Mat, limit float32) { b.d.softCap(b.view(m), limit) }

// SoftCapBackward multiplies d by the derivative of SoftCap.
func (b *Backend) SoftCapBackward(d, y tensor.Mat, limit float32) {
	b.d.softCapBackward(b.view(d), b.view(y), limit)
}

// RMSNorm sets out = x * inv * w for each row.
func (b *Backend) RMSNorm(out, inv, x, w tensor.Mat, o tensor.RMSNorm) {
	b.d.rmsNorm(b.view(out), b.view(inv), b.view(x), b.view(w), o)
}

// RMSNormBackward adds the derivatives by x to dx and by w to dw.
func (b *Backend) RMSNormBackward(dx, dw, dout, x, inv, w tensor.Mat, o tensor.RMSNorm) {
	b.d.rmsNormBackward(b.view(dx), b.view(dw), b.view(dout), b.view(x), b.view(inv), b.view(w), o)
}

// LayerNorm sets out = (x - mean) * inv * w + bias for each row.
func (b *Backend) LayerNorm(out, stats, x, w, bias tensor.Mat, eps float32) {
	b.d.layerNorm(b.view(out), b.view(stats), b.view(x), b.view(w), b.view(bias), eps)
}

// LayerNormBackward adds the derivatives by x, w and bias.
func (b *Backend) LayerNormBackward(dx, dw, dbias, dout, x, stats, w tensor.Mat) {
	b.d.layerNormBackward(b.view(dx), b.view(dw), b.view(dbias), b.view(dout), b.view(x), b.view(stats), b.view(w))
}

// Rope turns pairs of x by angles.
func (b *Backend) Rope(x, cos, sin tensor.Mat, headDim int, pos []int32, back bool) {
	b.d.rope(b.view(x), b.view(cos), b.view(sin), headDim, pos, back)
}

// Attention is causal attention.
func (b *Backend) Attention(p tensor.Attention) { b.d.attend(b.attention(p)) }

// AttentionBackward is its backward pass.
func (b *Backend) AttentionBackward(p tensor.AttentionBackward) {
	b.d.attendBackward(attentionBackward{
		attention: b.attention(p.Attention), dOut: b.view(p.DOut), dQ: b.view(p.DQ), dK: b.view(p.DK), dV: b.view(p.DV),
	})
}

func (b *Backend) attention(p tensor.Attention) attention {
	return attention{
		q: b.view(p.Q), k: b.view(p.K), v: b.view(p.V), out: b.view(p.Out), lse: b.view(p.LSE),
		heads: p.Heads, kvHeads: p.KVHeads, scale: p.Scale, window: p.Window, softCap: p.SoftCap, slopes: p.Slopes, spans: p.Spans,
	}
}

// SwiGLU sets out = silu(gate) * up.
func (b *Backend) SwiGLU(out, gate, up tensor.Mat) {
	b.d.swiGLU(b.view(out), b.view(gate), b.view(up))
}

// SwiGLUBackward replaces gate and up by the derivatives by them.
func (b *Backend) SwiGLUBackward(dout, gate, up tensor.Mat) {
	b.d.swiGLUBackward(b.view(dout), b.view(gate), b.view(up))
}

// GELU sets out = gelu(x), times up unless that is none.
func (b *Backend) GELU(out, x, up tensor.Mat, kind tensor.GELU) {
	b.d.gelu(b.view(out), b.view(x), b.view(up), kind)
}

// GELUBackward replaces x and up by the derivatives by them.
func (b *Backend) GELUBackward(dout, x, up tensor.Mat, kind tensor.GELU) {
	b.d.geluBackward(b.view(dout), b.view(x), b.view(up), kind)
}

// CrossEntropy sets nll and top, and logits to their derivative.
func (b *Backend) CrossEntropy(logits tensor.Mat, labels []int32, gradScale float32, nll []float32, top []int32) {
	n := logits.Rows
	at, values := b.results(8 * n)
	if at != 0 {
		b.d.crossEntropy(b.view(logits), labels, gradScale, at, at+uintptr(4*n))
		b.d.toHost(values, at)
	}
	if b.Err() != nil {
		poison(nll[:n])
		clear(top[:n])
		return
	}
	copy(bytesOf(nll[:n]), values)
	copy(bytesOf(top[:n]), values[4*n:])
}

// SumSquares returns the sum of the squares of m.
func (b *Backend) SumSquares(m tensor.Mat) float64 {
	var sum [1]float64
	if at, values := b.results(8); at != 0 {
		b.d.sumSquares(at, b.view(m))
		b.d.toHost(values, at)
		copy(bytesOf(sum[:]), values)
	}
	if b.Err() != nil {
		return math.NaN()
	}
	return sum[0]
}

// AdamW updates p, m and v.
func (b *Backend) AdamW(p, g, m, v tensor.Mat, o tensor.AdamW) {
	b.d.adamW(b.view(p), b.view(g), b.view(m), b.view(v), o)
}

// AdamW8 implements tensor.EightBit.
func (b *Backend) AdamW8(p, g tensor.Mat, s tensor.Moments8, o tensor.AdamW) {
	codes, scales := b.view(s.Codes), b.view(s.Scales)
	mustFloats(codes.cols, codes)
	mustFloats(scales.cols, scales)
	mustFloats(512, b.view(s.Maps))
	n, count := p.Cols, blocks(p.Cols, 256)
	if s.M+n > 4*codes.cols || s.V+n > 4*codes.cols || s.MScale+count > scales.cols || s.VScale+count > scales.cols {
		panic(fmt.Sprintf("bug: moments of %d values from %d and %d of %d bytes", n, s.M, s.V, 4*codes.cols))
	}
	at := func(code, scale int) moments8 {
		return moments8{codes.ptr + uintptr(code), scales.ptr + uintptr(4*scale)}
	}
	b.d.adam8(b.view(p), b.view(g), at(s.M, s.MScale), at(s.V, s.VScale), b.view(s.Maps).ptr, o)
}

// results returns device memory for numbers that are to be read at once, and
// memory of the host to read them to.
func (b *Backend) results(bytes int) (at uintptr, host []byte) {
	if len(b.result) < bytes {
		b.result = make([]byte, max(bytes, 4096))
		b.d.free(b.resultAt)
		var err error
		if b.resultAt, err = b.d.alloc(len(b.result)); err != nil {
			b.d.fail(fmt.Errorf("memory for results: %w", err))
			b.result, b.resultAt = nil, 0
		}
	}
	if b.Err() != nil {
		return 0, nil
	}
	return b.resultAt, b.result[:bytes]
}
