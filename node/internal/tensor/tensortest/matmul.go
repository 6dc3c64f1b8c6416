package tensortest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/moot-net/moot/node/internal/tensor"
)

func matMul(t *testing.T, b tensor.Backend) {
	r := newRand()
	shapes := [][3]int{
		{1, 1, 1},
		{1, 40, 33},
		{2, 17, 100},
		{3, 5, 7},
		{6, 16, 8},
		{7, 17, 9},
		{12, 32, 64},
		{13, 31, 65},
		{5, 3, 0},
		{64, 64, 64},
		{130, 50, 330},
		{16, 300, 90},
		{250, 16, 48},
		{33, 1100, 20},
		{4, 4, 700},
	}
	for _, s := range shapes {
		if testing.Short() && s[0]*s[1]*s[2] > 1<<18 {
			continue
		}
		for i := range 16 {
			o := tensor.MatMul{TransA: i&1 != 0, TransB: i&2 != 0, Add: i&4 != 0}
			pad := 0
			if i&8 != 0 {
				pad, o.Alpha = 3, -0.75
			}
			what := fmt.Sprintf("m=%d n=%d k=%d %+v", s[0], s[1], s[2], o)
			x, y := operand(b, r, s[0], s[2], pad, o.TransA), operand(b, r, s[2], s[1], pad, o.TransB)
			c := random(b, r, s[0], s[1], pad)
			b.MatMul(c.Mat, x.Mat, y.Mat, o)
			c.want = product(c, x, y, s[2], o)
			c.check(t, what, 3e-5)
			x.check(t, what+": a", 0)
			y.check(t, what+": b", 0)
		}
	}
}

// matMulSum checks a backend that fuses.
func matMulSum(t *testing.T, b tensor.Backend) {
	f, ok := b.(tensor.Fuser)
	if !ok {
		t.Skip("it does not fuse")
	}
	r := newRand()
	for _, s := range [][4]int{{1, 1, 1, 1}, {3, 5, 7, 2}, {13, 31, 65, 8}, {64, 64, 64, 16}, {130, 50, 330, 3}, {16, 300, 90, 33}} {
		for i := range 32 {
			o := tensor.MatMul{TransA: i&1 != 0, TransB: i&2 != 0, Add: i&4 != 0}
			x, y := operand(b, r, s[0], s[2], 3, o.TransA), operand(b, r, s[2], s[1], 1, o.TransB)
			x2, y2 := operand(b, r, s[0], s[3], 2, o.TransA), operand(b, r, s[3], s[1], 0, o.TransB)
			bias, c := random(b, r, 1, s[1], 0), random(b, r, s[0], s[1], 2)
			what := fmt.Sprintf("MatMulSum m=%d n=%d k=%d and %d %+v", s[0], s[1], s[2], s[3], o)
			biasMat, x2Mat, y2Mat := bias.Mat, x2.Mat, y2.Mat
			if i&8 != 0 {
				biasMat = tensor.Mat{}
				clear(bias.want)
			}
			if i&16 != 0 {
				x2Mat, y2Mat = tensor.Mat{}, tensor.Mat{}
				clear(x2.want)
			}
			f.MatMulSum(c.Mat, x.Mat, y.Mat, x2Mat, y2Mat, biasMat, o)
			c.want = product(c, x, y, s[2], o)
			o.Add = true
			c.want = product(c, x2, y2, s[3], o)
			for j := range c.want {
				c.want[j] += bias.want[j%s[1]]
			}
			c.check(t, what, 3e-5)
		}
	}
}

func operand(b tensor.Backend, r *rand.Rand, rows, cols, pad int, trans bool) mat {
	if trans {
		rows, cols = cols, rows
	}
	return random(b, r, rows, cols, pad)
}

func product(c, x, y mat, k int, o tensor.MatMul) []float64 {
	alpha := float64(o.Alpha)
	if alpha == 0 {
		alpha = 1
	}
	want := make([]float64, len(c.want))
	for i := range c.Rows {
		for j := range c.Cols {
			s := 0.0
			for p := range k {
				xi, yi := i*x.Cols+p, p*y.Cols+j
				if o.TransA {
					xi = p*x.Cols + i
				}
				if o.TransB {
					yi = j*y.Cols + p
				}
				s += x.want[xi] * y.want[yi]
			}
			want[i*c.Cols+j] = alpha * s
			if o.Add {
				want[i*c.Cols+j] += c.want[i*c.Cols+j]
			}
		}
	}
	return want
}
