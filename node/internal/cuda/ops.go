//go:build cuda && cgo

package cuda

import (
	"fmt"
	"math"
	"slices"

	"github.com/moot-net/moot/node/internal/tensor"
)

// Launches of the kernels that are not matrix products or attention. Views may
// be float32 or bfloat16 in any mixture, with any distance of rows, unless a
// comment says that they are float32. They compute in float32, and each in one
// order: the same values give the same bits. What they are to compute is told
// at the methods of tensor.Backend.

// wide reports whether all views can be read 8 values at a time; see view.cuh.
func wide(cols int, list ...view) bool {
	for _, v := range list {
		if !v.none() && !v.aligned(16) {
			return false
		}
	}
	return cols%8 == 0
}

// matrix appends the two arguments that a kernel takes for a view.
func matrix(args []uint64, wide bool, list ...view) []uint64 {
	for _, v := range list {
		args = append(args, uint64(v.ptr), num(v.stride)<<2|flag(wide)<<1|flag(v.bf16))
	}
	return args
}

// elementwise launches a kernel whose threads have 8 values each, or one.
func (d *device) elementwise(name string, rows, cols int, list []view, more ...uint64) {
	w := wide(cols, list...)
	var space [24]uint64
	args := matrix(space[:0], w, list...)
	args = append(args, num(rows), num(cols))
	d.overValues(name, w, rows*cols, append(args, more...))
}

func (d *device) overValues(name string, wide bool, n int, args []uint64) {
	if wide {
		n /= 8
	}
	d.launch(d.kernel(name), [3]int{blocks(n, 256), 1, 1}, [3]int{256, 1, 1}, 0, args...)
}

func (d *device) zero(m view) { d.elementwise("moot_zero", m.rows, m.cols, []view{m}) }

// copy also converts between types, to the nearest bfloat16, the even one of
// two.
func (d *device) copy(dst, src view) {
	mustShape("source", src, dst.rows, dst.cols)
	d.elementwise("moot_copy", dst.rows, dst.cols, []view{dst, src})
}

func (d *device) add(dst, src view) {
	mustShape("source", src, dst.rows, dst.cols)
	d.elementwise("moot_add", dst.rows, dst.cols, []view{dst, src})
}

func (d *device) addRow(m, row view) {
	mustShape("row", row, 1, m.cols)
	d.elementwise("moot_add_row", m.rows, m.cols, []view{m, row})
}

func (d *device) scale(m view, a float32) {
	d.elementwise("moot_scale", m.rows, m.cols, []view{m}, double(float64(a)))
}

func (d *device) clamp(m view, limit float32) {
	d.elementwise("moot_clamp", m.rows, m.cols, []view{m}, positive(limit))
}

func (d *device) clampBackward(dm, y view, limit float32) {
	mustShape("y", y, dm.rows, dm.cols)
	d.elementwise("moot_clamp_back", dm.rows, dm.cols, []view{dm, y}, positive(limit))
}

func (d *device) softCap(m view, limit float32) {
	d.elementwise("moot_soft_cap", m.rows, m.cols, []view{m}, positive(limit))
}

func (d *device) softCapBackward(dm, y view, limit float32) {
	mustShape("y", y, dm.rows, dm.cols)
	d.elementwise("moot_soft_cap_back", dm.rows, dm.cols, []view{dm, y}, positive(limit))
}

func positive(limit float32) uint64 {
	if !(limit > 0) {
		panic(fmt.Sprintf("bug: a limit of %v", limit))
	}
	return double(float64(limit))
}

func (d *device) swiGLU(out, gate, up view) {
	mustShape("gate", gate, out.rows, out.cols)
	mustShape("up", up, out.rows, out.cols)
	d.elementwise("moot_swiglu", out.rows, out.cols, []view{out, gate, up})
}

func (d *device) swiGLUBackward(dout, gate, up view) {
	mustShape("gate", gate, dout.rows, dout.cols)
	mustShape("up", up, dout.rows, dout.cols)
	d.elementwise("moot_swiglu_back", dout.rows, dout.cols, []view{dout, gate, up})
}

