package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

func newRunShow(e *env) *cobra.Command {
	var round uint64
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show a run and its ledger",
		Long: `Shows a run and its ledger: for each round whose delta was included, with which
weight, and whose was refused, and why. All of it follows from signed messages.

An ID may be its first characters, or "last".`,
		Example: `  moot run show last
  moot run show last --round 3`,
		Args: needs(false, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("round") {
				return runRunShowRound(cmd.Context(), e, args[0], round)
			}
			return runRunShow(cmd.Context(), e, args[0])
		},
	}
	cmd.Flags().Uint64Var(&round, "round", 0, "show this round `number` alone")
	return cmd
}

func runRunShow(ctx context.Context, e *env, id string) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	d, err := c.Run(ctx, id)
	if err != nil {
		return err
	}
	if d.Rounds, err = c.AllRounds(ctx, d.ID); err != nil {
		return err
	}
	return e.answer(d, func(p *page) {
		runFields(p, d.Run)
		p.field("tokens", "%s", plain.Group(d.Tokens))
		p.field("loss", "train %s, held out %s", loss(d.TrainLoss), withPerplexity(d.EvalLoss))
		p.field("head", "%s", d.Head)
		p.field("adapter", "%s", d.StateCID)
		p.field("launcher", "%s", d.Launcher)
		if c := d.Course; c != nil && c.Rate != 0 {
			p.field("orders", "the learning rate is multiplied by %g", c.Rate)
		}
		pendingOrders(p, d.Pending)
		m := d.Manifest
		p.field("trains", "%s", trained(&m))
		p.field("optimizer", "%s", optimizer(&m))
		p.field("period", "%v s, %d to %d steps of %d samples", m.PeriodSeconds, m.MinSteps, m.MaxSteps, m.BatchSamples)
		if m.StartSteps > 0 || m.FollowArrivals {
			p.field("tempo", "%s", findsTempo(&m))
		}
		if m.Ends != nil {
			p.field("ends", "%s", ends(m.Ends))
		}
		if d.RecordsFrom > 0 {
			p.field("records", "from round %s on; older ones are being brought", plain.Group(d.RecordsFrom))
		}
		for _, r := range d.Rounds {
			p.line("")
			roundLedger(p, r)
		}
		if len(d.Members) > 0 {
			p.line("")
			members(p, d.Members)
		}
	})
}

// members prints what peers say of themselves.
func members(p *page, list []api.Member) {
	rows := make([][]string, 0, len(list))
	for _, m := range list {
		rows = append(rows, []string{api.ShortID(m.Peer), m.Phase, plain.Group(m.Round), fmt.Sprintf("%.0f", m.TokensPerSecond), orElse(m.Device, "-"), orElse(m.Agent, "-")})
	}
	p.table([]string{"MEMBER", "PHASE", ">ROUND", ">TOKENS/S", "DEVICE", "PROGRAM"}, rows)
}

// findsTempo says what of steps and deadlines a run finds by itself.
func findsTempo(m *api.Manifest) string {
	var list []string
	if m.StartSteps > 0 {
		list = append(list, fmt.Sprintf("steps begin with %d and follow how far deltas go apart", m.StartSteps))
	}
	if m.FollowArrivals {
		list = append(list, "deadlines follow when deltas arrive")
	}
	return strings.Join(list, "; ")
}

// trained says what of the model a run trains.
func trained(m *api.Manifest) string {
	if m.Mode == "full" {
		return "all " + plain.Group(m.AdapterParameters) + " parameters"
	}
	scaling := ""
	if m.RSLoRA {
		scaling = " (rsLoRA)"
	}
	targets := m.LoRATargets
	if most := 16; len(targets) > most {
		targets = append(targets[:most:most], fmt.Sprintf("and %d more", len(targets)-most))
	}
	return fmt.Sprintf("LoRA of rank %d, alpha %d%s, %s parameters, on %s", m.LoRARank, m.LoRAAlpha, scaling, plain.Group(m.AdapterParameters), strings.Join(targets, " "))
}

