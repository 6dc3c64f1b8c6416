//go:build cuda && cgo

package cuda

import (
	"fmt"
	"log/slog"
	"math"

	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/node/internal/tensor"
)

// Backend computes on a GPU. Its methods are called from one goroutine at a
// time. Those that return no number do not wait for the device.
type Backend struct {
	// constant after Open
	d       *device
	options Options
	sizes   tensor.Sizes

	// owned by the goroutine that calls
	buffers  map[*tensor.Buffer]*memory
	resultAt uintptr // device memory for results
	result   []byte
	rows     []float32 // that are gathered in the host's memory
	half     []uint16  // values on their way
	closed   bool
}

var (
	_ tensor.Backend  = (*Backend)(nil)
	_ tensor.EightBit = (*Backend)(nil)
)

// Built tells whether this binary can compute on a GPU.
const Built = true

// Open takes a GPU, and the memory that was planned.
func Open(o Options) (*Backend, error) {
	info, err := Query(o.Device)
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d, err := newDevice(o.Device)
	if err != nil {
		return nil, err
	}
	b := &Backend{d: d, options: o, sizes: info.Sizes(o.Float32), buffers: map[*tensor.Buffer]*memory{}}
	if err := b.start(); err != nil {
		_ = d.close() // the same error, or one that follows from it
		return nil, fmt.Errorf("cuda:%d: %w", o.Device, err)
	}
	return b, nil
}

// start looks for cuBLAS, and takes memory.
func (b *Backend) start() error {
	d, o := b.d, b.options
	d.arena.limit = int(o.MemoryBytes)
	if !o.Float32 {
		if err := d.openBLAS(); err != nil {
			o.Log.Info("products are computed without cuBLAS", "err", err)
		}
		var list []product
		for _, p := range o.Products {
			list = append(list, phantom(p, false))
		}
		if err := d.tune(list, o.Choices, o.Log); err != nil {
			return err
		}
		d.release() // what that took
	}
	if o.ReserveBytes > 0 {
		if err := d.reserve(int(o.ReserveBytes)); err != nil {
			return err
		}
	}
	if o.ScratchBytes > overheadBytes {
		d.workspace(int(o.ScratchBytes) - overheadBytes)
	}
	return d.err()
}

// Choices returns who computes the products that were measured, "own" or
// "cublas". Both are right, but they round in another order: who wants the same
// bits later gives them to Open again.
func (b *Backend) Choices() map[string]string {
	if b.d.blas == nil {
		return nil
	}
	return b.d.blas.choices()
}

// Sizes says what the backend takes memory for.
func (b *Backend) Sizes() tensor.Sizes { return b.sizes }

// Close gives the device back. It returns the first error of the device. A
// backend can be closed twice.
func (b *Backend) Close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	for buf, m := range b.buffers {
		if m.pinned != nil {
			b.Free(buf)
		}
	}
	b.d.dropBLAS()
	return b.d.close()
}

// Err returns the first error of the device.
func (b *Backend) Err() error { return b.d.err() }

// Name returns the device's name.
func (b *Backend) Name() string { return b.d.name }

// Usage is what is taken of a device's memory.
type Usage struct {
	Reserved int64 // from the driver
	Used     int64 // by buffers, now
	Peak     int64 // by buffers, at most
	Grown    int   // times that the driver was asked for more than was reserved first
}

// Usage returns what is taken of the device's memory. The driver's own share,
// some hundred megabytes for context and code, is not part of it.
func (b *Backend) Usage() Usage {
	a := &b.d.arena
	return Usage{Reserved: int64(a.size()), Used: int64(a.used), Peak: int64(a.peak), Grown: a.grown}
}

// Precision says what matrix products of activations are computed with.
func (b *Backend) Precision() string { return precision(b.d.capability, b.options.Float32) }

