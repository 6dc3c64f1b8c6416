package cli

import (
	"testing"

	"github.com/moot-net/moot/node/api"
)

// TestEnds: the rules of a run for its held-out loss, in words.
func TestEnds(t *testing.T) {
	for _, tt := range []struct {
		rules api.EndRules
		want  string
	}{
		{api.EndRules{TargetLoss: 1.25}, "at a held-out loss of 1.25"},
		{api.EndRules{Patience: 20, MinImprovement: 0.001}, "after 20 rounds without an improvement of 0.1 %"},
		{
			api.EndRules{TargetLoss: 2, RollbackRounds: 5, RollbackWorse: 0.03},
			"at a held-out loss of 2; goes back to the best adapter after 5 rounds that are 3 % worse",
		},
	} {
		if got := ends(&tt.rules); got != tt.want {
			t.Errorf("ends(%+v) = %q, want %q", tt.rules, got, tt.want)
		}
	}
}

// TestTakenBack: what was taken back is not shown as a part of the round.
func TestTakenBack(t *testing.T) {
	for c, want := range map[api.Contribution]string{
		{}: "included", {Reason: "probation"}: "included: probation", {Reason: "taken-back"}: "taken-back",
	} {
		if got := included(c); got != want {
			t.Errorf("included(%q) = %q, want %q", c.Reason, got, want)
		}
	}
	if got := verdict(api.Judged{Verdict: "damaging", TakenBack: true}); got != "damaging, taken back" {
		t.Errorf("verdict() = %q", got)
	}
}
