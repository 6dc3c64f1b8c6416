//go:build cuda && cgo

package cuda

import (
	"strconv"
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