func (d *device) gelu(out, x, up view, kind tensor.GELU) {
	d.runGELU("moot_gelu", out, x, up, kind)
}

func (d *device) geluBackward(dout, x, up view, kind tensor.GELU) {
	d.runGELU("moot_gelu_back", dout, x, up, kind)
}

func (d *device) runGELU(name string, out, x, up view, kind tensor.GELU) {
	mustShape("x", x, out.rows, out.cols)
	if !up.none() {
		mustShape("up", up, out.rows, out.cols)
	}
	d.elementwise(name, out.rows, out.cols, []view{out, x, up}, flag(kind == tensor.GELUTanh))
}

// rope: the tables are float32 or bfloat16, too.
func (d *device) rope(x, cos, sin view, headDim int, pos []int32, back bool) {
	half := cos.cols
	mustShape("sin", sin, cos.rows, half)
	if half == 0 || headDim < 2*half || x.cols%headDim != 0 || len(pos) != x.rows {
		panic(fmt.Sprintf("bug: rotary tables (%d,%d), %d positions for (%d,%d) with heads of %d", cos.rows, half, len(pos), x.rows, x.cols, headDim))
	}
	sign := 1.0
	if back {
		sign = -1
	}
	heads := x.cols / headDim
	w := wide(half, x, cos, sin) && headDim%8 == 0
	var space [24]uint64
	args := matrix(space[:0], w, x, cos, sin)
	args = append(args, send(d, pos), num(x.rows), num(heads), num(headDim), num(half), double(sign))
	d.overValues("moot_rope", w, x.rows*heads*half, args)
}

// gather's source may be pinned memory of the host, by the address that the
// device has for it.
func (d *device) gather(dst, src view, idx []int32) {
	mustShape("destination", dst, len(idx), src.cols)
	mustIndex(idx, src.rows)
	d.indexed("moot_gather", dst, src, idx)
}

func (d *device) scatter(dst, src view, idx []int32) {
	mustShape("source", src, len(idx), dst.cols)
	mustIndex(idx, dst.rows)
	d.indexed("moot_scatter", dst, src, idx)
}

func (d *device) indexed(name string, dst, src view, idx []int32) {
	w := wide(dst.cols, dst, src)
	var space [24]uint64
	args := matrix(space[:0], w, dst, src)
	d.overValues(name, w, len(idx)*dst.cols, append(args, send(d, idx), num(len(idx)), num(dst.cols)))
}

// scatterAdd hands the kernel the rows of src in the order of where they go, so
// that one thread adds all that comes to a place, in the order of idx.
func (d *device) scatterAdd(dst, src view, idx []int32) {
	mustShape("source", src, len(idx), dst.cols)
	mustIndex(idx, dst.rows)
	order := make([]int32, len(idx))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return int(idx[a]) - int(idx[b]) })
	var to, starts []int32
	for i, at := range order {
		if i == 0 || idx[at] != to[len(to)-1] {
			to, starts = append(to, idx[at]), append(starts, int32(i))
		}
	}
	starts = append(starts, int32(len(order)))
	w := wide(dst.cols, dst, src)
	var space [24]uint64
	args := matrix(space[:0], w, dst, src)
	args = append(args, send(d, to), send(d, starts), send(d, order), num(len(to)), num(dst.cols))
	d.overValues("moot_scatter_add", w, len(to)*dst.cols, args)
}

func mustIndex(idx []int32, rows int) {
	for _, i := range idx {
		if i < 0 || int(i) >= rows {
			panic(fmt.Sprintf("bug: row %d of %d", i, rows))
		}
	}
}

// overRows launches a kernel that has a warp for each row, or, where rows are
// long, a block.
func (d *device) overRows(name string, rows, cols int, args []uint64) {
	whole := cols > 1024
	grid := rows
	if !whole {
		grid = blocks(rows, 8)
	}
	d.launch(d.kernel(name), [3]int{grid, 1, 1}, [3]int{256, 1, 1}, 0, append(args, flag(whole))...)
}

