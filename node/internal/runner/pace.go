package runner

import (
	"fmt"
	"time"
)

// pace tells how fast something goes and when it will end, in words.
type pace struct {
	began, at time.Time // when the first and the last sample was taken
	from      int64     // done then
	rate      float64   // per second, of the last samples; 0: not known yet
	text      string
}

const (
	paceSample = 2 * time.Second
	paceWeight = 0.3 // of a new sample
)

// tell returns the text for so many bytes of a total; it changes every two
// seconds.
func (p *pace) tell(now time.Time, done, total int64) string {
	if p.at.IsZero() {
		p.began, p.at, p.from = now, now, done
		return ""
	}
	d := now.Sub(p.at)
	if d < paceSample {
		return p.text
	}
	sample := float64(done-p.from) / d.Seconds()
	if p.rate == 0 {
		p.rate = sample
	} else {
		p.rate += paceWeight * (sample - p.rate)
	}
	p.at, p.from = now, done
	if p.text = ""; p.rate > 0 {
		p.text = fmt.Sprintf("%.1f MB/s, %s left", p.rate/1e6, inWords(secondsOf(float64(total-done)/p.rate)))
	}
	return p.text
}

func secondsOf(s float64) time.Duration {
	return time.Duration(min(s, 1e7) * float64(time.Second))
}

// inWords rounds a time as people say it.
func inWords(d time.Duration) string {
	switch {
	case d < 90*time.Second:
		return fmt.Sprintf("%d s", int(d.Seconds()+0.5))
	case d < 90*time.Minute:
		return fmt.Sprintf("%d min", int(d.Minutes()+0.5))
	case d < 48*time.Hour:
		return fmt.Sprintf("%.1f h", d.Hours())
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24+0.5))
}

// howMuch says before the first byte what has to come, and how long that may
// take at a rate in bytes per second, which may be unknown (0).
func howMuch(missing, total int64, rate float64) string {
	s := fmt.Sprintf("%.1f MB to pull", float64(missing)/1e6)
	if missing >= 1e9 {
		s = fmt.Sprintf("%.2f GB to pull", float64(missing)/1e9)
	}
	if here := float64(total-missing) / float64(total) * 100; here >= 1 {
		s += fmt.Sprintf(", %.0f %% is here", here)
	}
	if rate > 0 {
		return s + fmt.Sprintf(", about %s at %.1f MB/s as last time", inWords(secondsOf(float64(missing)/rate)), rate/1e6)
	}
	const line = 100e6 / 8
	return s + fmt.Sprintf(", %s on a line of 100 Mbit/s", inWords(secondsOf(float64(missing)/line)))
}
