//go:build cuda && cgo

package cuda

import (
	"math"
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

// TestHalfBuffers: what is kept in 16 bits goes in rounded to nearest, to even,
// and comes out as it is; with gaps between rows too.
func TestHalfBuffers(t *testing.T) {
	t.Cleanup(func() { checkLeaks(t) })
	b := openBackend(t, Options{})
	for _, pad := range []int{0, 3} {
		m := tensor.Mat{Buf: b.AllocActivations(400), Off: 5, Rows: 11, Cols: 17, Stride: 17 + pad}
		if m.Buf.Type != tensor.BFloat16 {
			t.Fatalf("activations are of type %d", m.Buf.Type)
		}
		src := make([]float32, 11*17)
		for i := range src {
			src[i] = float32(i) * 1.001953125 // needs more than 8 bits
		}
		src[3], src[4], src[5] = 1.00390625, 1.01171875, float32(math.Inf(-1)) // halfway, to even: down and up
		b.Upload(m, src)
		got := make([]float32, len(src))
		b.Download(got, m)
		for i, v := range src {
			want := math.Float32frombits(uint32(roundBF16(v)) << 16)
			if got[i] != want {
				t.Fatalf("value %d is %v, want %v rounded to %v", i, got[i], v, want)
			}
		}
		if got[3] != 1 || got[4] != 1.015625 {
			t.Errorf("halfway values became %v and %v", got[3], got[4])
		}
		all := make([]float32, 400)
		b.Download(all, m.Buf.Vec())
		sum := 0.
		for i, v := range all {
			at := i - m.Off
			if at < 0 || at >= 11*m.Stride || at%m.Stride >= 17 {
				sum += math.Abs(float64(v))
			}
		}
		if sum != 0 {
			t.Error("values beside the matrix were written")
		}
		b.Free(m.Buf)
	}
	if used := b.Usage().Used; used > int64(overheadBytes) {
		t.Errorf("%d bytes are in use after everything was freed", used)
	}

	// Rows that stay with the host.
	table := make(tensor.BF16, 50*12)
	for i := range table {
		table[i] = roundBF16(float32(i % 77))
	}
	before := b.Usage().Used
	held := b.PackHost(table).Mat(0, 50, 12)
	if b.Usage().Used != before {
		t.Error("values for the host took memory of the device")
	}
	rows := b.AllocActivations(3*12).Mat(0, 3, 12)
	b.Gather(rows, held, []int32{49, 0, 7})
	got := make([]float32, 36)
	b.Download(got, rows)
	for i, row := range []int{49, 0, 7} {
		for j := range 12 {
			if want := float32((row*12 + j) % 77); got[i*12+j] != want {
				t.Errorf("row %d, column %d is %v, want %v", row, j, got[i*12+j], want)
			}
		}
	}
}

// TestAfterAnError: nothing that comes out of a device that failed is a number.
func TestAfterAnError(t *testing.T) {
	if emulated == nil {
		t.Skip("needs a driver that fails on demand")
	}
	b, err := Open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := b.Alloc(64).Mat(0, 8, 8)
	b.Upload(m, make([]float32, 64))
	if s := b.SumSquares(m); s != 0 || b.Err() != nil {
		t.Fatalf("SumSquares() = %v, %v", s, b.Err())
	}
	t.Setenv("MOOT_EMU_FAIL", "cuLaunchKernel:1:719")
	b.Zero(m)
	nll, top, values := []float32{1}, []int32{3}, make([]float32, 64)
	b.CrossEntropy(m.RowRange(0, 1), []int32{0}, 1, nll, top)
	b.Download(values, m)
	s := b.SumSquares(m)
	if b.Alloc(9) == nil || b.Err() == nil || !strings.Contains(b.Err().Error(), "kernel moot_zero") || !strings.Contains(b.Err().Error(), "CUresult 719") {
		t.Errorf("Err() = %v", b.Err())
	}
	for name, v := range map[string]float64{"a loss": float64(nll[0]), "a value": float64(values[9]), "a sum": s} {
		if !math.IsNaN(v) {
			t.Errorf("%s is %v", name, v)
		}
	}
	if b.Close() == nil {
		t.Error("Close tells nothing")
	}
	checkLeaks(t)
}
