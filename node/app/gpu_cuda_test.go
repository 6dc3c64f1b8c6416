//go:build cuda && cgo

package app

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/cuda/cudatest"
	"github.com/moot-net/moot/node/internal/cuda/emu"
)

// gpuNode is a node that computes on a GPU, the emulated one, which leaves so
// much of its memory.
func gpuNode(t *testing.T, reserveMB int64) *node {
	t.Helper()
	driver, err := cudatest.Load()
	switch {
	case errors.Is(err, emu.ErrNoCompiler):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	if driver != nil {
		driver.Reset()
	}
	dir := t.TempDir()
	store, err := openDataDir(dir, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	c := testConfig(dir)
	c.Device, c.Work.VRAMReserveMB = "cuda:0", reserveMB
	ctx, cancel := context.WithCancel(context.Background())
	n, err := newNode(Options{Config: c, Log: testLog(t)}, store, cancel)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- runStages(ctx, n.log, n.stages()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// What is generated and measured for somebody is computed on the GPU, and says
// so; it comes to what the processor computes.
func TestGPUComputesForRequests(t *testing.T) {
	n := gpuNode(t, 0)
	m, d := imported(t, n)
	measure := func(device string) api.Evaluation {
		t.Helper()
		v, err := n.Evaluate(t.Context(), api.EvaluateRequest{
			Subject: api.Subject{Model: m.ID, Device: device}, Dataset: d.ID, MaxRows: 4, MaxTokens: 4,
		}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	gpu, processor := measure(""), measure("cpu")
	if !strings.HasPrefix(gpu.Device, "cuda:0 (") || !strings.HasPrefix(processor.Device, "cpu (") {
		t.Errorf("computed on %q and %q", gpu.Device, processor.Device)
	}
	if gpu.Tokens != processor.Tokens || math.Abs(gpu.Loss-processor.Loss) > 0.01*processor.Loss || gpu.Loss == processor.Loss { // products of bfloat16
		t.Errorf("loss %v of %d tokens on the GPU, %v of %d on the processor", gpu.Loss, gpu.Tokens, processor.Loss, processor.Tokens)
	}
	// Adapters of all forms, also those that replace parameters.
	for _, form := range []string{"plain", "dora", "norms", "lm_head"} {
		dir := theirAdapter(t, form)
		loss := func(device string) float64 {
			v, err := n.Evaluate(t.Context(), api.EvaluateRequest{
				Subject: api.Subject{Model: m.ID, Adapter: dir, Device: device}, Dataset: d.ID, MaxRows: 2, LossOnly: true,
			}, quiet)
			if err != nil {
				t.Fatalf("adapter %s on %s: %v", form, device, err)
			}
			return v.Loss
		}
		if a, b := loss("cuda:0"), loss("cpu"); math.Abs(a-b) > 0.01*b {
			t.Errorf("adapter %s has loss %v on the GPU, %v on the processor", form, a, b)
		}
	}
	ask := func(device string) string {
		t.Helper()
		g, err := n.Generate(t.Context(), api.GenerateRequest{
			Subject: api.Subject{Model: m.ID, Device: device}, Prompts: []api.Prompt{{Instruction: "reverse: lamp"}}, MaxTokens: 6,
		}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if want := "cuda:0"; device != "cpu" && !strings.HasPrefix(g.Device, want) {
			t.Errorf("generated on %q, want %s", g.Device, want)
		}
		return g.Outputs[0].Text
	}
	if a, b := ask("cuda:0"), ask("cpu"); a != b || a == "" {
		t.Errorf("the GPU writes %q, the processor %q", a, b)
	}
	v, err := n.Compare(t.Context(), api.CompareRequest{
		Subject: api.Subject{Model: m.ID}, Versions: []string{api.VersionBase}, Prompts: []api.Prompt{{Instruction: "reverse: lamp"}}, MaxTokens: 2,
	}, quiet)
	if err != nil || !strings.HasPrefix(v.Device, "cuda:0 (") {
		t.Errorf("compared on %q, %v", v.Device, err)
	}
}

// Without room on the GPU the processor computes and that is told, unless the
// GPU was asked for. The node goes on.
func TestGPUWithoutRoom(t *testing.T) {
	n := gpuNode(t, 8500)
	m, _ := imported(t, n)
	ask := func(device string) (api.Generation, string, error) {
		told := ""
		g, err := n.Generate(t.Context(), api.GenerateRequest{
			Subject: api.Subject{Model: m.ID, Device: device}, Prompts: []api.Prompt{{Instruction: "hello"}}, MaxTokens: 2,
		}, func(p api.Progress) { told += p.Text + "\n" })
		return g, told, err
	}
	_, _, err := ask("cuda:0")
	if e := api.AsError(err); err == nil || e.Code != api.CodeVRAM || !strings.Contains(err.Error(), "MB are free") || !strings.Contains(e.Hint, "--device cpu") {
		t.Errorf("asked for a GPU without room: %v", err)
	}
	g, told, err := ask("")
	if err != nil || !strings.HasPrefix(g.Device, "cpu (") || !strings.Contains(told, "computes on the processor") {
		t.Errorf("without room: %q, told %q, %v", g.Device, told, err)
	}
	a := assets(t)
	if err := os.Remove(filepath.Join(a.ModelDir, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	_, err = n.Generate(t.Context(), api.GenerateRequest{
		Subject: api.Subject{Model: a.ModelDir, Device: "cuda:0"}, Prompts: []api.Prompt{{Instruction: "hello"}}, MaxTokens: 2,
	}, quiet)
	if e := api.AsError(err); err == nil || e.Code == api.CodeGPU || e.Code == api.CodeVRAM {
		t.Errorf("a model without weights: %v", err)
	}
	if _, _, err := ask("cuda:7"); err == nil || api.AsError(err).Code != api.CodeGPU {
		t.Errorf("a GPU that is not there: %v", err)
	}
	if _, _, err := ask("gpu"); err == nil || api.AsError(err).Code != api.CodeUsage {
		t.Errorf("a device that is none: %v", err)
	}
}

// A driver that has no memory in the middle of a request costs that request.
func TestGPUOutOfMemory(t *testing.T) {
	n := gpuNode(t, 0)
	m, _ := imported(t, n)
	ask := func() error {
		_, err := n.Generate(t.Context(), api.GenerateRequest{
			Subject: api.Subject{Model: m.ID, Device: "cuda:0"}, Prompts: []api.Prompt{{Instruction: "hello"}}, MaxTokens: 2,
		}, quiet)
		return err
	}
	driver, err := cudatest.Load()
	if err != nil {
		t.Fatal(err)
	}
	if driver == nil {
		t.Skip("only the emulated driver fails when it is told to")
	}
	for _, fail := range []string{"cuMemAlloc_v2:1:2", "cuLaunchKernel:20:2"} {
		t.Setenv("MOOT_EMU_FAIL", fail)
		driver.Reset()
		if err := ask(); err == nil || api.AsError(err).Code != api.CodeVRAM {
			t.Errorf("%s: %v, want E_VRAM", fail, err)
		}
		t.Setenv("MOOT_EMU_FAIL", "")
		driver.Reset()
		if err := ask(); err != nil {
			t.Errorf("after %s: %v", fail, err)
		}
	}
}
