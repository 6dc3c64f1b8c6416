package volunteer

import "time"

// What Windows answers, and what it means; desktop_windows.go asks. It is here
// to be tested on every system.

// powerStatus is SYSTEM_POWER_STATUS.
type powerStatus struct {
	line, flag, percent, _ byte
	seconds, _             uint32
}

// battery reports whether the machine runs on it, nil if that is not known
// (255).
func (p powerStatus) battery() *bool {
	if p.line > 1 {
		return nil
	}
	return new(p.line == 0)
}

// sinceInput is the time between two counts of milliseconds, which wrap around
// after 49 days.
func sinceInput(now, input uint32) time.Duration {
	return time.Duration(now-input) * time.Millisecond
}

// What SHQueryUserNotificationState says of who has the screen.
const (
	busyState       = 2 // a program fills the screen
	direct3DState   = 3 // a game has the screen for itself
	presentingState = 4
)

// readNotificationState fills in what result (an HRESULT) and state mean.
func readNotificationState(v *Observation, result uintptr, state uint32) {
	if result != 0 {
		v.unseen(SightFullscreen, "not available in this session")
		v.unseen(SightGame, "not available in this session")
		return
	}
	v.Fullscreen = new(state == busyState || state == direct3DState || state == presentingState)
	v.GameMode = new(state == direct3DState)
}
