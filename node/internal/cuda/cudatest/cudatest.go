//go:build cuda && cgo

// Package cudatest gives tests a CUDA driver: the real one if there is one, and
// the emulated one otherwise.
package cudatest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/moot-net/moot/node/internal/cuda/cushim"
	"github.com/moot-net/moot/node/internal/cuda/emu"
	"github.com/moot-net/moot/node/internal/cuda/kernels"
)

// Load loads the driver, and returns it if it is the emulated one, else nil.
// MOOT_TEST_DRIVER=emulated takes that in any case, with kernels from the
// folder MOOT_TEST_KERNELS if that is set. The error is emu.ErrNoCompiler where
// there is neither a driver nor a compiler for an emulated one.
var Load = sync.OnceValues(load)

func load() (*emu.Driver, error) {
	if os.Getenv("MOOT_TEST_DRIVER") != "emulated" {
		err := cushim.Open()
		if err == nil {
			return nil, nil
		}
		if !errors.Is(err, cushim.ErrNoLibrary) {
			fmt.Fprintln(os.Stderr, "no real CUDA driver:", err)
		}
	}
	sources := fs.FS(kernels.Sources)
	if dir := os.Getenv("MOOT_TEST_KERNELS"); dir != "" {
		sources = os.DirFS(dir)
	}
	d, err := emu.Build(emu.Options{Kernels: sources})
	if err != nil {
		return nil, err
	}
	return d, cushim.OpenPath(d.Path)
}
