//go:build cuda && cgo

package main

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
	"github.com/moot-net/moot/node/client"
	"github.com/moot-net/moot/node/internal/cuda/cudatest"
	"github.com/moot-net/moot/node/internal/cuda/emu"
)

// emulated is the emulated driver, which has and does what a test tells it.
func emulated(t *testing.T) *emu.Driver {
	t.Helper()
	driver, err := cudatest.Load()
	switch {
	case errors.Is(err, emu.ErrNoCompiler):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	case driver == nil:
		t.Skip("there is a real driver, and this needs the emulated one: MOOT_TEST_DRIVER=emulated")
	}
	return driver
}

func TestGPU(t *testing.T) {
	emulated(t)
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
	driver := emulated(t)
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

// A GPU that has no memory in the middle of a round is named, and the run goes
// on from its last step: the process lives, and the run ends as it should.
func TestGPUOutOfMemoryInRun(t *testing.T) {
	driver := emulated(t)
	t.Setenv("MOOT_LIBCUDA", driver.Path)
	t.Setenv("MOOT_EMU_FAIL", "cuLaunchKernel:600:2")
	dir := t.TempDir()
	start(t, "mootd", "--yes", "--device", "cuda:0", "--data-dir", dir, "--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0", "--no-mdns").line("api ")
	c, err := client.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	m, d := demoAssets(t, c)
	r, err := c.Launch(t.Context(), api.LaunchRequest{Name: "run.toml", Model: m, Dataset: d, TOML: `
name = "memory"
rounds = 4
period = "3s"
eval_samples = 2
[lora]
rank = 2
[inner]
max_steps = 3
batch_samples = 2
sequence_tokens = 96
`}, nil)
	if err != nil {
		t.Fatal(err)
	}
	end := apitest.Await(t, c, r.ID, "it is final", func(r api.Run) bool { return r.Final })
	if end.TrainedRounds != 4 {
		t.Errorf("at the end %+v", end.Run)
	}
	ctx, cancel := context.WithCancel(t.Context())
	named := false
	err = c.Watch(ctx, client.WatchOptions{}, func(e api.Event) error {
		named = named || e.Type == api.EventAlert && strings.Contains(e.Text, "CUDA_ERROR_OUT_OF_MEMORY")
		if named || e.Type == api.EventRunState && e.State == string(api.RunFinal) {
			cancel()
		}
		return nil
	})
	if err != nil || !named {
		t.Errorf("no alert says that the GPU had no memory: %v", err)
	}
}
