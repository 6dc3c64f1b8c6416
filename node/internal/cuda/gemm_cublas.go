//go:build cuda && cgo

package cuda

import (
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"os"
	"time"

	"gorgonia.org/cu"

	"github.com/moot-net/moot/node/internal/cuda/cublas"
)

// gemmEnv names the variable that says who computes products on tensor cores:
// "own" or "cublas". Without it the faster one does, as tune measured, or cuBLAS
// if there was no measurement.
const gemmEnv = "MOOT_GEMM"

// blas is cuBLAS on one device. Its handle is made at the first product.
type blas struct {
	name    string // of the library
	version int    // once there is a handle
	force   string // "own", "cublas" or ""
	slower  map[gemmClass]bool

	// owned by the device's goroutine
	handle    *cublas.Handle
	workspace cu.DevicePtr
}

// openBLAS gives the device cuBLAS, if it is there and of use: before compute
// capability 8.0 there is no bf16 for it to be fast with. The error says why not.
func (d *device) openBLAS() error {
	if d.capability < 80 {
		return fmt.Errorf("cuBLAS is not used for compute capability %d.%d, which has no bf16", d.capability/10, d.capability%10)
	}
	force := os.Getenv(gemmEnv)
	switch force {
	case "", "cublas":
	case "own":
		return fmt.Errorf("cuBLAS is turned off by %s", gemmEnv)
	default:
		return fmt.Errorf("%s is %q, must be own or cublas", gemmEnv, force)
	}
	name, err := cublas.Open()
	if err != nil {
		return err
	}
	d.blas = &blas{name: name, force: force, slower: map[gemmClass]bool{}}
	return nil
}

// workspaceBytes is what cuBLAS gets, as NVIDIA recommends.
func (d *device) blasWorkspaceBytes() int {
	if d.capability >= 90 {
		return 32 << 20
	}
	return 8 << 20
}

// start is called on the device's thread.
func (b *blas) start(d *device) error {
	if b.handle != nil {
		return nil
	}
	p, err := cu.MemAlloc(int64(d.blasWorkspaceBytes()))
	if err != nil {
		return fmt.Errorf("workspace of cuBLAS: %w", call("cuMemAlloc", err))
	}
	h, err := cublas.New(d.stream, uintptr(p), d.blasWorkspaceBytes())
	if err != nil {
		return errors.Join(err, call("cuMemFree", cu.MemFree(p)))
	}
	b.handle, b.workspace, b.version = h, p, h.Version
	return nil
}

// dropBLAS frees what cuBLAS has taken of the device. The next product takes it
// again.
func (d *device) dropBLAS() {
	b := d.blas
	if b == nil {
		return
	}
	d.always(func() error {
		if b.handle == nil {
			return nil
		}
		err := errors.Join(call("cuStreamSynchronize", d.stream.Synchronize()), b.handle.Close(), call("cuMemFree", cu.MemFree(b.workspace)))
		b.handle = nil
		return err
	})
}

// product computes p, whose a and b are bf16. The second pair is a second
// product, and the bias a sum afterwards, so that c in bf16 is rounded more than
// once.
func (b *blas) product(d *device, p product) {
	d.later(func() error { return b.start(d) })
	b.pair(d, p, p.a, p.b, p.add)
	if !p.a2.none() {
		b.pair(d, p, p.a2, p.b2, true)
	}
	if !p.bias.none() {
		d.addRow(p.c, p.bias)
	}
}

func (b *blas) pair(d *device, p product, x, y view, add bool) {
	g := &cublas.Product{
		A: cublas.Matrix{Ptr: x.ptr, Stride: max(x.stride, x.cols, 1), Trans: p.transA},
		B: cublas.Matrix{Ptr: y.ptr, Stride: max(y.stride, y.cols, 1), Trans: p.transB},
		C: cublas.Matrix{Ptr: p.c.ptr, Stride: max(p.c.stride, p.c.cols)},
		M: p.c.rows, N: p.c.cols, K: x.cols, CBF16: p.c.bf16, Alpha: p.alpha,
	}
	if p.transA {
		g.K = x.rows
	}
	if add {
		g.Beta = 1
	}
	d.later(func() error {
		if b.handle == nil {
			return nil // it could not be made, which is known
		}
		if err := b.handle.Gemm(g); err != nil {
			return fmt.Errorf("product (%d,%d) by (%d,%d): %w", g.M, g.K, g.K, g.N, err)
		}
		return nil
	})
}

// gemmClass are products that are about equally fast: equal transpositions and
// types, sizes within a factor of two.
type gemmClass struct {
	transA, transB, cBF16, pair bool
	rows, cols, k               int // bits
}