// ends says by which held-out loss a run ends early, or goes back.
func ends(e *api.EndRules) string {
	var parts []string
	if e.TargetLoss > 0 {
		parts = append(parts, fmt.Sprintf("at a held-out loss of %g", e.TargetLoss))
	}
	if e.Patience > 0 {
		parts = append(parts, fmt.Sprintf("after %s without an improvement of %g %%", plain.Plural(uint64(e.Patience), "round"), 100*e.MinImprovement))
	}
	if e.RollbackRounds > 0 {
		parts = append(parts, fmt.Sprintf("goes back to the best adapter after %s that are %g %% worse", plain.Plural(uint64(e.RollbackRounds), "round"), 100*e.RollbackWorse))
	}
	return strings.Join(parts, "; ")
}

// optimizer says how a peer of a run steps.
func optimizer(m *api.Manifest) string {
	text := fmt.Sprintf("%s, learning rate %g, %s", m.Optimizer, m.LearningRate, m.Schedule)
	if m.Momentum > 0 {
		text += fmt.Sprintf(", momentum %g", m.Momentum)
	}
	if m.LoRAPlusRatio != 1 {
		text += fmt.Sprintf(", %g times as fast in B (LoRA+)", m.LoRAPlusRatio)
	}
	return text
}

// orderText says what an order did.
func orderText(o api.Order) string {
	return "order of " + api.ShortID(o.Peer) + ": " + orderWhat(o)
}

// orderWhat says what an order wants.
func orderWhat(o api.Order) string {
	text := o.Action
	if o.Rounds != 0 {
		text += " rounds to " + plain.Group(o.Rounds)
	}
	if o.Tokens != 0 {
		text += " tokens to " + plain.Group(o.Tokens)
	}
	if o.Rate != 0 {
		text += fmt.Sprintf(" learning rate times %g", o.Rate)
	}
	if o.Note != "" {
		text += ", \"" + plain.Clean(o.Note) + "\""
	}
	return text
}

func runRunShowRound(ctx context.Context, e *env, id string, n uint64) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	r, err := c.Round(ctx, id, n)
	if err != nil {
		return err
	}
	return e.answer(r, func(p *page) {
		roundLedger(p, r)
		p.line("")
		p.field("record", "%s", r.Record)
		p.field("parent", "%s", r.Parent)
		p.field("adapter", "%s", r.State)
		p.field("proposer", "%s", r.Proposer)
		label := "held out"
		if r.MedianLoss != nil {
			p.field(label, "%s, the median of what peers drawn by lot measured", withPerplexity(r.MedianLoss))
			label = ""
		}
		if r.OwnLoss != nil {
			p.field(label, "%s, as this node measured it", withPerplexity(r.OwnLoss))
		}
		roundTrust(p, r)
		for _, c := range r.Contributions {
			p.line("")
			p.field("peer", "%s", c.Peer)
			p.field("delta", "%s (%s)", c.Delta, size(c.DeltaBytes))
			p.field("commit", "%s", c.Commit)
		}
	})
}

// roundLedger prints who contributed what to a round.
func roundLedger(p *page, r api.Round) {
	p.line("round %d  %s, %d of %d votes, %d needed  loss %s  eval %s  %s",
		r.Round, agreement(r), r.Votes, r.Seats, r.Quorum, loss(r.TrainLoss), loss(r.EvalLoss), lasted(r))
	rows := make([][]string, 0, len(r.Contributions)+len(r.Refused))
	for _, c := range r.Contributions {
		rows = append(rows, []string{
			"  " + api.ShortID(c.Peer), included(c), plain.Group(c.Weight), plain.Group(c.Tokens), plain.Group(c.Steps), loss(&c.Loss),
		})
	}
	for _, x := range r.Refused {
		rows = append(rows, []string{"  " + api.ShortID(x.Peer), "refused: " + x.Reason, "", "", "", ""})
	}
	for _, o := range r.Orders {
		p.line("  %s", orderText(o))
	}
	if len(rows) > 0 {
		p.table([]string{"  PEER", "VERDICT", ">WEIGHT", ">TOKENS", ">STEPS", ">LOSS"}, rows)
	} else {
		p.line("  no deltas")
	}
	if r.Tempo != nil {
		p.line("  %s", tempo(r.Tempo))
	}
	if m := r.Merged; m != nil {
		p.line("  a branch of %s tokens that had lost was merged with weight %.2f", plain.Group(m.Tokens), m.Weight)
	}
	if b := r.WentBack; b != nil {
		p.line("  the run went back to its best state, that after round %d: its loss was %.4f", b.Round, b.Loss)
	}
	if r.Ended != "" {
		p.line("  the run ended: %s", r.Ended)
	}
	for _, id := range r.Proven {
		p.line("  %s  signed two messages that contradict each other", plain.Clean(api.ShortID(id)))
	}
	for _, id := range r.Joined {
		p.line("  %s  gets a seat", plain.Clean(api.ShortID(id)))
	}
	for i, id := range r.Left {
		why := ""
		if i < len(r.LeftWhy) {
			why = ": " + r.LeftWhy[i]
		}
		p.line("  %s  loses its seat%s", plain.Clean(api.ShortID(id)), plain.Clean(why))
	}
}

