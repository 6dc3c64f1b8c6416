package tensortest

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/node/internal/tensor"
)

// packed checks that buffers in less memory give the same bits as those of
// their values in float32.
func packed(t *testing.T, b tensor.Backend) {
	r := newRand()
	const rows, cols = 190, 130
	values := make([]float32, rows*cols)
	half := make(tensor.BF16, len(values))
	for i := range values {
		values[i] = float32(r.NormFloat64())
		half[i] = uint16(math.Float32bits(values[i]) >> 16)
	}
	four, err := nf4.New(values, rows, cols)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]tensor.Packed{"BF16": half, "NF4": four} {
		plain := make([]float32, len(values))
		p.DequantRange(plain, 0, len(plain))
		in32 := b.Alloc(len(plain)).Mat(0, rows, cols)
		b.Upload(in32, plain)
		small := b.Pack(p).Mat(0, rows, cols)

		all := make([]float32, len(plain))
		b.Download(all, small)
		if !slices.Equal(all, plain) {
			t.Errorf("%s: Download differs", name)
		}
		idx := []int32{3, 189, 3, 0}
		some := b.Alloc(4*20).Mat(0, 4, 20)
		b.Gather(some, small.ColRange(7, 27), idx)
		got := make([]float32, 4*20)
		b.Download(got, some)
		for i, at := range idx {
			if want := plain[int(at)*cols+7:][:20]; !slices.Equal(got[i*20:(i+1)*20], want) {
				t.Errorf("%s: Gather: row %d differs", name, at)
			}
		}
		for _, m := range []int{1, 2, 3, 13, 70} {
			for i := range 16 {
				o := tensor.MatMul{TransA: i&1 != 0, TransB: i&2 != 0, Add: i&4 != 0}
				x, y := in32, small
				if i&8 != 0 {
					x, y = x.RowRange(5, 152).ColRange(3, 36), y.RowRange(5, 152).ColRange(3, 36)
				}
				k, n := y.Rows, y.Cols
				if o.TransB {
					k, n = n, k
				}
				a := operand(b, r, m, k, 0, o.TransA)
				c1, c2 := random(b, r, m, n, 2), random(b, r, m, n, 2)
				c2.set(c1.want)
				b.MatMul(c1.Mat, a.Mat, x, o)
				b.MatMul(c2.Mat, a.Mat, y, o)
				want, got := make([]float32, m*n), make([]float32, m*n)
				b.Download(want, c1.Mat)
				b.Download(got, c2.Mat)
				if !slices.Equal(got, want) {
					t.Fatalf("%s: MatMul m=%d n=%d k=%d %s differs", name, m, n, k, fmt.Sprintf("%+v", o))
				}
			}
		}
	}
}
