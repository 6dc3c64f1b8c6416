//go:build cuda && cgo

// Package cushim supplies the functions of the CUDA driver API that package
// gorgonia.org/cu is linked with, and loads the driver's library when asked to.
// So one binary starts on every machine, and says why there is no GPU.
//
// To build anything that imports gorgonia.org/cu, its compiler has to find
// include/cuda.h: scripts/cuda-env.sh sets CGO_CFLAGS. The empty lib/libcuda.a
// is what its -lcuda finds.
package cushim

// #cgo LDFLAGS: -L${SRCDIR}/lib -Wl,--as-needed
// #cgo linux LDFLAGS: -ldl
// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"
)

// What keeps a driver from starting. Errors of Open wrap one of these.
var (
	ErrNoLibrary  = errors.New("no CUDA driver library")
	ErrNoDriver   = errors.New("the CUDA driver library is there, but no driver that works with it")
	ErrNoDevice   = errors.New("the CUDA driver sees no device")
	ErrPermission = errors.New("no permission to use the CUDA device")
)

// Env names the variable that holds the path of the driver's library, where
// that is not a usual one.
const Env = "MOOT_LIBCUDA"

var opened struct {
	sync.Mutex
	path string
	ok   bool
}

// Open loads the driver's library from its usual places, or from where the
// variable Env says, and starts CUDA. Later calls do nothing once it succeeded.
func Open() error { return OpenPath(os.Getenv(Env)) }

// OpenPath is Open with a path. A process has one driver: another path is an
// error once one was loaded.
func OpenPath(path string) error {
	opened.Lock()
	defer opened.Unlock()
	if opened.ok {
		if path != "" && path != opened.path {
			return fmt.Errorf("open CUDA driver %s: %s is open already", path, opened.path)
		}
		return nil
	}
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var text [512]C.char
	result := int(C.moot_cuda_open(name, &text[0], C.int(len(text))))
	if result == 0 {
		opened.path, opened.ok = path, true
		return nil
	}
	return explain(result, C.GoString(&text[0]))
}

func explain(result int, text string) error {
	switch {
	case result == C.MOOT_NO_LIBRARY:
		return fmt.Errorf("%w: %s", ErrNoLibrary, text)
	case result == C.MOOT_NO_ENTRY:
		return fmt.Errorf("%w: %s", ErrNoDriver, text)
	case denied():
		return fmt.Errorf("%w: cuInit: CUresult %d; add the user to the group of /dev/nvidiactl", ErrPermission, result)
	case result == 100: // CUDA_ERROR_NO_DEVICE
		return fmt.Errorf("%w: cuInit: CUresult %d", ErrNoDevice, result)
	}
	return fmt.Errorf("%w: cuInit: CUresult %d", ErrNoDriver, result)
}

// denied reports whether the driver's device file is there and closed to us.
func denied() bool {
	if runtime.GOOS != "linux" {
		return false
	}
	f, err := os.OpenFile("/dev/nvidiactl", os.O_RDWR, 0)
	if err == nil {
		_ = f.Close() // it was opened to see whether it can be
	}
	return errors.Is(err, os.ErrPermission)
}
