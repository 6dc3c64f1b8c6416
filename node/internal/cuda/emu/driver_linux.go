//go:build cuda && cgo

package emu

// #cgo LDFLAGS: -ldl
// #include <dlfcn.h>
// #include <stdlib.h>
// static void *emu_open(const char *path) { return dlopen(path, RTLD_NOW | RTLD_LOCAL); }
// static long emu_stat(void *h, const char *what) {
//   long (*f)(const char *) = (long (*)(const char *))dlsym(h, "cuemu_stat");
//   return f ? f(what) : -1;
// }
// static void emu_call(void *h, const char *name) {
//   void (*f)(void) = (void (*)(void))dlsym(h, name);
//   if (f) f();
// }
import "C"

import "unsafe"

// lib is the driver's library, opened a second time to ask it what it did.
type lib struct{ handle unsafe.Pointer }

func (d *Driver) open() unsafe.Pointer {
	if d.handle == nil {
		path := C.CString(d.Path)
		defer C.free(unsafe.Pointer(path))
		d.handle = C.emu_open(path)
	}
	return d.handle
}

// Stat returns a count of the driver's: bytes and allocations of device memory
// in use, peak bytes, host bytes pinned, handles open (streams, events, modules,
// graphs), launches, errors, pending operations.
func (d *Driver) Stat(what string) int {
	s := C.CString(what)
	defer C.free(unsafe.Pointer(s))
	return int(C.emu_stat(d.open(), s))
}

// Reset ends a fault, after which every call fails otherwise, and sets launches,
// errors and the peak to what they are at the start.
func (d *Driver) Reset() { d.call("cuemu_reset") }

// Repair lets memory be freed that something wrote behind the end of.
func (d *Driver) Repair() { d.call("cuemu_repair") }

func (d *Driver) call(name string) {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	C.emu_call(d.open(), s)
}
