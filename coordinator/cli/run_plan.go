package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

func newRunPlan(e *env) *cobra.Command {
	var req api.LaunchRequest
	cmd := &cobra.Command{
		Use:   "plan FILE",
		Short: "Check a run file before anybody else sees the run",
		Long: `Looks at all that can be known before a run begins: whether the model can be
trained, the licences, every row of the data as the model sees it (the tokens that
the loss counts stand between [[ and ]]), the memory that kinds of devices need,
what a round moves over links of several speeds, how long the run lasts, and how
strong the agreement of so many peers is. Some steps are taken to see how fast this
machine is. Nothing is published.

When "moot launch" would refuse the run, the exit code is that of the first reason.`,
		Example: `  moot run plan run.toml
  moot run plan run.toml --model last --data last --json`,
		Args: needs(false, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runRunPlan(cmd.Context(), e, args[0], req)
		},
	}
	cmd.Flags().StringVar(&req.Model, "model", "", "`ID` of the base model, instead of the file's")
	cmd.Flags().StringVar(&req.Dataset, "data", "", "`ID` of the data set, instead of the file's")
	cmd.Flags().IntVar(&req.Sharing, "sharing", 1, "reckon with this `number` of peers that compute on one machine")
	cmd.Flags().BoolVar(&req.Quick, "quick", false, "do not time steps: how long rounds take is told if it was\ntimed before, and else how long at most")
	return cmd
}

func runRunPlan(ctx context.Context, e *env, file string, req api.LaunchRequest) error {
	text, err := readRunFile(file)
	if err != nil {
		return err
	}
	c, err := e.open()
	if err != nil {
		return err
	}
	req.Name, req.TOML = file, text
	plan, err := c.Plan(ctx, req, e.board.progress(""))
	if err != nil {
		return err
	}
	if err := e.answer(plan, func(p *page) { planPage(p, &plan) }); err != nil {
		return err
	}
	if len(plan.Refused) == 0 {
		return nil
	}
	first := &plan.Refused[0]
	if e.json {
		return reported{first}
	}
	return first
}

// from says where a model or data are from, if anybody has said.
func from(source string) string {
	if source == "" {
		return ""
	}
	return "from " + source
}

func planPage(p *page, plan *api.Plan) {
	m, d := &plan.Model, &plan.Data
	p.field("run", "%s", plan.Name)
	p.field("model", "%s (%s)", m.ID, m.Name)
	p.field("", "%s, %s parameters, %s, context %s, licence %s", orElse(m.Type, "?"), plain.Group(m.Parameters), size(m.Bytes), plain.Group(m.Context), orElse(m.Licence, "not stated"))
	p.field("", "%s", from(m.Source))
	p.field("trains", "%s parameters", plain.Group(m.Trained))
	p.field("use", "%s", plan.Use)
	p.field("data", "%s (%s)", d.ID, d.Name)
	p.field("", "%s, licence %s", plain.Plural(d.TrainRows+d.EvalRows, "row"), orElse(d.Licence, "not stated"))
	p.field("", "%s", from(d.Source))
	if d.DroppedRows > 0 {
		p.field("left out", "%s when it was imported", plain.Plural(d.DroppedRows, "row"))
		for _, x := range d.Rejected {
			p.field("", "%s: %s", x.Place, x.Why)
		}
	}
	p.line("")
	fileCheck(p, d.Train)
	p.line("")
	fileCheck(p, d.Eval)
	if len(d.Train.Problems)+len(d.Eval.Problems) > 0 {
		p.line("\nThe places are those in the data set as it is stored; \"moot data check FILE\", with --model and")
		p.line("--max-tokens, names the lines of a file.")
	}
	p.line("\nmemory")
	rows := make([][]string, 0, len(plan.Devices)+1)
	for _, x := range append(plan.Devices, api.PlanDevice{Name: "this machine", Memory: plan.Here.Items[0]}) {
		rows = append(rows, append([]string{x.Name}, amounts(x.Memory)...))
	}
	p.table([]string{"DEVICE", ">NEEDS", ">HAS", "VERDICT", "OF IT"}, rows)
	p.line("\na round leaves %s for the deltas of all seats, each of %s", seconds(plan.Traffic.Seconds), size(plan.Traffic.DeltaBytes))
	rows = rows[:0]
	for _, l := range plan.Traffic.Links {
		rows = append(rows, []string{fmt.Sprintf("%g Mbit/s", l.Mbit), fmt.Sprint(l.Seats), size(l.UpBytes), size(l.DownBytes), seconds(l.Seconds), string(l.Verdict), percent(l.Busy), percent(l.BusyOverlapped)})
	}
	p.table([]string{">LINK", ">SEATS", ">UP", ">DOWN", ">TAKES", "VERDICT", ">BUSY", ">OVERLAPPED"}, rows)
	asks := "as the file asks for"
	if !plan.Traffic.Overlaps {
		asks = fmt.Sprintf("which inner.overlap_steps = %d would ask for", plan.Traffic.OverlapSteps)
	}
	p.line("\nbusy: the part of the time that a seat computes whose steps fill the round; overlapped: the same with %s of the next round while deltas travel, %s", plain.Plural(plan.Traffic.OverlapSteps, "step"), asks)
	p.line("\nat most %s of %s: %s; a seat trains on up to %s, %s, in each", plain.Plural(plan.Length.Rounds, "round"), seconds(plan.Length.PeriodSeconds),
		seconds(plan.Length.Seconds), plain.Plural(plan.Length.SamplesPerSeat, "row"), plain.Plural(plan.Length.TokensPerSeat, "counted token"))
	rows = rows[:0]
	for _, s := range plan.Swarms {
		expected := "?"
		if s.ExpectedRounds > 0 {
			expected = plain.Group(s.ExpectedRounds) + " in " + seconds(s.ExpectedSeconds)
		}
		rows = append(rows, []string{fmt.Sprint(s.Peers), plain.Group(s.Rounds), seconds(s.Seconds), fmt.Sprintf("%.1f", s.Passes), expected, s.Guarantee.Text})
	}
	p.table([]string{">PEERS", ">ROUNDS", ">AT MOST", ">PASSES", ">EXPECTED", "GUARANTEE"}, rows)
	planPace(p, &plan.Pace)
	p.line("a round is over sooner when all seats have taken their steps")
	if v := plan.Eval; v.Rows > 0 {
		who := "each peer"
		if v.Peers == 1 {
			who = "one peer that is drawn by lot"
		} else if v.Peers > 1 {
			who = fmt.Sprintf("each of %s that are drawn by lot", plain.Plural(v.Peers, "peer"))
		}
		p.line("\nafter a round %s measures the loss on %s, which takes it %s of the time that it trains", who, plain.Plural(v.Rows, "held-out row"), percent(v.Share))
	}
	p.line("")
	for _, w := range plan.Warnings {
		p.field("warning", "%s", w)
	}
	for _, r := range plan.Refused {
		p.field("refused", "%s", r.Message)
	}
	if len(plan.Refused) == 0 {
		p.line("It can be launched.")
	}
}

