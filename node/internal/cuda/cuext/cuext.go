//go:build cuda && cgo

// Package cuext has the calls of the CUDA driver API that gorgonia.org/cu
// v0.9.6 lacks: pinned memory, attributes of functions, the capture of a stream
// as a graph, launches without memory of their own.
package cuext

// #cgo CFLAGS: -I${SRCDIR}/../cushim/include
// #include <cuda.h>
// #include <string.h>
//
// // moot_launch has each argument in 8 bytes of its own.
// static CUresult moot_launch(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
// 		unsigned shared, CUstream stream, const unsigned long long *args, int n) {
// 	void *at[32];
// 	for (int i = 0; i < n; i++)
// 		at[i] = (void *)&args[i];
// 	return cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, stream, at, NULL);
// }
//
// static CUresult moot_to_device_2d(CUdeviceptr dst, size_t pitch, const void *src, size_t width, size_t rows, CUstream stream) {
// 	CUDA_MEMCPY2D c = {
// 		.srcMemoryType = CU_MEMORYTYPE_HOST, .srcHost = src, .srcPitch = width,
// 		.dstMemoryType = CU_MEMORYTYPE_DEVICE, .dstDevice = dst, .dstPitch = pitch, .WidthInBytes = width, .Height = rows,
// 	};
// 	return cuMemcpy2DAsync(&c, stream);
// }
//
// static CUresult moot_to_host_2d(void *dst, CUdeviceptr src, size_t pitch, size_t width, size_t rows, CUstream stream) {
// 	CUDA_MEMCPY2D c = {
// 		.srcMemoryType = CU_MEMORYTYPE_DEVICE, .srcDevice = src, .srcPitch = pitch,
// 		.dstMemoryType = CU_MEMORYTYPE_HOST, .dstHost = dst, .dstPitch = width, .WidthInBytes = width, .Height = rows,
// 	};
// 	return cuMemcpy2DAsync(&c, stream);
// }
import "C"

import (
	"errors"
	"fmt"
	"reflect"
	"unsafe"

	"gorgonia.org/cu"
)

// MaxArgs is how many arguments a kernel can have.
const MaxArgs = 32

// Handles of gorgonia.org/cu are structs of one pointer; this fails to compile
// if they are not.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(cu.Function{})-unsafe.Sizeof(uintptr(0))]
	_ = [1]struct{}{}[unsafe.Sizeof(cu.Stream{})-unsafe.Sizeof(uintptr(0))]
)

func function(f cu.Function) C.CUfunction { return *(*C.CUfunction)(unsafe.Pointer(&f)) }
func stream(s cu.Stream) C.CUstream       { return *(*C.CUstream)(unsafe.Pointer(&s)) }

// Error is a failed call.
type Error struct {
	Call   string
	Result int // a CUresult
}

func (e *Error) Error() string {
	var name *C.char
	if C.cuGetErrorName(C.CUresult(e.Result), &name) != C.CUDA_SUCCESS {
		return fmt.Sprintf("%s: CUresult %d", e.Call, e.Result)
	}
	return fmt.Sprintf("%s: %s (CUresult %d)", e.Call, C.GoString(name), e.Result)
}

// ErrOutOfMemory is what an Error of that kind is.
var ErrOutOfMemory = errors.New("out of device memory")

// Is reports whether target is the kind of e.
func (e *Error) Is(target error) bool {
	return target == ErrOutOfMemory && e.Result == C.CUDA_ERROR_OUT_OF_MEMORY
}

// Failed names the call of gorgonia.org/cu that returned err, or returns nil if
// err is.
func Failed(name string, err error) error {
	if err == nil {
		return nil
	}
	if v := reflect.ValueOf(err); v.Kind() == reflect.Int { // a type that is not exported
		return &Error{Call: name, Result: int(v.Int())}
	}
	return fmt.Errorf("%s: %w", name, err)
}

func check(call string, r C.CUresult) error {
	if r == C.CUDA_SUCCESS {
		return nil
	}
	return &Error{Call: call, Result: int(r)}
}

// Launch starts a kernel. Each argument is 8 bytes: a pointer, an integer or
// the bits of a float64.
func Launch(f cu.Function, grid, block [3]int, shared int, s cu.Stream, args []uint64) error {
	if len(args) > MaxArgs {
		panic(fmt.Sprintf("bug: kernel with %d arguments", len(args)))
	}
	return check("cuLaunchKernel", C.moot_launch(function(f),
		C.uint(grid[0]), C.uint(grid[1]), C.uint(grid[2]), C.uint(block[0]), C.uint(block[1]), C.uint(block[2]),
		C.uint(shared), stream(s), (*C.ulonglong)(unsafe.Pointer(unsafe.SliceData(args))), C.int(len(args))))
}

