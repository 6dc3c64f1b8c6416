package volunteer

import (
	"testing"
	"time"
)

// What Windows answers, as its documentation has it.
func TestReadWindows(t *testing.T) {
	for _, tt := range []struct {
		name  string
		power powerStatus
		want  *bool
	}{
		{"a PC", powerStatus{line: 1, flag: 128, percent: 255}, new(false)},
		{"a laptop that is plugged in", powerStatus{line: 1, flag: 8, percent: 73}, new(false)},
		{"a laptop on the train", powerStatus{line: 0, flag: 1, percent: 73, seconds: 9000}, new(true)},
		{"not known", powerStatus{line: 255, flag: 255, percent: 255}, nil},
	} {
		if got := tt.power.battery(); (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
			t.Errorf("%s: on battery %v, want %v", tt.name, got, tt.want)
		}
	}
	if got := sinceInput(61_000, 1_000); got != time.Minute {
		t.Errorf("idle for %v, want a minute", got)
	}
	if got := sinceInput(4_000, 0xffffffff-999); got != 5*time.Second {
		t.Errorf("idle for %v over the wrap, want 5 s", got)
	}
	for state, want := range map[uint32]struct{ full, game bool }{
		1: {},                       // nobody is there
		2: {full: true},             // busy
		3: {full: true, game: true}, // Direct3D
		4: {full: true},             // presentation
		5: {},                       // notifications are accepted
		6: {},                       // quiet time
		7: {},                       // a Store app
	} {
		var v Observation
		readNotificationState(&v, 0, state)
		if v.Fullscreen == nil || v.GameMode == nil || *v.Fullscreen != want.full || *v.GameMode != want.game {
			t.Errorf("state %d: full screen %v, game %v, want %+v", state, v.Fullscreen, v.GameMode, want)
		}
	}
	var v Observation
	readNotificationState(&v, 0x80004005, 0) // E_FAIL, as in session 0
	if v.Fullscreen != nil || v.GameMode != nil || len(v.Unseen) != 2 {
		t.Errorf("without a session: %+v", v)
	}
}
