package cpu

import (
	"math"

	"github.com/moot-net/moot/node/internal/tensor"
)

// LayerNorm sets out = (x - mean) * inv * w + bias for each row.
func (b *Backend) LayerNorm(out, stats, x, w, bias tensor.Mat, eps float32) {
	mustShape("out", out, x.Rows, x.Cols)
	mustShape("stats", stats, x.Rows, 2)
	mustShape("w", w, 1, x.Cols)
	if !bias.None() {
		mustShape("bias", bias, 1, x.Cols)
	}
	b.rowOp = rowTask{u: out, v: stats, x: x, w: w, y: bias, a: eps}
	b.rowOp.fn = func(t *rowTask, i, j int) {
		w := t.w.HostRow(0)
		for ; i < j; i++ {
			x, out, stats := t.x.HostRow(i), t.u.HostRow(i), t.v.HostRow(i)
			mean := float32(sum(x) / float64(len(x)))
			for c, v := range x {
				out[c] = v - mean
			}
			variance := float64(t.k.dot(out, out)) / float64(len(x))
			inv := float32(1 / math.Sqrt(variance+float64(t.a)))
			stats[0], stats[1] = mean, inv
			t.k.mulScale(out, out, w, inv)
			if !t.y.None() {
				t.k.add(out, t.y.HostRow(0))
			}
		}
	}
	b.overRows(x.Rows, 3*x.Cols)
}

// sum adds in four lanes.
func sum(x []float32) float64 {
	var s0, s1, s2, s3 float64
	i := 0
	for ; i+4 <= len(x); i += 4 {
		s0 += float64(x[i])
		s1 += float64(x[i+1])
		s2 += float64(x[i+2])
		s3 += float64(x[i+3])
	}
	for ; i < len(x); i++ {
		s0 += float64(x[i])
	}
	return (s0 + s1) + (s2 + s3)
}

// LayerNormBackward adds the derivatives by x, w and bias.
func (b *Backend) LayerNormBackward(dx, dw, dbias, dout, x, stats, w tensor.Mat) {
	mustShape("dx", dx, x.Rows, x.Cols)
	mustShape("dout", dout, x.Rows, x.Cols)
	mustShape("stats", stats, x.Rows, 2)
	mustShape("w", w, 1, x.Cols)
	if !dw.None() {
		mustShape("dw", dw, 1, x.Cols)
		row := dw.HostRow(0)
		for i := range x.Rows {
			xi, di, mean, inv := x.HostRow(i), dout.HostRow(i), stats.HostRow(i)[0], stats.HostRow(i)[1]
			for c := range row {
				row[c] += di[c] * ((xi[c] - mean) * inv)
			}
		}
	}
	if !dbias.None() {
		b.SumRows(dbias, dout)
	}
	b.rowOp = rowTask{u: dx, v: stats, w: w, x: x, y: dout}
	b.rowOp.fn = func(t *rowTask, i, j int) {
		w := t.w.HostRow(0)
		for ; i < j; i++ {
			layerNormBack(t.u.HostRow(i), t.y.HostRow(i), w, t.x.HostRow(i), t.v.HostRow(i))
		}
	}
	b.overRows(x.Rows, 3*x.Cols)
}

// layerNormBack adds inv * (g - mean(g) - y*mean(g*y)) to dx, where g is dy*w
// and y the normalised x.
func layerNormBack(dx, dy, w, x, stats []float32) {
	mean, inv := stats[0], stats[1]
	dy, w, x = dy[:len(dx)], w[:len(dx)], x[:len(dx)]
	var s0, s1, p0, p1 float32
	i := 0
	for ; i+2 <= len(dx); i += 2 {
		g0, g1 := dy[i]*w[i], dy[i+1]*w[i+1]
		s0 += g0
		s1 += g1
		p0 += g0 * (x[i] - mean)
		p1 += g1 * (x[i+1] - mean)
	}
	for ; i < len(dx); i++ {
		g := dy[i] * w[i]
		s0 += g
		p0 += g * (x[i] - mean)
	}
	n := float32(len(dx))
	gMean, slope := (s0+s1)/n, (p0+p1)/n*inv*inv
	for i := range dx {
		dx[i] += inv * (dy[i]*w[i] - gMean - (x[i]-mean)*slope)
	}
}
