//go:build cuda && cgo

package cuda

import (
	"errors"
	"fmt"

	"gorgonia.org/cu"

	"github.com/moot-net/moot/node/internal/cuda/cuext"
)

// fill sets bytes, a multiple of 2, to zero.
func (d *device) fill(p uintptr, bytes int) {
	d.later(func() error {
		return call("cuMemsetD16Async", cu.MemsetD16Async(cu.DevicePtr(p), 0, int64(bytes/2), d.stream))
	})
}

// fillOnes sets bytes, a multiple of 2, to ones of bf16: products of zeros would
// take less power, and so less time.
func (d *device) fillOnes(p uintptr, bytes int) {
	d.later(func() error {
		return call("cuMemsetD16Async", cu.MemsetD16Async(cu.DevicePtr(p), 0x3f80, int64(bytes/2), d.stream))
	})
}

// toDevice copies, and returns when it did.
func (d *device) toDevice(dst uintptr, src []byte) {
	d.do(func() error {
		return errors.Join(cuext.ToDevice(dst, src, d.stream), call("cuStreamSynchronize", d.stream.Synchronize()))
	})
}

// toDevice2D copies dense values of the right type to a matrix.
func (d *device) toDevice2D(dst view, src []byte) {
	if dst.rows*dst.cols == 0 {
		return
	}
	if dst.dense() {
		d.toDevice(dst.ptr, src)
		return
	}
	d.do(func() error {
		return errors.Join(cuext.ToDevice2D(dst.ptr, dst.stride*dst.elem(), src, dst.cols*dst.elem(), dst.rows, d.stream),
			call("cuStreamSynchronize", d.stream.Synchronize()))
	})
}

// toHost copies, after everything before it.
func (d *device) toHost(dst []byte, src uintptr) {
	d.do(func() error {
		return errors.Join(cuext.ToHost(dst, src, d.stream), call("cuStreamSynchronize", d.stream.Synchronize()))
	})
}

// toHost2D copies a matrix to dense values.
func (d *device) toHost2D(dst []byte, src view) {
	if src.rows*src.cols == 0 {
		return
	}
	if src.dense() {
		d.toHost(dst, src.ptr)
		return
	}
	d.do(func() error {
		return errors.Join(cuext.ToHost2D(dst, src.ptr, src.stride*src.elem(), src.cols*src.elem(), src.rows, d.stream),
			call("cuStreamSynchronize", d.stream.Synchronize()))
	})
}

// allocPinned returns memory of the host, or makes the device fail and returns
// nil.
func (d *device) allocPinned(bytes int) (b []byte) {
	d.do(func() (err error) {
		if b, err = cuext.HostAlloc(bytes); err != nil {
			return fmt.Errorf("%s of pinned memory of the host: %w", mebi(bytes), err)
		}
		return nil
	})
	return b
}

// freePinned frees it after everything before it.
func (d *device) freePinned(b []byte) {
	d.always(func() error {
		return errors.Join(call("cuStreamSynchronize", d.stream.Synchronize()), cuext.HostFree(b))
	})
}
