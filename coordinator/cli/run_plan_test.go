package cli

import "testing"

func TestSeconds(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0 s", 0.000952: "952 µs", 0.0009998: "1 ms", 0.0147: "14.7 ms", 0.9996: "1 s", 3: "3 s", 59.94: "59.9 s", 59.97: "1m0s", 5400: "1h30m0s",
	} {
		if got := seconds(v); got != want {
			t.Errorf("seconds(%v) = %q, want %q", v, got, want)
		}
	}
}
