package app

import (
	"testing"
	"time"
)

func TestClockError(t *testing.T) {
	for _, tt := range []struct {
		offset time.Duration
		peers  int
		want   string
	}{
		{0, 0, ""},
		{time.Hour, 0, ""},
		{9 * time.Second, 5, ""},
		{-9 * time.Second, 5, ""},
		{time.Minute, 1, "the clock of this machine is 1m0s behind that of the one peer that was asked"},
		{-90*time.Minute - 300*time.Millisecond, 7, "the clock of this machine is 1h30m0s ahead of those of 7 peers"},
	} {
		if got := clockError(tt.offset, tt.peers); got != tt.want {
			t.Errorf("clockError(%v, %d) = %q, want %q", tt.offset, tt.peers, got, tt.want)
		}
	}
}
