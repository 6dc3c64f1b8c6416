package cuda

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/moot-net/moot/node/internal/tensor"
)

// Options configure a Backend.
type Options struct {
	// Device is the ordinal of the GPU.
	Device int
	// MemoryBytes bounds what is taken of the device's memory. Default 0, what
	// there is.
	MemoryBytes int64
	// ReserveBytes is asked of the driver at once, as it was planned for what
	// is to be done, and ScratchBytes of it are for single operations. More is
	// asked for where that is not enough.
	ReserveBytes, ScratchBytes int64
	// Float32 keeps activations in 32 bits where BF16 would be used, and makes
	// products in float32: twice the memory, a fraction of the speed, results
	// that can be compared with those of a processor.
	Float32 bool
	// Products are those to come. Where cuBLAS is installed it is measured which
	// of them it computes faster than our own kernels, but for those in Choices:
	// see Backend.Choices.
	Products []tensor.Product
	Choices  map[string]string
	// Log is told about the device. Default: nobody.
	Log *slog.Logger
}

// Info describes a GPU.
type Info struct {
	Ordinal    int
	Name       string
	Capability int // compute capability, 10*major + minor
	SMs        int // multiprocessors
	Bus        string
	FreeBytes  int64
	TotalBytes int64
	CUDA       int    // version that the driver is for, 12040 for 12.4
	Driver     string // version of the driver, "" if not known
	CuBLAS     string // the library that was found, "" if none, and
	NoCuBLAS   error  // why not
	Err        error  // why it cannot be used, nil if it can

	// Sensors, nil if not known.
	Celsius, Busy, Fan *int
	Watts, LimitWatts  *float64
}

// Test is what a self-test found.
type Test struct {
	Error        float64 // of a product, relative
	Size         int     // rows and columns of the largest product that was measured
	TFLOPS       float64 // of our own products
	CuBLASTFLOPS float64 // of cuBLAS's, 0 without
	CopyGBs      float64 // of a copy within the device, read and written, 10^9 bytes per second
	Took         time.Duration
}

// What makes a driver or a device unusable.
var (
	ErrOldDriver = errors.New("the driver is too old")
	ErrOldDevice = errors.New("the GPU is too old")
)

// version formats 12040 as 12.4.
func version(v int) string { return fmt.Sprintf("%d.%d", v/1000, v%1000/10) }

// CUDAVersion returns the version of CUDA that the driver is for.
func (i Info) CUDAVersion() string { return version(i.CUDA) }

// CapabilityText returns the compute capability as NVIDIA writes it.
func (i Info) CapabilityText() string { return fmt.Sprintf("%d.%d", i.Capability/10, i.Capability%10) }

// Precision says what matrix products of activations are computed with.
func (i Info) Precision() string { return precision(i.Capability, false) }

func precision(capability int, float32s bool) string {
	switch {
	case float32s || capability < 75:
		return "float32"
	case capability < 80:
		return "float16 products, float32 sums"
	}
	return "bfloat16 products, float32 sums"
}
