//go:build cuda && cgo

package train

import (
	"errors"
	"flag"
	"testing"

	"github.com/moot-net/moot/node/internal/cuda"
	"github.com/moot-net/moot/node/internal/cuda/cudatest"
	"github.com/moot-net/moot/node/internal/cuda/emu"
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
