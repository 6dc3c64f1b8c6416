package runner

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	var p pace
	now := time.Unix(1e9, 0)
	const total = 13_000_000_000
	for _, tt := range []struct {
		after time.Duration
		done  int64
		want  string
	}{
		{0, 1_000_000_000, ""},
		{time.Second, 1_010_000_000, ""},
		{time.Second, 1_024_000_000, "12.0 MB/s, 17 min left"},
		{time.Second, 1_030_000_000, "12.0 MB/s, 17 min left"},
		{time.Second, 1_024_000_000, "8.4 MB/s, 24 min left"},
		{2 * time.Second, 12_999_000_000, "1802.1 MB/s, 0 s left"},
	} {
		now = now.Add(tt.after)
		if got := p.tell(now, tt.done, total); got != tt.want {
			t.Errorf("after %d bytes: %q, want %q", tt.done, got, tt.want)
		}
	}
}

func TestHowMuch(t *testing.T) {
	for _, tt := range []struct {
		missing, total int64
		rate           float64
		want           string
	}{
		{13_476_000_000, 13_476_000_000, 0, "13.48 GB to pull, 18 min on a line of 100 Mbit/s"},
		{6_000_000_000, 12_000_000_000, 1e6, "6.00 GB to pull, 50 % is here, about 1.7 h at 1.0 MB/s as last time"},
		{5_000_000, 5_000_000, 10e6, "5.0 MB to pull, about 1 s at 10.0 MB/s as last time"},
		{1e15, 1e15, 1, "1000000.00 GB to pull, about 116 days at 0.0 MB/s as last time"},
	} {
		if got := howMuch(tt.missing, tt.total, tt.rate); got != tt.want {
			t.Errorf("%d of %d: %q, want %q", tt.missing, tt.total, got, tt.want)
		}
	}
}
