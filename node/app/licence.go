package app

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moot-net/moot/proto/run"
)

// licenceRule is what a family of licences says about what is trained from what
// is under it. It is a reading of their texts, and no advice.
type licenceRule struct {
	name    string   // of the rule
	match   []string // in the licence's name: lower case, words apart by "-"
	forbids []run.Use
	why     string
}

// licenceTable is tried in order; the first that matches counts.
var licenceTable = []licenceRule{
	{
		"no-derivatives",
		[]string{"-nd", "no-derivatives", "noderivatives", "noderivs", "all-rights-reserved", "proprietary"},
		[]run.Use{run.UseResearch, run.UseCommercial},
		"allows nothing that is made from it to be passed on, and an adapter is",
	},
	{
		"non-commercial",
		[]string{"-nc", "non-commercial", "noncommercial", "research-only", "research-license", "-mnpl", "-mrl"},
		[]run.Use{run.UseCommercial},
		"is for non-commercial use",
	},
	{
		"llama2-community",
		[]string{"llama2", "llama-2"},
		[]run.Use{run.UseCommercial},
		"needs Meta's leave for services with many users, and forbids that results improve other models: not everybody who gets the adapter may use it so",
	},
}

// unknownLicence is the rule for what nobody has said.
const unknownLicence = "unknown"

// rulesOf returns the rule for a licence by its name: nil, it is free for every
// use. known is false if nobody has said what it is.
func rulesOf(name string) (rule *licenceRule, known bool) {
	words := strings.ToLower(strings.TrimSpace(name))
	words = strings.Join(strings.FieldsFunc(words, func(r rune) bool { return strings.ContainsRune(" _-/,;()", r) }), "-")
	switch words {
	case "", "unknown", "other", "unlicensed", "none", "n-a", "not-stated":
		return nil, false
	}
	for i, r := range licenceTable {
		for _, m := range r.match {
			// What begins with "-" is a whole word.
			if whole := strings.HasPrefix(m, "-"); whole && strings.Contains("-"+words+"-", m+"-") || !whole && strings.Contains(words, m) {
				return &licenceTable[i], true
			}
		}
	}
	return nil, true
}

// licenceWay is what a launcher can do about the rules that are broken.
func licenceWay(l *run.Licences) string {
	var names, others []string
	research := l.Use == run.UseCommercial
	for _, of := range []struct{ what, name string }{{"model", l.Model}, {"data", l.Data}} {
		rule, known := rulesOf(of.name)
		switch {
		case !known:
			names = append(names, fmt.Sprintf("licence.%s = \"…\"", of.what))
		case rule != nil && slices.Contains(rule.forbids, run.UseResearch):
			research = false
			others = append(others, of.what)
		case rule != nil && slices.Contains(rule.forbids, l.Use):
			others = append(others, of.what)
		}
	}
	var ways []string
	if len(names) > 0 && l.Use == run.UseCommercial {
		ways = append(ways, "say what is known of it, with "+strings.Join(names, " and "))
	}
	if len(others) > 0 {
		ways = append(ways, "take another "+strings.Join(others, " and another "))
	}
	if research {
		ways = append(ways, `say licence.use = "research", if that is what it is for`)
	}
	return strings.Join(ways, "; or ")
}

// licenceRules says which rules what the run is for breaks, and what else is to
// be known of the licences.
func licenceRules(l *run.Licences) (broken, notes []string) {
	for _, of := range []struct{ what, name string }{{"model", l.Model}, {"data", l.Data}} {
		rule, known := rulesOf(of.name)
		switch {
		case !known && l.Use == run.UseCommercial:
			broken = append(broken, fmt.Sprintf("licence.use is %s, but nobody has said what licence the %s is under (rule %s)", l.Use, of.what, unknownLicence))
		case !known:
			notes = append(notes, fmt.Sprintf("nobody has said what licence the %s is under", of.what))
		case rule == nil:
		case slices.Contains(rule.forbids, l.Use):
			broken = append(broken, fmt.Sprintf("licence.use is %s, but the licence of the %s, %s, %s (rule %s)", l.Use, of.what, plainText(of.name), rule.why, rule.name))
		default:
			notes = append(notes, fmt.Sprintf("the licence of the %s, %s, %s", of.what, plainText(of.name), rule.why))
		}
	}
	return broken, notes
}