// memory is a buffer's: Buffer.Device.
type memory struct {
	ptr    uintptr
	bytes  int
	weight *nf4Matrix    // of four bits
	host   tensor.Packed // stays there
	pinned []byte        // of the host, instead of ptr
}

// Alloc returns n zeros.
func (b *Backend) Alloc(n int) *tensor.Buffer { return b.zeros(n, tensor.Float32) }

// AllocActivations returns n zeros, of 16 bits unless Options.Float32.
func (b *Backend) AllocActivations(n int) *tensor.Buffer {
	return b.zeros(n, b.ActivationType())
}

// AllocOffload returns pinned memory of the host for n activations.
func (b *Backend) AllocOffload(n int) *tensor.Buffer {
	t := b.ActivationType()
	m := &memory{bytes: n * t.Bytes()}
	buf := &tensor.Buffer{Len: n, Type: t, Device: m}
	if m.pinned = b.d.allocPinned(m.bytes); m.pinned != nil {
		b.buffers[buf] = m
	}
	return buf
}

// ActivationType is the type of what AllocActivations returns.
func (b *Backend) ActivationType() tensor.DType {
	if b.options.Float32 {
		return tensor.Float32
	}
	return tensor.BFloat16
}

func (b *Backend) zeros(n int, t tensor.DType) *tensor.Buffer {
	buf := b.buffer(n, t, n*t.Bytes())
	if m := mem(buf); m.ptr != 0 {
		b.d.fill(m.ptr, m.bytes)
	}
	return buf
}

// buffer takes memory, or makes the device fail and returns a buffer without.
func (b *Backend) buffer(n int, t tensor.DType, bytes int) *tensor.Buffer {
	m := &memory{bytes: bytes}
	buf := &tensor.Buffer{Len: n, Type: t, Device: m}
	if b.Err() != nil {
		return buf
	}
	p, err := b.d.alloc(bytes)
	if err != nil {
		b.d.fail(fmt.Errorf("memory for %d values: %w", n, err))
		return buf
	}
	m.ptr = p
	b.buffers[buf] = m
	return buf
}

// Free gives a buffer's memory back.
func (b *Backend) Free(buf *tensor.Buffer) {
	if buf == nil || b.buffers[buf] == nil {
		return
	}
	if m := mem(buf); m.pinned != nil {
		b.d.freePinned(m.pinned)
	} else {
		b.d.free(m.ptr)
	}
	delete(b.buffers, buf)
	*mem(buf) = memory{}
}

// mem returns the memory of a buffer.
func mem(buf *tensor.Buffer) *memory {
	m, ok := buf.Device.(*memory)
	if !ok {
		panic("bug: a buffer of another backend")
	}
	return m
}

// view returns m as kernels get it.
func (b *Backend) view(m tensor.Mat) view {
	if m.None() {
		return view{}
	}
	at := mem(m.Buf)
	if at.weight != nil || at.host != nil || at.pinned != nil {
		panic("bug: packed values where only others can be")
	}
	v := view{ptr: at.ptr, rows: m.Rows, cols: m.Cols, stride: m.Stride, bf16: m.Buf.Type == tensor.BFloat16}
	if v.ptr != 0 { // else there was no memory, and nothing will run
		v.ptr += uintptr(m.Off * v.elem())
	}
	return v
}

// PackHost leaves the values in the host's memory.
func (b *Backend) PackHost(p tensor.Packed) *tensor.Buffer {
	return &tensor.Buffer{Len: p.Len(), Device: &memory{host: p}}
}

// Pack copies the values to the device as they are.
func (b *Backend) Pack(p tensor.Packed) *tensor.Buffer {
	switch p := p.(type) {
	case tensor.BF16:
		buf := b.buffer(p.Len(), tensor.BFloat16, 2*p.Len())
		b.d.toDevice(mem(buf).ptr, bytesOf(p))
		return buf
	case *nf4.Weight:
		return b.packNF4(p)
	}
	buf := b.buffer(p.Len(), tensor.Float32, 4*p.Len())
	const piece = 1 << 20
	values := make([]float32, min(piece, p.Len()))
	for at := 0; at < p.Len(); at += piece {
		part := values[:min(piece, p.Len()-at)]
		p.DequantRange(part, at, at+len(part))
		b.Upload(buf.Mat(at, 1, len(part)), part)
	}
	return buf
}

