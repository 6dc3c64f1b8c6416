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
	if native() == nil {
		t.Skip("this processor has no kernels in assembly")
	}
	tensortest.Backend(t, func(threads int) tensor.Backend { return New(Options{Threads: threads}) })
}
