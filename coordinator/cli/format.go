package cli

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

// cleanText is plain.Clean for a text of several lines.
func cleanText(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i := range lines {
		lines[i] = plain.Clean(strings.TrimSuffix(lines[i], "\r"))
	}
	return strings.Join(lines, "\n")
}

// orElse returns v, or what stands for it when it is empty.
func orElse(v, otherwise string) string {
	if v != "" {
		return v
	}
	return otherwise
}

func runes(s string) int { return utf8.RuneCountInString(s) }

// clip shortens s to n characters.
func clip(s string, n int) string {
	if runes(s) <= n {
		return s
	}
	return string([]rune(s)[:max(n-1, 0)]) + "…"
}

// size writes a number of bytes, 2.3 MiB.
func size[T int | int64 | uint64](n T) string {
	v, units := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for v >= 1024 && len(units) > 1 {
		v, units = v/1024, units[1:]
	}
	if units[0] == "B" {
		return fmt.Sprintf("%d B", int64(v))
	}
	return fmt.Sprintf("%.1f %s", v, units[0])
}

// loss writes a loss, or - if there is none.
func loss(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.4f", *v)
}

// withPerplexity writes a held-out loss and what it is for the tokens.
func withPerplexity(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.4f (perplexity %.4g)", *v, math.Exp(*v))
}

// percent writes a fraction.
func percent(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }

// lasted is how long a round took: of the first one, and of those that were decided
// elsewhere, it is not known.
func lasted(r api.Round) string {
	if r.Seconds == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f s", r.Seconds)
}

// agreement says how a round was decided.
func agreement(r api.Round) string {
	if r.Certified {
		return "certified"
	}
	return "provisional"
}
