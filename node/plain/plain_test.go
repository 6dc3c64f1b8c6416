package plain

import (
	"math"
	"strings"
	"testing"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"calm-otter":               "calm-otter",
		"a\nb\tc":                  "a b c",
		"a\x1b[2Jb\r\x07":          "a?[2Jb??",
		"left\u202eright\u2066":    "left?right?",
		"\xff":                     "?",
		"e\u0301 n\u0303":          "e\u0301 n\u0303",
		"\u0301a":                  "a",
		"Ünïcødé 漢字 😀":             "Ünïcødé 漢字 😀",
		"no\u00a0break\u2028lines": "no?break?lines",
	} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
	if got := Clean("a" + strings.Repeat("\u0301", 500) + "b"); got != "a\u0301\u0301b" {
		t.Errorf("a tower of accents is %q", got)
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567", math.MinInt64: "-9,223,372,036,854,775,808"} {
		if got := Group(n); got != want {
			t.Errorf("Group(%d) = %s, want %s", n, got, want)
		}
	}
	if got := Group(uint64(math.MaxUint64)); got != "18,446,744,073,709,551,615" {
		t.Errorf("the largest number is %s", got)
	}
	for n, want := range map[int]string{0: "0 rounds", 1: "1 round", 2500: "2,500 rounds"} {
		if got := Plural(n, "round"); got != want {
			t.Errorf("Plural(%d) = %s, want %s", n, got, want)
		}
	}
}
