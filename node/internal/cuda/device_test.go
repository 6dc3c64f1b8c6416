//go:build cuda && cgo

package cuda

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/cuda/cuext"
)

// read copies n values from the device.
func read[T any](t *testing.T, d *device, from uintptr, n int) []T {
	t.Helper()
	out := make([]T, n)
	d.do(func() error { return cuext.ToHost(bytesOf(out), from, d.stream) })
	d.sync()
	if err := d.err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSend(t *testing.T) {
	d := openDevice(t)
	for i := range 3000 { // several times round
		list := make([]int32, 1+i*7%900)
		for j := range list {
			list[j] = int32(i + j)
		}
		at := send(d, list)
		if i%97 == 0 {
			if got := read[int32](t, d, uintptr(at), len(list)); !slices.Equal(got, list) {
				t.Fatalf("list %d came as %v", i, got[:min(9, len(got))])
			}
		}
	}
	long := make([]float32, 3<<20/4)
	long[len(long)-1] = 7
	if got := read[float32](t, d, uintptr(send(d, long)), len(long)); !slices.Equal(got, long) {
		t.Error("a list longer than the ring did not come")
	}
}

// TestArena: pieces do not overlap, and what is given back is one piece again.
func TestArena(t *testing.T) {
	d := openDevice(t)
	r := rand.New(rand.NewPCG(1, 1))
	held := map[uintptr]int{}
	for range 3000 {
		if len(held) > 0 && r.IntN(5) < 2 {
			for p := range held {
				d.free(p)
				delete(held, p)
				break
			}
			continue
		}
		n := r.IntN(1 << 16)
		p, err := d.alloc(n)
		if err != nil {
			t.Fatal(err)
		}
		if p%alignment != 0 {
			t.Fatalf("address %#x", p)
		}
		for q, m := range held {
			if p < q+uintptr(m) && q < p+uintptr(n) {
				t.Fatalf("%d bytes at %#x and %d at %#x overlap", n, p, m, q)
			}
		}
		held[p] = n
	}
	for p := range held {
		d.free(p)
	}
	if d.arena.used != 0 || d.arena.peak == 0 {
		t.Errorf("%d bytes in use, at most %d", d.arena.used, d.arena.peak)
	}
	for _, c := range d.arena.chunks {
		if len(c.free) != 1 || c.free[0] != (extent{c.base, c.size}) {
			t.Errorf("a chunk of %d bytes is free in %d pieces", c.size, len(c.free))
		}
	}
}

func TestOutOfMemory(t *testing.T) {
	if emulated == nil {
		t.Skip("takes all memory of the device")
	}
	t.Setenv("MOOT_EMU_MEM", "64")
	d := openDevice(t)
	if _, err := d.alloc(40 << 20); err != nil {
		t.Fatal(err)
	}
	_, err := d.alloc(30 << 20)
	if !errors.Is(err, cuext.ErrOutOfMemory) || !strings.Contains(err.Error(), "30.0 MiB of device memory (24.0 MiB of 64.0 MiB free)") {
		t.Errorf("err = %v", err)
	}
	if _, err := d.alloc(20 << 20); err != nil {
		t.Errorf("what is free was not given: %v", err)
	}
}

// TestFailedCall: the first error stays, and names the call.
func TestFailedCall(t *testing.T) {
	if emulated == nil {
		t.Skip("needs a driver that fails on demand")
	}
	for _, c := range []string{"cuDevicePrimaryCtxRetain", "cuStreamCreate", "cuDeviceGetAttribute", "cuDeviceGet"} {
		t.Run(c, func(t *testing.T) {
			t.Setenv("MOOT_EMU_FAIL", c+":1:999")
			if _, err := newDevice(0); err == nil || !strings.Contains(err.Error(), c) || !strings.Contains(err.Error(), "999") {
				t.Errorf("err = %v", err)
			}
			checkLeaks(t)
		})
	}
	d, err := newDevice(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("MOOT_EMU_FAIL", "cuMemcpyHtoDAsync_v2:2:700")
	send(d, []int32{1})
	d.sync()
	if err := d.err(); err != nil {
		t.Fatal(err)
	}
	send(d, []int32{2})
	d.sync()
	send(d, []int32{3})
	if err := d.close(); err == nil || !strings.Contains(err.Error(), "cuMemcpyHtoDAsync: CUDA_ERROR_ILLEGAL_ADDRESS (CUresult 700)") {
		t.Errorf("err = %v", err)
	}
	checkLeaks(t)
}
