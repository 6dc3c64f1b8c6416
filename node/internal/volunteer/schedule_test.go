package volunteer

import (
	"testing"
	"time"
	_ "time/tzdata" // machines without zones
)

func schedule(t *testing.T, lines ...string) Schedule {
	t.Helper()
	s, err := ParseSchedule(lines)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func berlin(t *testing.T) *time.Location {
	t.Helper()
	l, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestSchedule(t *testing.T) {
	s := schedule(t, "Mon-Fri 22:00-07:00", "sat,SUN 00:00-24:00")
	for at, want := range map[string]bool{
		"Mon 06:59": false, // Sunday's window is over at midnight
		"Mon 22:00": true, "Mon 23:59": true, "Tue 00:00": true, "Tue 06:59": true, "Tue 07:00": false, "Tue 21:59": false,
		"Sat 06:59": true, "Sat 12:00": true, "Sun 23:59": true, "Mon 00:00": false,
	} {
		d, ok := parseDay(map[string]string{"Mon": "mon", "Tue": "tue", "Sat": "sat", "Sun": "sun"}[at[:3]])
		m, ok2 := parseClock(at[4:])
		if !ok || !ok2 {
			t.Fatal(at)
		}
		// 2026-02-01 is a Sunday.
		when := time.Date(2026, 2, 1+int(d), 0, m, 0, 0, time.UTC)
		if got := s.Active(when); got != want {
			t.Errorf("%s: %v", at, got)
		}
	}
	if !(Schedule{}).Active(time.Now()) || !(Schedule{}).Next(time.Now()).IsZero() {
		t.Error("no windows should mean always")
	}
	if next := schedule(t, "daily 00:00-24:00").Next(time.Now()); !next.IsZero() {
		t.Errorf("a schedule that allows all changes at %v", next)
	}
	if !schedule(t, "Fri-Mon 9:00-10:00").Active(time.Date(2026, 2, 1, 9, 30, 0, 0, time.UTC)) {
		t.Error("Friday to Monday is not Sunday")
	}
}

func TestScheduleNext(t *testing.T) {
	s := schedule(t, "Mon-Fri 22:00-07:00")
	at := time.Date(2026, 2, 2, 12, 30, 40, 5, time.UTC) // Monday
	for _, want := range []time.Time{
		time.Date(2026, 2, 2, 22, 0, 0, 0, time.UTC),
		time.Date(2026, 2, 3, 7, 0, 0, 0, time.UTC),
		time.Date(2026, 2, 3, 22, 0, 0, 0, time.UTC),
	} {
		if at = s.Next(at); !at.Equal(want) {
			t.Fatalf("got %v, want %v", at, want)
		}
	}
	once := schedule(t, "Sun 10:00-10:01")
	if got, want := once.Next(time.Date(2026, 2, 1, 10, 1, 0, 0, time.UTC)), time.Date(2026, 2, 8, 10, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Clocks in Berlin go from 02:00 to 03:00 on 2026-03-29 and from 03:00 to
// 02:00 on 2026-10-25, both Sundays.
func TestScheduleWhenClocksAreSet(t *testing.T) {
	zone := berlin(t)
	for _, x := range []struct {
		window    string
		day       time.Time
		allowed   time.Duration
		from, end string // in UTC
	}{
		{"Sun 01:00-04:00", time.Date(2026, 3, 29, 0, 0, 0, 0, zone), 2 * time.Hour, "00:00", "02:00"},
		{"Sun 01:00-04:00", time.Date(2026, 10, 25, 0, 0, 0, 0, zone), 4 * time.Hour, "23:00", "03:00"},
		{"Sat 22:00-07:00", time.Date(2026, 3, 28, 12, 0, 0, 0, zone), 8 * time.Hour, "21:00", "05:00"},
		{"Sat 22:00-07:00", time.Date(2026, 10, 24, 12, 0, 0, 0, zone), 10 * time.Hour, "20:00", "06:00"},
	} {
		s := schedule(t, x.window)
		from := s.Next(x.day)
		end := s.Next(from)
		if end.Sub(from) != x.allowed || from.UTC().Format("15:04") != x.from || end.UTC().Format("15:04") != x.end {
			t.Errorf("%s on %v: from %v to %v", x.window, x.day, from.UTC(), end.UTC())
		}
	}
	// An hour that is there twice counts twice; one that is skipped does not.
	s := schedule(t, "Sun 02:15-02:45")
	from := s.Next(time.Date(2026, 10, 25, 0, 0, 0, 0, zone))
	end := s.Next(from)
	again := s.Next(end)
	if from.UTC().Format("15:04") != "00:15" || again.UTC().Format("15:04") != "01:15" || again.Sub(from) != time.Hour {
		t.Errorf("windows at %v and %v", from.UTC(), again.UTC())
	}
	if next := s.Next(time.Date(2026, 3, 29, 0, 0, 0, 0, zone)); next.Day() != 5 {
		t.Errorf("a skipped window begins at %v", next)
	}
}

func TestParseScheduleRefuses(t *testing.T) {
	for _, line := range []string{
		"", "Mon", "22:00-07:00", "Mon 22-07", "Mon 22:00", "Mon 24:00-25:00", "Mon 7:5-8:00", "Mon 10:00-10:00",
		"Mon 23:60-24:00", "Montag 1:00-2:00", "Mon- 1:00-2:00", "Mon,,Tue 1:00-2:00", "Mon 1:00-2:00 x", "Mon 24:00-1:00", "Mon 1:00-24:01", "Mon 001:00-2:00",
	} {
		if _, err := ParseSchedule([]string{"daily 1:00-2:00", line}); err == nil {
			t.Errorf("%q is accepted", line)
		}
	}
}

func FuzzParseSchedule(f *testing.F) {
	f.Add("Mon-Fri 22:00-07:00")
	f.Fuzz(func(t *testing.T, line string) {
		s, err := ParseSchedule([]string{line})
		if err != nil {
			return
		}
		at := time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
		if next := s.Next(at); !next.IsZero() && s.Active(next) == s.Active(at) {
			t.Errorf("%q does not change at %v", line, next)
		}
	})
}
