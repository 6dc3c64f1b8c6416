//go:build cuda && cgo

package cuda

import (
	"strconv"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/tensor"
	"github.com/moot-net/moot/node/internal/tensor/tensortest"
)

// openBackend returns a backend that is closed when the test ends, and fails
// the test if it had an error, or left something allocated.
func openBackend(t *testing.T, o Options) *Backend {
	t.Helper()
	b, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// TestConformance: instead of a number of threads, the order is another one in
// which the emulated device runs them.
func TestConformance(t *testing.T) {
	t.Cleanup(func() { checkLeaks(t) }) // after the backends were closed
	tensortest.Backend(t, func(threads int) tensor.Backend {
		if emulated != nil {
			t.Setenv("MOOT_EMU_SEED", strconv.Itoa(threads-1))
		}
		return openBackend(t, Options{Float32: true})
	})
}

func TestDevices(t *testing.T) {
	if emulated == nil {
		t.Skip("knows what the emulated driver has")
	}
	t.Setenv("MOOT_EMU_COUNT", "2")
	t.Setenv("MOOT_EMU_CC", "7.5")
	list, err := Devices()
	if err != nil || len(list) != 2 {
		t.Fatalf("Devices() = %+v, %v", list, err)
	}
	i := list[1]
	if i.Ordinal != 1 || i.Err != nil || i.CapabilityText() != "7.5" || i.TotalBytes != 8<<30 || i.FreeBytes > i.TotalBytes || i.FreeBytes <= 0 || i.Name == "" || i.SMs == 0 {
		t.Errorf("device 1 is %+v", i)
	}
	checkLeaks(t)
	for _, tt := range []struct {
		name, variable, value, kind, want string
		ordinal                           int
	}{
		{name: "no such device", ordinal: 2, kind: "no_device", want: "cuda:2: the CUDA driver sees no device: there are 2, counted from 0"},
		{name: "old device", variable: "MOOT_EMU_CC", value: "5.2", kind: "old_device", want: "cuda:0: the GPU is too old: compute capability is 5.2, must be at least 6.1"},
		{name: "no memory", variable: "MOOT_EMU_FAIL", value: "cuDevicePrimaryCtxRetain:1:2", kind: "no_memory", want: "cuda:0: cuDevicePrimaryCtxRetain: CUDA_ERROR_OUT_OF_MEMORY (CUresult 2)"},
		{name: "old driver", variable: "MOOT_EMU_DRIVER", value: "11040", kind: "old_driver", want: "cuda:0: the driver is too old: it is for CUDA 11.4, must be for 11.8 or later: update the driver (520 or later)"},
		{name: "broken", variable: "MOOT_EMU_FAIL", value: "cuDeviceTotalMem_v2:1:700", kind: "failed", want: "cuda:0: cuDeviceTotalMem: CUDA_ERROR_ILLEGAL_ADDRESS (CUresult 700)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.variable != "" {
				t.Setenv(tt.variable, tt.value)
			}
			_, err := Query(tt.ordinal)
			if err == nil || err.Error() != tt.want || ErrorKind(err) != tt.kind || Hint(err) == "" {
				t.Errorf("Query(%d): %v (%s), want %s (%s)", tt.ordinal, err, ErrorKind(err), tt.want, tt.kind)
			}
			if strings.HasPrefix(tt.variable, "MOOT_EMU_FAIL") {
				return // once
			}
			if _, err := Open(Options{Device: tt.ordinal}); err == nil || err.Error() != tt.want {
				t.Errorf("Open: %v", err)
			}
		})
	}
}

func TestSelfTest(t *testing.T) {
	run := func(t *testing.T) {
		got, err := SelfTest(0)
		if err != nil || got.TFLOPS <= 0 || got.CopyGBs <= 0 || got.Error <= 0 || got.Took <= 0 {
			t.Errorf("SelfTest() = %+v, %v", got, err)
		}
		checkLeaks(t)
	}
	if emulated == nil {
		run(t)
		return
	}
	for _, capability := range []string{"6.1", "7.5", "8.0"} {
		t.Run(capability, func(t *testing.T) {
			t.Setenv("MOOT_EMU_CC", capability)
			run(t)
		})
	}
}
