package app

import (
	"testing"

	"github.com/moot-net/moot/node/internal/cpu"
)

func TestDeviceText(t *testing.T) {
	for threads, want := range map[int]string{1: "cpu (1 thread, portable, bf16)", 2: "cpu (2 threads, portable, bf16)"} {
		if got := deviceText(threads, cpu.New(cpu.Options{Portable: true, Precision: cpu.PrecisionBF16})); got != want {
			t.Errorf("deviceText(%d) = %q, want %q", threads, got, want)
		}
	}
}
