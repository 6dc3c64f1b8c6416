//go:build cuda && cgo

package cushim

// #include <stdlib.h>
// #include "nvml.h"
import "C"

import (
	"fmt"
	"os"
	"sync"
	"unsafe"
)

// Sensors tell how a device is. What is not known is nil.
type Sensors struct {
	Celsius    *int     // temperature
	Watts      *float64 // that it takes
	LimitWatts *float64 // that it may take
	Busy       *int     // percent of the time, lately
	Fan        *int     // percent
}

var nvml struct {
	once    sync.Once
	err     error
	version string
}

// NVMLEnv names the variable that holds the path of NVML, where that is not a
// usual one.
const NVMLEnv = "MOOT_LIBNVML"

func openNVML() error {
	nvml.once.Do(func() {
		path := C.CString(os.Getenv(NVMLEnv))
		defer C.free(unsafe.Pointer(path))
		var text [512]C.char
		if result := C.moot_nvml_open(path, &text[0], C.int(len(text))); result != 0 {
			nvml.err = fmt.Errorf("NVML: %s (%d)", C.GoString(&text[0]), int(result))
			return
		}
		if C.moot_nvml_version(&text[0], C.int(len(text))) == 0 {
			nvml.version = C.GoString(&text[0])
		}
	})
	return nvml.err
}

// DriverVersion returns the version of the installed driver, "535.183.01".
func DriverVersion() (string, error) {
	if err := openNVML(); err != nil {
		return "", err
	}
	return nvml.version, nil
}

// ReadSensors asks NVML about the device on a PCI bus, "00000000:01:00.0".
func ReadSensors(bus string) (Sensors, error) {
	if err := openNVML(); err != nil {
		return Sensors{}, err
	}
	id := C.CString(bus)
	defer C.free(unsafe.Pointer(id))
	var s C.struct_moot_sensors
	if result := C.moot_nvml_read(id, &s); result != 0 {
		return Sensors{}, fmt.Errorf("NVML: device %s: error %d", bus, int(result))
	}
	return Sensors{
		Celsius: known(s.celsius), Watts: watts(s.milliwatts), LimitWatts: watts(s.limit), Busy: known(s.busy), Fan: known(s.fan),
	}, nil
}

// Process is what a process does on a device.
type Process struct {
	PID       int
	UsedBytes *int64 // nil: not known
	Busy      int    // percent of the time, lately
}

// Use is what a device is used for.
type Use struct {
	UsedBytes, TotalBytes *int64 // nil: not known
	// Processes are those that have memory there, nil if that is not known; Busy
	// tells whether their Busy is.
	Processes []Process
	Busy      bool
	// Time is for the next question: shares are those since then.
	Time uint64
}

// ReadUse asks NVML what the device on a PCI bus is used for.
func ReadUse(bus string, since uint64) (Use, error) {
	if err := openNVML(); err != nil {
		return Use{}, err
	}
	id := C.CString(bus)
	defer C.free(unsafe.Pointer(id))
	u := new(C.struct_moot_use)
	if result := C.moot_nvml_use(id, C.ulonglong(since), u); result != 0 {
		return Use{}, fmt.Errorf("NVML: device %s: error %d", bus, int(result))
	}
	use := Use{UsedBytes: knownBytes(u.used), TotalBytes: knownBytes(u.total), Busy: u.shares != 0, Time: uint64(u.time)}
	if u.processes < 0 {
		return use, nil
	}
	use.Processes = []Process{}
	for _, p := range u.process[:u.processes] {
		use.Processes = append(use.Processes, Process{int(p.pid), knownBytes(p.used), max(0, int(p.share))})
	}
	return use, nil
}

func knownBytes(v C.longlong) *int64 {
	if v < 0 {
		return nil
	}
	return new(int64(v))
}

func known(v C.int) *int {
	if v < 0 {
		return nil
	}
	n := int(v)
	return &n
}

func watts(v C.int) *float64 {
	if v < 0 {
		return nil
	}
	w := float64(v) / 1000
	return &w
}
