//go:build cuda && cgo

package cuda

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/moot-net/moot/node/internal/cuda/cudatest"
	"github.com/moot-net/moot/node/internal/cuda/emu"
)

// emulated is the driver that tests run on, nil if it is a real one.
var emulated *emu.Driver

func TestMain(m *testing.M) {
	var err error
	if emulated, err = cudatest.Load(); errors.Is(err, emu.ErrNoCompiler) {
		fmt.Println("skipped: no CUDA driver, and", err)
		os.Exit(0)
	} else if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// openDevice returns a device that is closed when the test ends, and fails the
// test if it had an error, or left something allocated.
func openDevice(t *testing.T) *device {
	t.Helper()
	d, err := newDevice(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
		checkLeaks(t)
	})
	return d
}

func checkLeaks(t *testing.T) {
	t.Helper()
	if emulated == nil {
		return
	}
	for _, what := range []string{"bytes", "host", "handles"} {
		if n := emulated.Stat(what); n != 0 {
			t.Errorf("%d %s left in the driver", n, what)
		}
	}
	emulated.Reset()
}

// eachCapability runs fn on a device of each compute capability that PTX is
// shipped for, or on the real one.
func eachCapability(t *testing.T, fn func(t *testing.T, d *device)) {
	if emulated == nil {
		fn(t, openDevice(t))
		return
	}
	for _, capability := range targets {
		t.Run(fmt.Sprintf("sm%d", capability), func(t *testing.T) {
			t.Setenv("MOOT_EMU_CC", fmt.Sprintf("%d.%d", capability/10, capability%10))
			fn(t, openDevice(t))
		})
	}
}
