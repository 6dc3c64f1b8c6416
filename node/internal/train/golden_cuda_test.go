//go:build cuda && cgo

package train

import (
	"errors"
	"flag"
	"math"
	"slices"
	"testing"

	"github.com/moot-net/moot/node/internal/cuda"
	"github.com/moot-net/moot/node/internal/cuda/cudatest"
	"github.com/moot-net/moot/node/internal/cuda/emu"
	"github.com/moot-net/moot/node/internal/goldentest"
	"github.com/moot-net/moot/node/internal/tensor"
)

var backendFlag = flag.String("backend", "cpu", "what tests against reference results compute with: cpu or cuda")

// goldenBackend is what tests against reference results compute with. On a GPU
// it is float32 too, so that the tolerances are the same.
func goldenBackend(t *testing.T) tensor.Backend {
	t.Helper()
	if *backendFlag == "cpu" {
		return nil
	}
	return openCUDA(t, cuda.Options{Float32: true})
}

func openCUDA(t *testing.T, o cuda.Options) *cuda.Backend {
	t.Helper()
	if _, err := cudatest.Load(); errors.Is(err, emu.ErrNoCompiler) {
		t.Skipf("no CUDA driver, and %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	b, err := cuda.Open(o)
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

// TestHalfOnCUDA trains a model as a GPU does it by default, with activations of
// bfloat16, and compares the difference to float32 with that which PyTorch makes
// in bfloat16 on the same model (scripts/golden/bf16_torch.py).
func TestHalfOnCUDA(t *testing.T) {
	base := openResults(t, goldentest.Dir(t, "models", "llama2-mha"))
	torch := readTorchBF16(t)
	dir := half(t, base.dir)
	steps := len(torch.F32)
	if testing.Short() {
		steps = 3
	}
	exact := trainCurve(t, base, Options{ModelDir: dir, Threads: 2}, steps)
	for _, capability := range []string{"6.1", "7.5", "8.0"} {
		t.Run(capability, func(t *testing.T) {
			t.Setenv("MOOT_EMU_CC", capability)
			got := trainCurve(t, base, Options{ModelDir: dir, Backend: openCUDA(t, cuda.Options{})}, steps)
			worst, worstTorch := 0., 0.
			for i, want := range exact.losses {
				worst = max(worst, math.Abs(got.losses[i]-want))
				worstTorch = max(worstTorch, math.Abs(torch.BF16[i]-torch.F32[i]))
			}
			list := []halfError{
				{"loss", worst, worstTorch},
				{"gradient", away(got.gradient, exact.gradient, nil), torch.Gradient},
			}
			if steps == len(torch.F32) {
				list = append(list, halfError{"adapter", away(got.adapter, exact.adapter, exact.origin), torch.Adapter})
			}
			for _, e := range list {
				t.Logf("%s: off by %.2g, PyTorch's bfloat16 by %.2g", e.name, e.ours, e.other)
				if !(e.ours <= 1.5*e.other) {
					t.Errorf("%s: off by %.2g, more than 1.5 times PyTorch's bfloat16, %.2g", e.name, e.ours, e.other)
				}
			}
		})
	}
}

type halfError struct {
	name        string
	ours, other float64
}

// TestCUDAIsDeterministic: training again gives the same bits, in whatever order
// the device runs its threads.
func TestCUDAIsDeterministic(t *testing.T) {
	base := openResults(t, goldentest.Dir(t, "models", "llama3-gqa"))
	for _, capability := range []string{"7.5", "8.0"} {
		t.Setenv("MOOT_EMU_CC", capability)
		var want curve
		for _, order := range []string{"0", "5", "6"} {
			t.Setenv("MOOT_EMU_SEED", order)
			got := trainCurve(t, base, Options{ModelDir: base.dir, Backend: openCUDA(t, cuda.Options{})}, 2)
			if want.losses == nil {
				want = got
			}
			if !slices.Equal(got.losses, want.losses) || !slices.Equal(got.gradient, want.gradient) || !slices.Equal(got.adapter, want.adapter) {
				t.Errorf("compute capability %s: training again gave something else", capability)
			}
		}
	}
}
