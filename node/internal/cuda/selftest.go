//go:build cuda && cgo

package cuda

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/moot-net/moot/node/internal/cuda/cuext"
	"github.com/moot-net/moot/node/internal/cuda/cushim"
	"github.com/moot-net/moot/node/internal/tensor"
)

// SelfTest computes on a GPU, compares with what the host computes, and
// measures how fast it is. It takes about a second.
func SelfTest(ordinal int) (Test, error) {
	b, err := Open(Options{Device: ordinal})
	if err != nil {
		return Test{}, err
	}
	t, err := b.selfTest()
	return t, errors.Join(err, b.Close())
}

func (b *Backend) selfTest() (t Test, err error) {
	began := time.Now()
	if t.Error, err = b.compare(); err != nil {
		return t, err
	}
	if err := b.speed(&t); err != nil {
		return t, err
	}
	t.Took = time.Since(began)
	return t, b.Err()
}

// worstError is what rounding to 16 bits can come to.
const worstError = 0.02

// compare returns the relative error of a product with numbers that have a
// norm of one.
func (b *Backend) compare() (float64, error) {
	const rows, cols, inner = 192, 160, 320
	r := rand.New(rand.NewPCG(1, 2))
	matrix := func(rows, cols int) (tensor.Mat, []float32) {
		m := b.AllocActivations(rows*cols).Mat(0, rows, cols)
		v := make([]float32, rows*cols)
		for i := range v {
			v[i] = float32(r.NormFloat64() / math.Sqrt(inner))
		}
		b.Upload(m, v)
		return m, v
	}
	x, xs := matrix(rows, inner)
	w, ws := matrix(cols, inner)
	c := b.Alloc(rows*cols).Mat(0, rows, cols)
	b.MatMul(c, x, w, tensor.MatMul{TransB: true})
	got := make([]float32, rows*cols)
	b.Download(got, c)
	for _, m := range []tensor.Mat{x, w, c} {
		b.Free(m.Buf)
	}
	if err := b.Err(); err != nil {
		return 0, err
	}
	var wrong, size float64
	for i := range rows {
		for j := range cols {
			want := 0.
			for k := range inner {
				want += float64(xs[i*inner+k]) * float64(ws[j*inner+k])
			}
			d := float64(got[i*cols+j]) - want
			wrong, size = wrong+d*d, size+want*want
		}
	}
	e := math.Sqrt(wrong / size)
	if !(e < worstError) {
		return e, fmt.Errorf("a product of matrices is wrong by %.2g of its size", e)
	}
	return e, nil
}

// speed measures products of square matrices, as large as it takes to keep the
// device busy for some milliseconds, and copies.
func (b *Backend) speed(t *Test) error {
	d := b.d
	for n := 256; n <= 8192; n *= 2 {
		at, err := d.alloc(3 * 2 * n * n)
		if err != nil {
			break // the size before will do
		}
		matrix := func(i int) view {
			return view{ptr: at + uintptr(2*i*n*n), rows: n, cols: n, stride: n, bf16: true}
		}
		p := product{c: matrix(0), a: matrix(1), b: matrix(2), transB: true}
		d.fillOnes(at, 6*n*n)
		measure := func(force string) (flops float64) {
			if d.blas != nil {
				d.blas.force = force
			}
			took := d.clock(func() { d.matMul(p) })
			return 2 * float64(n) * float64(n) * float64(n) / took.Seconds()
		}
		t.Size, t.TFLOPS = n, measure("own")/1e12
		if d.blas != nil {
			t.CuBLASTFLOPS = measure("cublas") / 1e12
			d.blas.force = ""
		}
		src, dst := view{ptr: at, rows: n, cols: n, stride: n, bf16: true}, view{ptr: at + uintptr(2*n*n), rows: n, cols: n, stride: n, bf16: true}
		t.CopyGBs = 4 * float64(n) * float64(n) / d.clock(func() { d.copy(dst, src) }).Seconds() / 1e9
		d.free(at)
		if err := d.err(); err != nil {
			return err
		}
		if 2*float64(n)*float64(n)*float64(n)/(t.TFLOPS*1e12) > 4e-3 {
			break
		}
	}
	return d.err()
}

// ErrorKind names what kept a GPU from being used: "no_library", "no_driver",
// "old_driver", "no_permission", "no_device", "no_memory", or "failed".
func ErrorKind(err error) string {
	for _, k := range []struct {
		err  error
		kind string
	}{
		{cushim.ErrNoLibrary, "no_library"},
		{cushim.ErrPermission, "no_permission"},
		{cushim.ErrNoDevice, "no_device"},
		{cushim.ErrNoDriver, "no_driver"},
		{ErrOldDriver, "old_driver"},
		{ErrOldDevice, "old_device"},
		{cuext.ErrOutOfMemory, "no_memory"},
	} {
		if errors.Is(err, k.err) {
			return k.kind
		}
	}
	return "failed"
}

// hint is the way out for each kind of error.
var hints = map[string]string{
	"no_library":    "install NVIDIA's driver (nvidia-smi comes with it), or set " + cushim.Env + " to the path of its library",
	"no_driver":     "the library and the kernel's driver do not fit: reboot after an update of the driver, or install it again",
	"no_device":     "look whether nvidia-smi lists the GPU; CUDA_VISIBLE_DEVICES can hide it",
	"no_permission": "add the user to the group that owns /dev/nvidia0 (often video or render)",
	"old_driver":    "install driver " + minDriver,
	"old_device":    "compute on the CPU with --device cpu",
	"no_memory":     "close programs that use the GPU; nvidia-smi lists them",
	"failed":        "nvidia-smi and the kernel's log (dmesg) may tell more",
}

// Hint returns the way out of an error.
func Hint(err error) string { return hints[ErrorKind(err)] }