// rmsNorm: inv is (T,1).
func (d *device) rmsNorm(out, inv, x, w view, o tensor.RMSNorm) {
	mustShape("out", out, x.rows, x.cols)
	mustShape("inv", inv, x.rows, 1)
	mustShape("w", w, 1, x.cols)
	var space [24]uint64
	all := wide(x.cols, out, x, w)
	args := matrix(space[:0], all, out, inv, x, w)
	args = append(args, num(x.rows), num(x.cols), double(float64(o.Eps)), flag(o.PlusOne))
	d.overRows("moot_rmsnorm", x.rows, x.cols, args)
}

func (d *device) rmsNormBackward(dx, dw, dout, x, inv, w view, o tensor.RMSNorm) {
	mustShape("dx", dx, x.rows, x.cols)
	mustShape("dout", dout, x.rows, x.cols)
	mustShape("inv", inv, x.rows, 1)
	mustShape("w", w, 1, x.cols)
	if !dw.none() {
		d.sumParts("moot_sum_rmsnorm", dw, x.rows, dout, x, inv)
	}
	var space [24]uint64
	all := wide(x.cols, dx, dout, x, w)
	args := matrix(space[:0], all, dx, dout, x, inv, w)
	args = append(args, num(x.rows), num(x.cols), flag(o.PlusOne))
	d.overRows("moot_rmsnorm_back", x.rows, x.cols, args)
}

// layerNorm: stats is (T,2).
func (d *device) layerNorm(out, stats, x, w, bias view, eps float32) {
	mustShape("out", out, x.rows, x.cols)
	mustShape("stats", stats, x.rows, 2)
	mustShape("w", w, 1, x.cols)
	if !bias.none() {
		mustShape("bias", bias, 1, x.cols)
	}
	var space [24]uint64
	all := wide(x.cols, out, x, w, bias)
	args := matrix(space[:0], all, out, stats, x, w, bias)
	args = append(args, num(x.rows), num(x.cols), double(float64(eps)))
	d.overRows("moot_layernorm", x.rows, x.cols, args)
}

func (d *device) layerNormBackward(dx, dw, dbias, dout, x, stats, w view) {
	mustShape("dx", dx, x.rows, x.cols)
	mustShape("dout", dout, x.rows, x.cols)
	mustShape("stats", stats, x.rows, 2)
	mustShape("w", w, 1, x.cols)
	if !dw.none() {
		d.sumParts("moot_sum_layernorm", dw, x.rows, dout, x, stats)
	}
	if !dbias.none() {
		d.sumRows(dbias, dout)
	}
	var space [24]uint64
	all := wide(x.cols, dx, dout, x, w)
	args := matrix(space[:0], all, dx, dout, x, stats, w)
	args = append(args, num(x.rows), num(x.cols))
	d.overRows("moot_layernorm_back", x.rows, x.cols, args)
}

func (d *device) sumRows(row, m view) {
	mustShape("row", row, 1, m.cols)
	d.sumParts("moot_sum_rows", row, m.rows, m)
}

// sumParts adds to row the sum of what a kernel makes of rows, in two stages.
// How rows are divided depends on their number only.
func (d *device) sumParts(name string, row view, rows int, list ...view) {
	mustShape("sum", row, 1, list[0].cols)
	if rows == 0 || row.cols == 0 {
		return
	}
	part := max(64, blocks(blocks(rows, 128), 8)*8)
	parts := blocks(rows, part)
	at := d.workspace(parts * row.cols * 4)
	var space [24]uint64
	args := matrix(append(space[:0], uint64(at)), false, list...)
	args = append(args, num(rows), num(row.cols), num(part))
	d.launch(d.kernel(name), [3]int{blocks(row.cols, 32), parts, 1}, [3]int{256, 1, 1}, 0, args...)
	args = matrix(space[:0], false, row)
	args = append(args, uint64(at), num(parts), num(row.cols))
	d.launch(d.kernel("moot_sum_parts"), [3]int{blocks(row.cols, 128), 1, 1}, [3]int{128, 1, 1}, 0, args...)
}

