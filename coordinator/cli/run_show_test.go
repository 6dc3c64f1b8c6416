package cli

import (
	"strings"
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

func TestTempoText(t *testing.T) {
	steady := api.Tempo{Steps: 30, Deadline: 600, NextSteps: 30, NextDeadline: 600}
	if got, want := tempo(&steady), "at most 30 steps within 10m0s"; got != want {
		t.Errorf("tempo() = %q, want %q", got, want)
	}
	changed := api.Tempo{Steps: 120, Deadline: 45, Kappa: new(0.25), Arrival: new(30.5), NextSteps: 60, NextDeadline: 36}
	if got, want := tempo(&changed), "at most 120 steps within 45 s; kappa 0.250; nearly all deltas were there after 30.5 s; next 60 steps within 36 s"; got != want {
		t.Errorf("tempo() = %q, want %q", got, want)
	}
	if got := findsTempo(&api.Manifest{StartSteps: 20, FollowArrivals: true}); got != "steps begin with 20 and follow how far deltas go apart; deadlines follow when deltas arrive" {
		t.Errorf("findsTempo() = %q", got)
	}
}

// Who agreed to an order, and what it lacks.
func TestPendingText(t *testing.T) {
	o := api.PendingOrder{Order: api.Order{Action: "set", Rounds: 90, Note: "rain\x1b[2J"}, Peers: []string{"a", "b"}, Work: 0.41, Needed: 2. / 3}
	if got, want := pendingText(o), `order of a, b: set rounds to 90, "rain?[2J"; they did 41.0 % of the audited work, 66.7 % are needed. It holds until another order takes effect`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if o.Needed = 0; !strings.HasSuffix(pendingText(o), "; it takes effect with the next round") {
		t.Error(pendingText(o))
	}
}

// How long a round took that was decided elsewhere, or that was the first, is not told.
func TestLasted(t *testing.T) {
	for s, want := range map[float64]string{0: "-", 0.04: "0.0 s", 4.06: "4.1 s"} {
		if got := lasted(api.Round{Seconds: s}); got != want {
			t.Errorf("lasted(%v s) = %q, want %q", s, got, want)
		}
	}
}