// tempo says how many steps a round had, how long it could last, and what of that
// becomes different.
func tempo(t *api.Tempo) string {
	text := fmt.Sprintf("at most %s within %s", plain.Plural(uint64(t.Steps), "step"), seconds(t.Deadline))
	if t.Kappa != nil {
		text += fmt.Sprintf("; kappa %.3f", *t.Kappa)
	}
	if t.Arrival != nil {
		text += fmt.Sprintf("; nearly all deltas were there after %s", seconds(*t.Arrival))
	}
	if t.NextSteps != t.Steps || t.NextDeadline != t.Deadline {
		text += fmt.Sprintf("; next %s within %s", plain.Plural(uint64(t.NextSteps), "step"), seconds(t.NextDeadline))
	}
	return text
}

// included says whether a contribution counts.
func included(c api.Contribution) string {
	if c.Reason == "" {
		return "included"
	}
	if c.Reason == "taken-back" {
		return c.Reason
	}
	return "included: " + c.Reason
}

// roundTrust prints what auditors found of the round before, and what became of
// each peer by it.
func roundTrust(p *page, r api.Round) {
	if len(r.Judged) > 0 {
		p.line("")
		p.line("audits of round %d", r.Round-1)
		var rows [][]string
		for _, j := range r.Judged {
			rows = append(rows, []string{
				"  " + api.ShortID(j.Peer), verdict(j), fmt.Sprint(j.Auditors), fmt.Sprintf("%+.6f", j.Gain), fmt.Sprintf("%.2f", j.Worth),
			})
		}
		p.table([]string{"  PEER", "VERDICT", ">AUDITORS", ">GAIN", ">WORTH"}, rows)
	}
	if len(r.Standings) > 0 {
		p.line("")
		p.line("standings after round %d", r.Round)
		var rows [][]string
		for _, s := range r.Standings {
			rows = append(rows, []string{
				"  " + api.ShortID(s.Peer), standing(s), fmt.Sprintf("%.2f", s.Strikes), plain.Group(s.Pace), plain.Group(s.Work), fmt.Sprintf("%.2f", s.Worth),
			})
		}
		p.table([]string{"  PEER", "STANDING", ">STRIKES", ">PACE", ">WORK", ">WORTH"}, rows)
	}
}

// verdict is what audits came to, and what became of the delta by it.
func verdict(j api.Judged) string {
	text := j.Verdict
	switch {
	case j.Retraced > 0 && j.Error >= 1000:
		text += ", did not show its training"
	case j.Retraced > 0 && j.Error >= 999:
		text += ", not what it trained"
	case j.Retraced > 0:
		text += fmt.Sprintf(", its training done again is %.1f %% off", 100*j.Error)
	}
	if j.TakenBack {
		text += ", taken back"
	}
	return text
}

// standing says whether a peer's deltas count.
func standing(s api.Standing) string {
	const ever = 1 << 32 // rounds of a run, and more
	switch {
	case s.BannedUntil >= ever:
		return "banned: " + s.Reason
	case s.BannedUntil > 0:
		return fmt.Sprintf("banned until round %d: %s", s.BannedUntil, s.Reason)
	case s.Owed > 0:
		return fmt.Sprintf("owes %s", plain.Plural(uint64(s.Owed), "useful delta"))
	}
	return "trusted"
}