// crossEntropy leaves the results on the device, float32 at nll and int32 at
// top, one for each row.
func (d *device) crossEntropy(logits view, labels []int32, gradScale float32, nll, top uintptr) {
	if len(labels) != logits.rows {
		panic(fmt.Sprintf("bug: %d labels for %d rows", len(labels), logits.rows))
	}
	mustIndex(labels, logits.cols)
	var space [24]uint64
	args := matrix(space[:0], wide(logits.cols, logits), logits)
	args = append(args, send(d, labels), uint64(nll), uint64(top), num(logits.cols), double(float64(gradScale)))
	threads := min(512, max(32, blocks(logits.cols, 256)*32))
	d.launch(d.kernel("moot_cross_entropy"), [3]int{logits.rows, 1, 1}, [3]int{threads, 1, 1}, 0, args...)
}

// sumSquares leaves the result on the device, a float64 at sum.
func (d *device) sumSquares(sum uintptr, m view) {
	columns := blocks(m.cols, 8192)
	parts := d.workspace(max(1, columns*m.rows) * 8)
	for from := 0; from < m.rows; from += 65535 { // the most that a grid has
		rows := m.rowRange(from, min(from+65535, m.rows))
		var space [24]uint64
		args := append(space[:0], uint64(parts)+uint64(8*from*columns))
		args = matrix(args, wide(m.cols, m), rows)
		d.launch(d.kernel("moot_sum_squares"), [3]int{columns, rows.rows, 1}, [3]int{256, 1, 1}, 0, append(args, num(m.cols))...)
	}
	d.launch(d.kernel("moot_sum_doubles"), [3]int{1, 1, 1}, [3]int{256, 1, 1}, 0, uint64(sum), uint64(parts), num(columns*m.rows))
}

// adamW: all are (1,N) of float32.
func (d *device) adamW(p, g, m, v view, o tensor.AdamW) {
	mustFloats(p.cols, p, g, m, v)
	t := float64(o.Step)
	d.launch(d.kernel("moot_adamw"), [3]int{blocks(p.cols, 256), 1, 1}, [3]int{256, 1, 1}, 0,
		ptr(p), ptr(g), ptr(m), ptr(v), num(p.cols), double(o.GradScale), double(1-o.LearningRate*o.WeightDecay),
		double(o.Beta1), double(o.Beta2), double(o.LearningRate/(1-math.Pow(o.Beta1, t))),
		double(1/math.Sqrt(1-math.Pow(o.Beta2, t))), double(o.Epsilon))
}

func mustFloats(n int, list ...view) {
	for _, v := range list {
		mustShape("vector", v, 1, n)
		if v.bf16 {
			panic("bug: an optimizer on 16 bits")
		}
	}
}

// moments8 are the addresses of a tensor's moments in eight bits: a byte for
// each value, a float32 for each 256.
type moments8 struct{ code, scale uintptr }

// adam8 is the step of one tensor as adam8 of package train makes it, with the
// same bits. maps is the address of 512 float32 values: those of the signed
// map, and those of the unsigned one.
func (d *device) adam8(p, g view, m, v moments8, maps uintptr, o tensor.AdamW) {
	mustFloats(p.cols, p, g)
	t := float64(o.Step)
	root := math.Sqrt(1 - math.Pow(o.Beta2, t))
	d.launch(d.kernel("moot_adam8"), [3]int{blocks(p.cols, 256), 1, 1}, [3]int{256, 1, 1}, 0,
		ptr(p), ptr(g), uint64(m.code), uint64(m.scale), uint64(v.code), uint64(v.scale), uint64(maps), num(p.cols),
		double(o.GradScale), double(1-o.LearningRate*o.WeightDecay), double(o.Beta1), double(o.Beta2),
		double(o.LearningRate*root/(1-math.Pow(o.Beta1, t))), double(o.Epsilon*root))
}

// sgd is a step of gradient descent as SGD of package train makes it, with the
// same bits; mean is none without momentum.
func (d *device) sgd(p, g, mean view, rate, gradScale, decay, momentum float64) {
	mustFloats(p.cols, p, g)
	if !mean.none() {
		mustFloats(p.cols, mean)
	}
	d.launch(d.kernel("moot_sgd"), [3]int{blocks(p.cols, 256), 1, 1}, [3]int{256, 1, 1}, 0,
		ptr(p), ptr(g), ptr(mean), num(p.cols), double(rate), double(gradScale), double(decay), double(momentum))
}
