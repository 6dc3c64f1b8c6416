package sim

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// SeedText names the seed, or all of them.
func (r Result) SeedText() string {
	if len(r.Seeds) == 0 {
		return strconv.FormatUint(r.Seed, 10)
	}
	list := make([]string, len(r.Seeds))
	for i, s := range r.Seeds {
		list[i] = strconv.FormatUint(s, 10)
	}
	return strings.Join(list, "-")
}

// Text is the result for people.
func (r Result) Text() string {
	var b strings.Builder
	verdict := "pass"
	if !r.Pass {
		verdict = "MISSED"
	}
	fmt.Fprintf(&b, "%s seed %s: %s (%.1f s)\n", r.Scenario, r.SeedText(), verdict, r.WallS)
	for _, name := range slices.Sorted(maps.Keys(r.Figures)) {
		fmt.Fprintf(&b, "  %-28s %12.6g", name, float64(r.Figures[name]))
		if l, ok := r.Limits[name]; ok {
			fmt.Fprintf(&b, "  %s", l)
			if slices.Contains(r.Missed, name) {
				b.WriteString("  MISSED")
			}
		}
		if each := r.Each[name]; len(each) > 1 {
			fmt.Fprintf(&b, "  of %.6g", each)
		}
		b.WriteByte('\n')
	}
	if r.Cause != "" {
		fmt.Fprintf(&b, "  because: %s\n", r.Cause)
	}
	return b.String()
}

// Write writes the result as JSON, and its charts as SVG, into a folder, which is
// made if needed.
func (r Result) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	b, err := json.MarshalIndent(struct {
		Result
		Charts []Chart `json:"charts,omitempty"`
	}{r, r.Charts}, "", "  ")
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	base := filepath.Join(dir, r.Scenario+"-seed"+r.SeedText())
	if err := os.WriteFile(base+".json", append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	for _, c := range r.Charts {
		if err := os.WriteFile(base+"-"+c.Name+".svg", []byte(c.SVG()), 0o644); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	return nil
}
