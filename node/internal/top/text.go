package top

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/moot-net/moot/node/plain"
)

// maxText is how many bytes of a text from elsewhere are looked at.
const maxText = 1024

// clean is a text from elsewhere that fits into a line.
func clean(s string) string { return plain.Clean(s[:min(len(s), maxText)]) }

// fit makes s as wide as n cells, cut or filled with spaces. s is clean.
func fit(s string, n int) string {
	if n <= 0 {
		return ""
	}
	w := ansi.StringWidth(s)
	if w > n {
		s = ansi.Truncate(s, n, "~")
		w = ansi.StringWidth(s)
	}
	return s + strings.Repeat(" ", n-w)
}

// fitRight is fit with the spaces before.
func fitRight(s string, n int) string {
	if w := ansi.StringWidth(s); w < n {
		return strings.Repeat(" ", n-w) + s
	}
	return fit(s, n)
}

// wrap breaks s into at most n lines of width cells. What is left over is cut.
func wrap(s string, width, n int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		switch {
		case line == "":
			line = word
		case ansi.StringWidth(line)+1+ansi.StringWidth(word) <= width:
			line += " " + word
		case len(lines) == n-1:
			line += " " + word // fit cuts it
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}

// bar draws a part of a whole as [####....]. It needs no more than ASCII.
func bar(part float64, n int) string {
	full := int(math.Round(max(0, min(1, part)) * float64(n)))
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", n-full) + "]"
}

// levels are the heights of a curve, from low to high, and those of a terminal
// that has ASCII alone.
var (
	levels      = []rune("▁▂▃▄▅▆▇█")
	plainLevels = []rune("_.-=+*#@")
)

// curve draws the last n of values.
func curve(values []float64, n int, unicodeToo bool) string {
	if len(values) > max(n, 0) {
		values = values[len(values)-max(n, 0):]
	}
	if len(values) < 2 {
		return ""
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		low, high = min(low, v), max(high, v)
	}
	set := plainLevels
	if unicodeToo {
		set = levels
	}
	var b strings.Builder
	for _, v := range values {
		at := 0
		if high > low {
			at = int(math.Round((v - low) / (high - low) * float64(len(set)-1)))
		}
		b.WriteRune(set[at])
	}
	return b.String()
}

// bytesText writes a number of bytes, 2.3 GB.
func bytesText(n float64) string {
	for _, u := range []struct {
		unit string
		size float64
	}{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}} {
		if n >= u.size {
			return fmt.Sprintf("%.1f %s", n/u.size, u.unit)
		}
	}
	return fmt.Sprintf("%.1f kB", n/1e3)
}

// ago writes a duration as 2d 3h, 2h 14m, 14m 3s or 3s.
func ago(d time.Duration) string {
	d = max(0, d)
	days, h, m, s := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case days > 0:
		return fmt.Sprintf("%dd %dh", days, h)
	case h > 0:
		return fmt.Sprintf("%dh %dm", h, m)
	case m > 0:
		return fmt.Sprintf("%dm %ds", m, s)
	}
	return fmt.Sprintf("%ds", s)
}

func lossText(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.4f", *v)
}

// speed writes tokens per second.
func speed(v float64) string {
	switch {
	case v <= 0:
		return "-"
	case v < 10:
		return fmt.Sprintf("%.1f", v)
	}
	return plain.Group(uint64(math.Round(v)))
}
