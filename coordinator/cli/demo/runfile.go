package demo

import (
	"fmt"
	"strings"
)

// setRounds gives the key rounds of a run file another value. It is in no
// table, so it comes before the first.
func setRounds(text string, rounds int) string {
	set := fmt.Sprintf("rounds = %d", rounds)
	rows := strings.Split(text, "\n")
	for i, row := range rows {
		row = strings.TrimSpace(row)
		if strings.HasPrefix(row, "[") {
			break
		}
		if key, _, ok := strings.Cut(row, "="); ok && strings.TrimSpace(key) == "rounds" {
			rows[i] = set
			return strings.Join(rows, "\n")
		}
	}
	return set + "\n" + text
}
