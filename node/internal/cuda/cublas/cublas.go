//go:build cuda && cgo

// Package cublas calls NVIDIA's matrix products where cuBLAS is installed. It is
// opened at run time and never needed: a computer with nothing but the driver
// has none.
package cublas

// #include <stdlib.h>
// #include "cublas.h"
import "C"

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"gorgonia.org/cu"

	_ "github.com/moot-net/moot/node/internal/cuda/cushim" // whose library functions cublas.c calls
)

// Env names the variable that holds the path of the library where it is not a
// usual one, or "off".
const Env = "MOOT_LIBCUBLAS"

// ErrOff is returned where the variable Env says so.
var ErrOff = errors.New("cuBLAS is turned off by " + Env)

var opened struct {
	sync.Mutex
	name string
}

// Open loads the library, once, and returns its name.
func Open() (string, error) {
	opened.Lock()
	defer opened.Unlock()
	path := os.Getenv(Env)
	if path == "off" {
		return "", ErrOff
	}
	if opened.name != "" {
		return opened.name, nil
	}
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	var text [512]C.char
	if result := C.moot_cublas_open(p, &text[0], C.int(len(text))); result != 0 {
		return "", fmt.Errorf("cuBLAS: %s (%d)", C.GoString(&text[0]), int(result))
	}
	opened.name = C.GoString(&text[0])
	return opened.name, nil
}

// status names the failed call.
func status(call string, rc C.int) error {
	if rc == 0 {
		return nil
	}
	names := map[C.int]string{
		1: "NOT_INITIALIZED", 3: "ALLOC_FAILED", 7: "INVALID_VALUE", 8: "ARCH_MISMATCH", 11: "MAPPING_ERROR", 13: "EXECUTION_FAILED",
		14: "INTERNAL_ERROR", 15: "NOT_SUPPORTED",
	}
	return fmt.Errorf("%s: CUBLAS_STATUS_%s (%d)", call, names[rc], int(rc))
}

// Handle computes on the stream of the thread's context.
type Handle struct {
	p unsafe.Pointer
	// Version is that of the library, 120103 for 12.1.3.
	Version int
}

// New returns a handle for a stream, which uses bytes of device memory from
// workspace on. Open was called before.
func New(s cu.Stream, workspace uintptr, bytes int) (*Handle, error) {
	var h Handle
	var version C.int
	stream := *(*unsafe.Pointer)(unsafe.Pointer(&s)) // a struct of one pointer, see package cuext
	if err := status("cublasCreate", C.moot_cublas_new(&h.p, stream, C.ulonglong(workspace), C.ulonglong(bytes), &version)); err != nil {
		return nil, err
	}
	h.Version = int(version)
	return &h, nil
}

// Close frees the handle.
func (h *Handle) Close() error { return status("cublasDestroy", C.moot_cublas_free(h.p)) }

// Matrix is a matrix in device memory, rows Stride elements apart.
type Matrix struct {
	Ptr    uintptr
	Stride int
	Trans  bool
}

// Product is C (M,N) = Alpha op(A) op(B) + Beta C. A and B are bf16, and so is C
// or it is float32.
type Product struct {
	A, B, C     Matrix
	M, N, K     int
	CBF16       bool
	Alpha, Beta float32
}

// Gemm starts a product, with sums in float32.
func (h *Handle) Gemm(p *Product) error {
	g := C.struct_moot_gemm{
		trans_a: bit(p.A.Trans), trans_b: bit(p.B.Trans), m: C.int(p.M), n: C.int(p.N), k: C.int(p.K), c_bf16: bit(p.CBF16),
		alpha: C.float(p.Alpha), beta: C.float(p.Beta), a: C.ulonglong(p.A.Ptr), b: C.ulonglong(p.B.Ptr), c: C.ulonglong(p.C.Ptr),
		lda: C.int(p.A.Stride), ldb: C.int(p.B.Stride), ldc: C.int(p.C.Stride),
	}
	return status("cublasGemmEx", C.moot_cublas_gemm(h.p, &g))
}

func bit(b bool) C.int {
	if b {
		return 1
	}
	return 0
}