func (g *gemmPlan) class(p product) gemmClass {
	size := func(n int) int { return bits.Len(uint(max(n, 1) - 1)) }
	return gemmClass{
		transA: p.transA, transB: p.transB, cBF16: p.c.bf16, pair: g.k2 > 0,
		rows: size(g.rows), cols: size(g.cols), k: size(g.k),
	}
}

func (c gemmClass) String() string {
	letter := func(t bool) string {
		if t {
			return "t"
		}
		return "n"
	}
	s := fmt.Sprintf("%s%s %dx%dx%d", letter(c.transA), letter(c.transB), 1<<c.rows, 1<<c.cols, 1<<c.k)
	if c.pair {
		s += " lora"
	}
	if !c.cBF16 {
		s += " float32"
	}
	return s
}

// chosen reports whether cuBLAS computes products of class c.
func (b *blas) chosen(c gemmClass) bool {
	return b.force == "cublas" || (b.force == "" && !b.slower[c])
}

// choices returns who computes each class that was measured, by the class's
// name. The two give other bits, so what must be repeated to the bit repeats the
// choices: see adopt.
func (b *blas) choices() map[string]string {
	m := map[string]string{}
	for c, slower := range b.slower {
		m[c.String()] = map[bool]string{true: "own", false: "cublas"}[slower]
	}
	return m
}

// tune measures, for each of the products that are to come, our own kernel and
// cuBLAS, and chooses. known are choices made before, which stay. Values do not
// matter, and views need no memory: it takes its own, and leaves out what does
// not fit.
func (d *device) tune(list []product, known map[string]string, log *slog.Logger) error {
	b := d.blas
	if b == nil || b.force != "" {
		return nil
	}
	done := map[gemmClass]bool{}
	for _, p := range list {
		p = d.placed(p)
		b.force = "own"
		g := d.plan(p)
		b.force = ""
		c := g.class(p)
		if g.method != mma || done[c] {
			continue
		}
		done[c] = true
		if who, ok := known[c.String()]; ok {
			b.slower[c] = who == "own"
			continue
		}
		took, err := d.race(p)
		if err != nil {
			return fmt.Errorf("measure products %v: %w", c, err)
		}
		if took == nil {
			log.Debug("products not measured, no memory for them", "product", c.String())
			continue
		}
		b.slower[c] = took[0] < took[1]
		flop := 2 * float64(g.rows) * float64(g.cols) * float64(g.k+g.k2)
		log.Info("products measured", "product", c.String(), "own_tflops", flop/took[0].Seconds()/1e12, "cublas_tflops", flop/took[1].Seconds()/1e12)
	}
	return d.err()
}

// placed gives the views of p addresses in scratch memory that begins at 256:
// race moves them to where it is.
func (d *device) placed(p product) product {
	at := uintptr(alignment)
	for _, v := range []*view{&p.a, &p.b, &p.c, &p.a2, &p.b2} {
		if v.rows*v.cols == 0 {
			*v = view{}
			continue
		}
		v.stride = blocks(v.cols, 8) * 8
		v.ptr = at
		at += uintptr(blocks(v.rows*v.stride*v.elem(), alignment) * alignment)
	}
	p.bias = view{}
	return p
}

// race returns how long our own kernel and cuBLAS take for p, or nil if there is
// no memory.
func (d *device) race(p product) ([]time.Duration, error) {
	end := uintptr(alignment)
	for _, v := range []view{p.a, p.b, p.c, p.a2, p.b2} {
		if !v.none() {
			end = max(end, v.ptr+uintptr(v.rows*v.stride*v.elem()))
		}
	}
	base, err := d.alloc(int(end))
	if err != nil {
		return nil, nil //nolint:nilerror // no memory: not measured
	}
	defer d.free(base)
	for _, v := range []*view{&p.a, &p.b, &p.c, &p.a2, &p.b2} {
		if !v.none() {
			v.ptr += base
		}
	}
	d.later(func() error { // ones: products of zeros take less power, and so less time
		return call("cuMemsetD16Async", cu.MemsetD16Async(cu.DevicePtr(base), 0x3f80, int64(end/2), d.stream))
	})
	took := make([]time.Duration, 2)
	for i, who := range []string{"own", "cublas"} {
		d.blas.force = who
		took[i] = d.clock(func() { d.matMul(p) })
	}
	d.blas.force = ""
	return took, d.err()
}

// clock returns the least time that fn takes of some runs, each long enough for
// a clock.
func (d *device) clock(fn func()) time.Duration {
	fn() // compiles, allocates
	d.sync()
	n, best := 1, time.Duration(0)
	for run := 0; run < 4; {
		start := time.Now()
		for range n {
			fn()
		}
		d.sync()
		took := time.Since(start)
		if took < 2*time.Millisecond && n < 1<<10 && d.failed.Load() == nil {
			n *= 4
			continue
		}
		if took /= time.Duration(n); best == 0 || took < best {
			best = took
		}
		run++
	}
	return best
}
