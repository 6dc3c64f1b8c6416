package cpu

import (
	"testing"

	"github.com/moot-net/moot/node/internal/tensor"
	"github.com/moot-net/moot/node/internal/tensor/tensortest"
)

func TestPortable(t *testing.T) {
	tensortest.Backend(t, func(threads int) tensor.Backend {
		return New(Options{Threads: threads, Portable: true})
	})
}

func TestNative(t *testing.T) {
	sets := native()
	if len(sets) == 0 {
		t.Skip("this processor has no kernels in assembly")
	}
	for i := range sets {
		t.Run(sets[i].name, func(t *testing.T) {
			tensortest.Backend(t, func(threads int) tensor.Backend { return with(&sets[i], threads) })
		})
	}
}

// with returns a backend with a set of kernels.
func with(k *kernels, threads int) *Backend {
	b := New(Options{Threads: threads})
	b.k = k
	return b
}