// planPace says what is expected by.
func planPace(p *page, v *api.PlanPace) {
	if v.Steps == 0 {
		if v.Why != "" {
			p.line("how long rounds last was not timed: %s", plain.Clean(v.Why))
		}
		return
	}
	shared := ""
	if v.Sharing > 1 {
		shared = fmt.Sprintf(", %d peers on one", v.Sharing)
	}
	timed := ""
	if old := time.Since(v.Timed); !v.Timed.IsZero() && old >= time.Minute {
		timed = fmt.Sprintf(", as timed %s ago", seconds(old.Seconds()))
	}
	p.line("expected: all machines are like this one%s (%s), on which a step takes %s%s, and a round has %s in %s", shared, plain.Clean(v.Device), seconds(v.StepSeconds),
		timed, plain.Plural(v.Steps, "step"), seconds(v.TrainSeconds))
}

// amounts are what an item needs, what there is, the verdict and the parts.
func amounts(i api.FitItem) []string {
	have, verdict := "?", string(i.Verdict)
	if i.HaveBytes > 0 {
		have = size(i.HaveBytes)
		verdict = fmt.Sprintf("%s (%.0f %%)", i.Verdict, 100*float64(i.NeedBytes)/float64(i.HaveBytes))
	} else if i.HaveBytes == 0 {
		have = "0 B"
	}
	var parts []string
	for _, x := range i.Parts {
		if x.Bytes > 0 {
			parts = append(parts, x.Name+" "+size(x.Bytes))
		}
	}
	return []string{size(i.NeedBytes), have, verdict, strings.Join(parts, ", ")}
}

// seconds writes how long something takes.
func seconds(v float64) string {
	switch {
	case v > 0 && v < 0.9995e-3:
		return fmt.Sprintf("%.3g µs", v*1e6)
	case v > 0 && v < 0.9995:
		return fmt.Sprintf("%.3g ms", v*1e3)
	case v < 59.95:
		return fmt.Sprintf("%.3g s", v)
	}
	return time.Duration(v * float64(time.Second)).Round(time.Second).String()
}

// fitPage says what a run needs of this machine.
func fitPage(p *page, f *api.Fit) {
	p.field("run", "%s", f.Run)
	p.field("name", "%s, by %s", f.Name, f.Launcher)
	p.field("model", "%s, %s, licence %s", f.Model, size(f.ModelBytes), orElse(f.ModelLicence, "not stated"))
	p.field("", "%s", from(f.ModelSource))
	p.field("data", "%s, %s, licence %s", f.Dataset, size(f.DatasetBytes), orElse(f.DataLicence, "not stated"))
	p.field("", "%s", from(f.DataSource))
	p.field("to pull", "%s", size(f.MissingBytes))
	p.field("device", "%s", f.Device)
	p.line("")
	var rows [][]string
	for _, i := range f.Items {
		row := []string{i.Name, "", "", string(i.Verdict), ""}
		if i.NeedBytes > 0 {
			copy(row[1:], amounts(i))
		}
		rows = append(rows, row)
	}
	p.table([]string{"", ">NEEDS", ">HAS", "VERDICT", "OF IT"}, rows)
	p.line("")
	for _, i := range f.Items {
		if len(i.Parts) > 0 && i.Verdict == api.VerdictFits {
			continue // the table says it all
		}
		p.field(i.Name, "%s", i.Text)
		p.field("", "%s", i.Way)
	}
}