// Upload copies src, dense, to dst.
func (b *Backend) Upload(dst tensor.Mat, src []float32) {
	if len(src) != dst.Rows*dst.Cols {
		panic(fmt.Sprintf("bug: upload of %d values to (%d,%d)", len(src), dst.Rows, dst.Cols))
	}
	v, data := b.view(dst), bytesOf(src)
	if v.bf16 {
		b.half = grow(b.half, len(src))
		for i, x := range src {
			b.half[i] = roundBF16(x)
		}
		data = bytesOf(b.half[:len(src)])
	}
	b.d.toDevice2D(v, data)
}

// Download copies src to dst, dense. After an error it sets dst to NaN.
func (b *Backend) Download(dst []float32, src tensor.Mat) {
	if len(dst) != src.Rows*src.Cols {
		panic(fmt.Sprintf("bug: download of (%d,%d) to %d values", src.Rows, src.Cols, len(dst)))
	}
	if m := mem(src.Buf); m.host != nil {
		for i := range src.Rows {
			at := src.Off + i*src.Stride
			m.host.DequantRange(dst[i*src.Cols:(i+1)*src.Cols], at, at+src.Cols)
		}
		return
	}
	v, free := b.plain(src)
	defer free()
	if !v.bf16 {
		b.d.toHost2D(bytesOf(dst), v)
	} else {
		half := make([]uint16, len(dst))
		b.d.toHost2D(bytesOf(half), v)
		for i, x := range half {
			dst[i] = math.Float32frombits(uint32(x) << 16)
		}
	}
	if b.Err() != nil {
		poison(dst)
	}
}

// plain returns a view of a matrix that may be of four bits, and what to call
// when it was used. It is slow for those: only products take them as they are.
func (b *Backend) plain(m tensor.Mat) (v view, free func()) {
	w := mem(m.Buf).weight
	if w == nil {
		return b.view(m), func() {}
	}
	p, err := b.d.alloc(4 * w.rows * w.cols)
	if err != nil {
		b.d.fail(fmt.Errorf("memory for the values of a matrix of four bits: %w", err))
		return view{rows: m.Rows, cols: m.Cols, stride: m.Stride}, func() {}
	}
	b.d.dequant(view{ptr: p, rows: w.rows, cols: w.cols, stride: w.cols}, w)
	return view{ptr: p + uintptr(4*m.Off), rows: m.Rows, cols: m.Cols, stride: m.Stride}, func() { b.d.free(p) }
}

func (b *Backend) packNF4(w *nf4.Weight) *tensor.Buffer {
	m := &memory{bytes: nf4Bytes(w), weight: &nf4Matrix{rows: w.Rows, cols: w.Cols}}
	buf := &tensor.Buffer{Len: w.Len(), Device: m}
	if b.Err() != nil {
		return buf
	}
	weight, err := b.d.uploadNF4(w)
	if err != nil {
		b.d.fail(fmt.Errorf("memory for %d weights of four bits: %w", w.Len(), err))
		return buf
	}
	m.ptr, m.weight = weight.base, weight
	b.buffers[buf] = m
	return buf
}

// poison makes numbers of a device that failed unusable.
func poison(values []float32) {
	for i := range values {
		values[i] = float32(math.NaN())
	}
}

// roundBF16 rounds to nearest, to even.
func roundBF16(x float32) uint16 {
	u := math.Float32bits(x)
	if u&0x7fffffff > 0x7f800000 { // NaN stays one
		return uint16(u>>16) | 0x40
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}
