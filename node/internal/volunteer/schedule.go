package volunteer

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Schedule says at which times of a week something is allowed. The zero
// Schedule allows it always.
//
// Times are what a clock on the wall shows. On a day on which clocks are set
// back, an hour is there twice, and both count; of an hour that is skipped
// nothing is left.
type Schedule struct{ windows []window }

// window is a part of a day that may reach into the next one.
type window struct {
	day      time.Weekday
	from, to int // minutes since midnight; to <= from: to is on the next day
}

const day = 24 * 60

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// ParseSchedule reads windows of the form "Mon-Fri 22:00-07:00",
// "Sat,Sun 00:00-24:00" or "daily 9:00-12:30". A window that ends before it
// begins ends on the next day.
func ParseSchedule(lines []string) (Schedule, error) {
	var s Schedule
	for _, line := range lines {
		wrong := func(why string) (Schedule, error) {
			return Schedule{}, fmt.Errorf(`%q %s; write it like "Mon-Fri 22:00-07:00"`, line, why)
		}
		fields := strings.Fields(line)
		if len(fields) != 2 {
			return wrong("is not days and times")
		}
		days, ok := parseDays(fields[0])
		if !ok {
			return wrong("has days other than Mon to Sun, or daily")
		}
		a, b, _ := strings.Cut(fields[1], "-")
		from, ok := parseClock(a)
		to, too := parseClock(b)
		switch {
		case !ok || !too || from == day:
			return wrong("has no times from 00:00 to 24:00")
		case from == to:
			return wrong("ends when it begins")
		}
		for _, d := range days {
			s.windows = append(s.windows, window{d, from, to})
		}
	}
	return s, nil
}

func parseDays(s string) ([]time.Weekday, bool) {
	s = strings.ToLower(s)
	if s == "daily" {
		s = "mon-sun"
	}
	var days []time.Weekday
	for part := range strings.SplitSeq(s, ",") {
		a, b, isRange := strings.Cut(part, "-")
		from, ok := parseDay(a)
		if !ok {
			return nil, false
		}
		to := from
		if isRange {
			if to, ok = parseDay(b); !ok {
				return nil, false
			}
		}
		for d := from; ; d = (d + 1) % 7 {
			days = append(days, d)
			if d == to {
				break
			}
		}
	}
	return days, true
}

func parseDay(s string) (time.Weekday, bool) {
	for i, name := range weekdays {
		if s == name || s == strings.ToLower(time.Weekday(i).String()) {
			return time.Weekday(i), true
		}
	}
	return 0, false
}

// parseClock reads 7:05 or 24:00 as minutes.
func parseClock(s string) (int, bool) {
	h, m, ok := strings.Cut(s, ":")
	hours, err := strconv.ParseUint(h, 10, 8)
	minutes, err2 := strconv.ParseUint(m, 10, 8)
	v := int(hours)*60 + int(minutes)
	return v, ok && err == nil && err2 == nil && len(h) <= 2 && len(m) == 2 && minutes < 60 && v <= day
}

// Always reports whether s allows everything.
func (s Schedule) Always() bool { return len(s.windows) == 0 }

// Active reports whether s allows t, on the clocks of t's location.
func (s Schedule) Active(t time.Time) bool {
	if s.Always() {
		return true
	}
	now := t.Hour()*60 + t.Minute()
	yesterday := (t.Weekday() + 6) % 7
	for _, w := range s.windows {
		overnight := w.to <= w.from
		if w.day == t.Weekday() && now >= w.from && (overnight || now < w.to) {
			return true
		}
		if overnight && w.day == yesterday && now < w.to {
			return true
		}
	}
	return false
}

// Next returns when Active is next another one than at t, or the zero time if
// it never is.
func (s Schedule) Next(t time.Time) time.Time {
	if s.Always() {
		return time.Time{}
	}
	now := s.Active(t)
	// Minute by minute, because clocks may be set at any of them.
	next := t.Truncate(time.Minute)
	for range 8*day + 2*60 {
		next = next.Add(time.Minute)
		if s.Active(next) != now {
			return next
		}
	}
	return time.Time{}
}