// SetMaxDynamicShared lets launches of f ask for up to n bytes of shared
// memory; without it 48 KiB are the limit.
func SetMaxDynamicShared(f cu.Function, n int) error {
	return check("cuFuncSetAttribute", C.cuFuncSetAttribute(function(f), C.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, C.int(n)))
}

// MaxSharedPerBlock returns how much shared memory a block can be given.
func MaxSharedPerBlock(device int) (int, error) {
	var n C.int
	err := check("cuDeviceGetAttribute", C.cuDeviceGetAttribute(&n, C.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, C.CUdevice(device)))
	return int(n), err
}

// HostAlloc returns n bytes of pinned memory, which copies from and to the
// device at full speed and without being copied before.
func HostAlloc(n int) ([]byte, error) {
	var p unsafe.Pointer
	if err := check("cuMemHostAlloc", C.cuMemHostAlloc(&p, C.size_t(n), 0)); err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(p), n), nil
}

// HostFree frees what HostAlloc returned.
func HostFree(b []byte) error {
	if cap(b) == 0 {
		return nil
	}
	return check("cuMemFreeHost", C.cuMemFreeHost(unsafe.Pointer(unsafe.SliceData(b))))
}

// ToDevice copies src to the address dst, in the order of the stream. If src is
// pinned the call may return before it was read.
func ToDevice(dst uintptr, src []byte, s cu.Stream) error {
	if len(src) == 0 {
		return nil
	}
	return check("cuMemcpyHtoDAsync", C.cuMemcpyHtoDAsync(C.CUdeviceptr(dst), unsafe.Pointer(unsafe.SliceData(src)), C.size_t(len(src)), stream(s)))
}

// ToHost copies from the address src, in the order of the stream. If dst is
// pinned the call may return before it was written.
func ToHost(dst []byte, src uintptr, s cu.Stream) error {
	if len(dst) == 0 {
		return nil
	}
	return check("cuMemcpyDtoHAsync", C.cuMemcpyDtoHAsync(unsafe.Pointer(unsafe.SliceData(dst)), C.CUdeviceptr(src), C.size_t(len(dst)), stream(s)))
}

// ToDevice2D copies rows of width bytes, dense, to rows that begin pitch bytes
// apart.
func ToDevice2D(dst uintptr, pitch int, src []byte, width, rows int, s cu.Stream) error {
	if len(src) != width*rows {
		panic(fmt.Sprintf("bug: %d bytes as %d rows of %d", len(src), rows, width))
	}
	return check("cuMemcpy2DAsync", C.moot_to_device_2d(C.CUdeviceptr(dst), C.size_t(pitch), unsafe.Pointer(unsafe.SliceData(src)), C.size_t(width), C.size_t(rows), stream(s)))
}

// ToHost2D copies from rows that begin pitch bytes apart.
func ToHost2D(dst []byte, src uintptr, pitch, width, rows int, s cu.Stream) error {
	if len(dst) != width*rows {
		panic(fmt.Sprintf("bug: %d bytes as %d rows of %d", len(dst), rows, width))
	}
	return check("cuMemcpy2DAsync", C.moot_to_host_2d(unsafe.Pointer(unsafe.SliceData(dst)), C.CUdeviceptr(src), C.size_t(pitch), C.size_t(width), C.size_t(rows), stream(s)))
}

// Graph is a captured stream, ready to run.
type Graph struct{ exec C.CUgraphExec }

// Capture records what fn starts on the stream instead of running it.
func Capture(s cu.Stream, fn func() error) (*Graph, error) {
	if err := check("cuStreamBeginCapture", C.cuStreamBeginCapture(stream(s), C.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)); err != nil {
		return nil, err
	}
	failed := fn()
	var graph C.CUgraph
	err := check("cuStreamEndCapture", C.cuStreamEndCapture(stream(s), &graph))
	if failed != nil || err != nil {
		if graph != nil {
			C.cuGraphDestroy(graph)
		}
		if failed != nil {
			return nil, failed
		}
		return nil, err
	}
	defer C.cuGraphDestroy(graph)
	g := &Graph{}
	return g, check("cuGraphInstantiateWithFlags", C.cuGraphInstantiateWithFlags(&g.exec, graph, 0))
}

// Launch runs the graph on a stream.
func (g *Graph) Launch(s cu.Stream) error {
	return check("cuGraphLaunch", C.cuGraphLaunch(g.exec, stream(s)))
}

// Close frees the graph.
func (g *Graph) Close() error { return check("cuGraphExecDestroy", C.cuGraphExecDestroy(g.exec)) }
