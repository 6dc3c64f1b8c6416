//go:build cuda && cgo

package emu_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/moot-net/moot/node/internal/cuda/cuext"
	"github.com/moot-net/moot/node/internal/cuda/cushim"
	"github.com/moot-net/moot/node/internal/cuda/emu"
)

var driver *emu.Driver

func TestMain(m *testing.M) {
	var err error
	driver, err = emu.Build(emu.Options{Kernels: kernels()})
	if err == nil {
		err = cushim.OpenPath(driver.Path)
	}
	switch {
	case errors.Is(err, emu.ErrNoCompiler):
		fmt.Println("skipped:", err)
		os.Exit(0)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// kernels are those of testdata, with the header they share with the real ones.
func kernels() fs.FS {
	files := fstest.MapFS{}
	for _, path := range []string{"testdata/good.cu", "testdata/bad.cu", "../kernels/common.cuh"} {
		text, err := os.ReadFile(path)
		if err != nil {
			panic(err)
		}
		files[path[strings.LastIndex(path, "/")+1:]] = &fstest.MapFile{Data: text}
	}
	return files
}

// open takes the emulated device on this thread, with the kernels for target.
func open(t *testing.T, target int) (cu.Module, cu.Stream) {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	driver.Reset()
	dev, err := cu.GetDevice(0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := dev.RetainPrimaryCtx()
	if err != nil {
		t.Fatal(err)
	}
	if err := cu.SetCurrentContext(ctx); err != nil {
		t.Fatal(err)
	}
	m, err := cu.LoadData(fmt.Sprintf("cuemu sm%d", target))
	if err != nil {
		t.Fatal(err)
	}
	s, err := cu.MakeStream(cu.NonBlocking)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		driver.Reset()
		if err := errors.Join(s.Destroy(), m.Unload()); err != nil {
			t.Error(err)
		}
		for _, what := range []string{"bytes", "host", "handles"} {
			if n := driver.Stat(what); n != 0 {
				t.Errorf("%d %s are left", n, what)
			}
		}
	})
	return m, s
}

func upload[T any](t *testing.T, v []T) cu.DevicePtr {
	t.Helper()
	n := int64(len(v)) * int64(unsafe.Sizeof(v[0]))
	p, err := cu.MemAlloc(n)
	if err != nil {
		t.Fatal(err)
	}
	if err := cu.MemcpyHtoD(p, unsafe.Pointer(&v[0]), n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cu.MemFree(p) }) // fails after a planted fault
	return p
}

func download[T any](t *testing.T, v []T, p cu.DevicePtr) {
	t.Helper()
	if err := cu.MemcpyDtoH(unsafe.Pointer(&v[0]), p, int64(len(v))*int64(unsafe.Sizeof(v[0]))); err != nil {
		t.Fatal(err)
	}
}

// run launches a kernel of one row of blocks with 4 KiB of shared memory, and
// waits for it.
func run(t *testing.T, m cu.Module, s cu.Stream, name string, grid, block int, args ...cu.DevicePtr) error {
	t.Helper()
	f, err := m.Function(name)
	if err != nil {
		t.Fatal(err)
	}
	slots := make([]uint64, len(args))
	for i, a := range args {
		slots[i] = uint64(a)
	}
	if err := cuext.Launch(f, [3]int{grid, 1, 1}, [3]int{block, 1, 1}, 4096, s, slots); err != nil {
		return err
	}
	return s.Synchronize()
}

func bf16(f float32) uint16 { return uint16((math.Float32bits(f) + 0x8000) >> 16) }

