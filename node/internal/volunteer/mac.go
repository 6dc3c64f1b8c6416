package volunteer

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// lookMac asks macOS by its programs; run runs one.
func lookMac(run func(name string, args ...string) (string, error), s Settings, v *Observation) {
	if s.IdleOnly > 0 {
		out, err := run("/usr/sbin/ioreg", "-c", "IOHIDSystem", "-d", "4", "-r")
		if idle, ok := readHIDIdle(out); ok && err == nil {
			v.Idle = &idle
		} else {
			v.unseen(SightIdle, "ioreg does not tell it")
		}
	}
	if s.Fullscreen {
		v.unseen(SightFullscreen, "not available on macOS")
	}
	if s.GameMode {
		v.unseen(SightGame, "not available on macOS")
	}
	if len(s.ExclusiveApps) > 0 {
		if out, err := run("/bin/ps", "-axco", "command"); err != nil {
			v.unseen(SightApps, "ps does not tell them")
		} else {
			v.Apps = strings.Split(strings.TrimSpace(out), "\n")
		}
	}
	if out, err := run("/usr/bin/pmset", "-g", "batt"); err == nil {
		v.Battery = new(strings.Contains(out, "'Battery Power'"))
	}
}

var hidIdle = regexp.MustCompile(`"HIDIdleTime" = (\d+)`)

// readHIDIdle reads since when there was no input: the least of all, in
// nanoseconds.
func readHIDIdle(out string) (time.Duration, bool) {
	least, found := time.Duration(0), false
	for _, m := range hidIdle.FindAllStringSubmatch(out, -1) {
		if ns, err := strconv.ParseInt(m[1], 10, 64); err == nil && (!found || time.Duration(ns) < least) {
			least, found = time.Duration(ns), true
		}
	}
	return least, found
}
