package app

import "testing"

func TestDeviceText(t *testing.T) {
	for threads, want := range map[int]string{1: "cpu (1 thread, avx2)", 2: "cpu (2 threads, avx2)"} {
		if got := deviceText(threads, "avx2"); got != want {
			t.Errorf("deviceText(%d) = %q, want %q", threads, got, want)
		}
	}
}