func TestKernels(t *testing.T) {
	for _, seed := range []string{"", "1", "2", "77"} {
		t.Run("seed "+seed, func(t *testing.T) {
			t.Setenv("MOOT_EMU_SEED", seed)
			m, s := open(t, 80)
			x := make([]float32, 3*128)
			for i := range x {
				x[i] = float32(i % 13)
			}
			sums := make([]float32, 6)
			out := upload(t, sums)
			if err := run(t, m, s, "test_sum", 3, 128, upload(t, x), out); err != nil {
				t.Fatal(err)
			}
			download(t, sums, out)
			for b := range 3 {
				var want float32
				for _, v := range x[b*128:][:128] {
					want += v
				}
				if sums[2*b] != want || sums[2*b+1] != want {
					t.Errorf("sums of block %d are %v, want %v", b, sums[2*b:2*b+2], want)
				}
			}

			a, b, c := make([]uint16, 256), make([]uint16, 128), make([]float32, 128)
			for i := range a {
				a[i] = bf16(float32(i%7 - 3))
			}
			for i := range b {
				b[i] = bf16(float32(i%5 - 2))
			}
			out = upload(t, c)
			if err := run(t, m, s, "test_mma", 1, 32, upload(t, a), upload(t, b), out); err != nil {
				t.Fatal(err)
			}
			download(t, c, out)
			for i := range 16 {
				for j := range 8 {
					want := 0
					for k := range 16 {
						want += ((i*16+k)%7 - 3) * ((k*8+j)%5 - 2)
					}
					if c[i*8+j] != float32(want) {
						t.Fatalf("element (%d,%d) of the product is %v, want %d", i, j, c[i*8+j], want)
					}
				}
			}

			h, g := make([]uint16, 256), make([]uint16, 256)
			for i := range h {
				h[i] = uint16(i + 1)
			}
			out = upload(t, g)
			if err := run(t, m, s, "test_copy", 1, 32, upload(t, h), out); err != nil {
				t.Fatal(err)
			}
			download(t, g, out)
			for i := range g {
				if want := uint16(i + 1); g[i] != want && (i < 250 || g[i] != 0) {
					t.Fatalf("copied value %d is %d, want %d", i, g[i], want)
				}
			}

			w := make([]uint64, 32)
			out = upload(t, w)
			if err := run(t, m, s, "test_ballot", 1, 32, out); err != nil {
				t.Fatal(err)
			}
			download(t, w, out)
			for i := range 32 {
				up, down := max(i-1, 0), i+8
				if down > 31 {
					down = i
				}
				if want := uint64(0xaaaaaaaa)<<32 | uint64(up)<<16 | uint64(down)<<8 | uint64(i/8*8+5); w[i] != want {
					t.Errorf("lane %d has %#x, want %#x", i, w[i], want)
				}
			}
		})
	}
}

func TestTargets(t *testing.T) {
	for _, target := range []int{61, 75, 80} {
		t.Run(fmt.Sprint(target), func(t *testing.T) {
			m, s := open(t, target)
			got := []int64{0}
			out := upload(t, got)
			if err := run(t, m, s, "test_arch", 1, 1, out); err != nil {
				t.Fatal(err)
			}
			if download(t, got, out); got[0] != int64(target)*10 {
				t.Errorf("kernels for %d were compiled for %d", target*10, got[0])
			}
		})
	}
	open(t, 80)
	t.Setenv("MOOT_EMU_CC", "7.5")
	if _, err := cu.LoadData("cuemu sm80"); err == nil {
		t.Error("a device of 7.5 loads kernels for 8.0")
	}
}

// Each kernel of bad.cu ends with an error or with wrong results.
func TestMistakes(t *testing.T) {
	for _, tt := range []struct {
		kernel, seed string
		block        int
		result       int // CUresult; 0: wrong results
	}{
		{"test_no_barrier", "3", 128, 0},
		{"test_no_wait", "", 32, 0},
		{"test_uninitialised", "", 32, 0},
		{"test_deadlock", "", 64, 719},
		{"test_diverged", "", 32, 719},
		{"test_mask", "", 32, 719},
		{"test_misaligned", "", 32, 716},
		{"test_null", "", 32, 700},
		{"test_far_behind", "", 32, 700},
	} {
		t.Run(tt.kernel, func(t *testing.T) {
			t.Setenv("MOOT_EMU_SEED", tt.seed)
			m, s := open(t, 80)
			x, y := make([]float32, 1024), make([]float32, 1024)
			for i := range x {
				x[i] = float32(i + 1)
			}
			in, out := upload(t, x), upload(t, y)
			err := run(t, m, s, tt.kernel, 1, tt.block, in, out)
			if tt.result != 0 {
				if err == nil || !strings.Contains(err.Error(), fmt.Sprint(tt.result)) {
					t.Errorf("error is %v, want CUresult %d", err, tt.result)
				}
				if err := s.Synchronize(); err == nil {
					t.Error("the device works after a fault")
				}
				driver.Reset()
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			download(t, y, out)
			right := true
			for i := range tt.block {
				right = right && (y[i] == x[i] || y[i] == x[tt.block-1-i])
			}
			if right {
				t.Error("the results are right")
			}
		})
	}
}

func TestWritesBehindTheEnd(t *testing.T) {
	m, s := open(t, 80)
	p, err := cu.MemAlloc(400) // 132 floats are written from 100 on, 100 belong to it
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t, m, s, "test_behind", 1, 16, p, p); err != nil {
		t.Fatal(err)
	}
	if err := cu.MemFree(p); err == nil {
		t.Error("nobody saw it")
	}
	driver.Reset()
	// The allocation is still there, damaged.
	if n := driver.Stat("allocations"); n != 1 {
		t.Errorf("%d allocations, want 1", n)
	}
	if err := cu.MemcpyHtoD(p, unsafe.Pointer(unsafe.SliceData(make([]byte, 400))), 400); err != nil {
		t.Error(err)
	}
	driver.Repair()
	if err := cu.MemFree(p); err != nil {
		t.Error(err)
	}
}

