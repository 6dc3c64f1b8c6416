//go:build cuda && cgo

package main

import (
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/client"
	"github.com/moot-net/moot/node/internal/cuda/cudatest"
	"github.com/moot-net/moot/node/internal/cuda/emu"
)

func TestGPU(t *testing.T) {
	driver, err := cudatest.Load()
	switch {
	case errors.Is(err, emu.ErrNoCompiler):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	case driver == nil:
		t.Skip("knows what the emulated driver has")
	}
	t.Setenv("MOOT_EMU_COUNT", "2")
	r := lookForGPUs(true)
	if r.err != nil || len(r.Devices) != 2 {
		t.Fatalf("%d devices, %v", len(r.Devices), r.err)
	}
	var out strings.Builder
	if err := r.print(&out, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"cuda:0  ", "cuda:1  ", "memory", " of 8.6 GB free", "compute capability  8.0, 4 multiprocessors", "bfloat16 products",
		"cuBLAS", "self-test", "passed: ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := r.print(&out, true); err != nil {
		t.Fatal(err)
	}
	var back gpuReport
	if err := json.Unmarshal([]byte(out.String()), &back); err != nil || len(back.Devices) != 2 || !back.Devices[1].Test.OK || back.Devices[1].Test.TFLOPS <= 0 {
		t.Errorf("%v in\n%s", err, out.String())
	}

	// One that is too old, and one that fails its test.
	t.Setenv("MOOT_EMU_CC", "5.2")
	if r := lookForGPUs(true); r.err == nil || r.Error.Kind != "old_device" || r.Devices[0].Error.Kind != "old_device" || r.Devices[0].Test != nil {
		t.Errorf("an old device: %+v", r)
	}
	t.Setenv("MOOT_EMU_CC", "8.0")
	t.Setenv("MOOT_EMU_COUNT", "1")
	t.Setenv("MOOT_EMU_FAIL", "cuStreamCreate:1:2")
	r = lookForGPUs(true)
	if r.err == nil || r.Devices[0].Error == nil || r.Devices[0].Error.Kind != "no_memory" || r.Devices[0].Test.OK {
		t.Errorf("a device without memory: %+v", r)
	}
}

// A daemon that computes on a GPU makes way for another process there, as NVML
// tells it, and shows how the GPU is.
func TestGPUOfOthers(t *testing.T) {
	driver, err := cudatest.Load()
	switch {
	case errors.Is(err, emu.ErrNoCompiler):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	case driver == nil:
		t.Skip("knows what the emulated driver has")
	}
	nvml := filepath.Join(t.TempDir(), "nvml.so")
	if b, err := exec.Command("gcc", "-shared", "-fPIC", "-w", "-o", nvml, "../../internal/cuda/cushim/testdata/nvml.c").CombinedOutput(); err != nil {
		t.Skipf("gcc: %v\n%s", err, b)
	}
	t.Setenv("MOOT_LIBCUDA", driver.Path)
	t.Setenv("MOOT_LIBNVML", nvml)
	t.Setenv("FAKE_NVML_KNOWN", "1")
	dir := t.TempDir()
	start(t, "mootd", "--yes", "--device", "cuda:0", "--data-dir", dir, "--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0", "--no-mdns").line("api ")
	c, err := client.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		s, err := c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Reason == "gpu-busy" {
			g := s.Devices[len(s.Devices)-1]
			if !strings.Contains(s.Why, "another process holds 2048 MiB of") || g.Celsius == nil || *g.Celsius != 61 || g.OtherBytes == nil || *g.OtherBytes < 2<<30 {
				t.Errorf("why %q, device %+v", s.Why, g)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not make way: %+v", s)
		}
	}
}