// With MOOT_EMU_LAZY nothing has happened before it is waited for.
func TestLazy(t *testing.T) {
	t.Setenv("MOOT_EMU_LAZY", "1")
	_, s := open(t, 80)
	pinned, err := cuext.HostAlloc(64)
	if err != nil {
		t.Fatal(err)
	}
	clear(pinned)
	v := make([]byte, 64)
	v[5] = 9
	p := upload(t, v)
	if err := cuext.ToHost(pinned, uintptr(p), s); err != nil {
		t.Fatal(err)
	}
	if pinned[5] != 0 || driver.Stat("pending") == 0 {
		t.Error("the copy did not wait")
	}
	if err := s.Synchronize(); err != nil {
		t.Fatal(err)
	}
	if pinned[5] != 9 {
		t.Error("the copy did not happen")
	}
	if err := cuext.HostFree(pinned); err != nil {
		t.Error(err)
	}
}

func TestInjectedErrors(t *testing.T) {
	open(t, 80)
	t.Setenv("MOOT_EMU_FAIL", "cuMemAlloc_v2:2:2")
	for i := range 3 {
		p, err := cu.MemAlloc(64)
		if (err != nil) != (i == 1) {
			t.Errorf("call %d: %v", i+1, err)
		}
		if err == nil {
			if err := cu.MemFree(p); err != nil {
				t.Error(err)
			}
		}
	}
	t.Setenv("MOOT_EMU_MEM", "1")
	if _, err := cu.MemAlloc(1<<20 + 1); err == nil {
		t.Error("more memory than there is")
	}
}

// What was built is found again, and what nobody used for long is removed.
func TestCache(t *testing.T) {
	dir := t.TempDir()
	sources := fstest.MapFS{
		"common.cuh": {Data: []byte(`#include "cuemu.h"`)},
		"one.cu":     {Data: []byte("#include \"common.cuh\"\nextern \"C\" __global__ void one(long long *p) { *p = VALUE; }\n")},
	}
	if _, err := emu.Build(emu.Options{Kernels: sources, Targets: []int{80}, Dir: dir}); err == nil || !strings.Contains(err.Error(), "VALUE") {
		t.Fatalf("error is %v, want what g++ says of VALUE", err)
	}
	build := func(value string) string {
		t.Helper()
		sources["common.cuh"] = &fstest.MapFile{Data: []byte("#include \"cuemu.h\"\n#define VALUE " + value)}
		d, err := emu.Build(emu.Options{Kernels: sources, Targets: []int{80}, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return d.Path
	}
	first := build("1")
	if second := build("2"); second == first {
		t.Error("a header changed and the driver did not")
	}
	old := time.Now().Add(-30 * 24 * time.Hour)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Chtimes(filepath.Join(dir, e.Name()), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if again := build("2"); again == first {
		t.Error("the driver is not that of the sources")
	}
	if after, err := os.ReadDir(dir); err != nil || len(after) != 6 { // driver, cuBLAS, end, object, library, folder
		t.Errorf("%d files are left, want 6 (%v)", len(after), err)
	}
	if _, err := os.Stat(first); err == nil {
		t.Error("the first driver is still there")
	}
}
