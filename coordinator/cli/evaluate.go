package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

func newEvaluate(e *env) *cobra.Command {
	var (
		req     api.EvaluateRequest
		tasks   api.CompareRequest
		subject subjectFlags
	)
	cmd := &cobra.Command{
		Use:   "evaluate",
		Short: "Measure a model on held-out rows or on questions, with or without an adapter",
		Long: `Measures loss and accuracy on the held-out rows of a data set. Accuracy counts
greedy answers that equal the row's output but for white space at the ends.

With --tasks, measures how many questions of a JSONL file are answered right, by
the base model and by versions of the adapter side by side. A line is an object
with instruction and output (or a list of right answers), or with instruction,
choices and answer: then the most likely choice counts, by its probability and by
that of a byte of it, as lm-evaluation-harness does.`,
		Example: `  moot evaluate --run last
  moot evaluate --model last --adapter ./adapter --data last --max-rows 100
  moot evaluate --model last --data last --loss-only
  moot evaluate --run last --tasks questions.jsonl
  moot evaluate --run last --tasks questions.jsonl --versions base,10,20,best`,
		Args: needs(false),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if req.Subject, err = subject.subject(cmd); err != nil {
				return err
			}
			if tasks.Tasks == "" {
				return runEvaluate(cmd.Context(), e, req)
			}
			if req.Round != nil {
				tasks.Versions = append(tasks.Versions, strconv.FormatUint(*req.Round, 10))
			}
			tasks.Subject, tasks.MaxTasks, tasks.MaxTokens = req.Subject, req.MaxRows, req.MaxTokens
			tasks.Round = nil
			if tasks.Tasks, err = absolute(tasks.Tasks); err != nil {
				return err
			}
			return runTasks(cmd.Context(), e, tasks)
		},
	}
	subject.register(cmd)
	f := cmd.Flags()
	f.StringVar(&req.Dataset, "data", "", "`ID` of the data set (with --run not needed)")
	f.IntVar(&req.MaxRows, "max-rows", 0, "use this `number` of rows at most (default all)")
	f.BoolVar(&req.LossOnly, "loss-only", false, "leave out the answers, which take longest")
	f.IntVar(&req.MaxTokens, "max-tokens", 0, "longest answer in `tokens` (default 64)")
	f.StringVar(&tasks.Tasks, "tasks", "", "ask the questions of this JSONL `file`")
	f.StringSliceVar(&tasks.Versions, "versions", nil, "`versions` to ask: base, best, last, rounds by number, adapter")
	f.StringVar(&tasks.Template, "template", "", "how a question becomes text: alpaca, chat or none\n(default: that of the run, else alpaca)")
	cmd.MarkFlagsMutuallyExclusive("tasks", "data")
	cmd.MarkFlagsMutuallyExclusive("tasks", "loss-only")
	return cmd
}

func runEvaluate(ctx context.Context, e *env, req api.EvaluateRequest) error {
	if req.Dataset == "" && req.Run == "" {
		return api.Errorf(api.CodeUsage, "--data is missing").WithHint(`without --run, the data set must be named; "moot data list" lists them`)
	}
	c, err := e.open()
	if err != nil {
		return err
	}
	v, err := c.Evaluate(ctx, req, e.board.progress(""))
	if err != nil {
		return err
	}
	return e.answer(v, func(p *page) {
		p.field("model", "%s", v.Model)
		p.field("adapter", "%s", v.Adapter)
		p.field("data", "%s", v.Dataset)
		p.field("rows", "%s", plain.Group(v.Rows))
		p.field("loss", "%.4f (perplexity %.2f) on %s tokens", v.Loss, v.Perplexity, plain.Group(v.Tokens))
		if v.Accuracy != nil {
			p.field("accuracy", "%s (%s of %s)", percent(*v.Accuracy), plain.Group(v.Correct), plain.Group(v.Rows))
		}
		p.field("took", "%s", took(v.Seconds, v.Device))
	})
}

// took says how long a device computed.
func took(seconds float64, device string) string {
	if device == "" { // an older daemon does not say
		return fmt.Sprintf("%.1f s", seconds)
	}
	return fmt.Sprintf("%.1f s on %s", seconds, device)
}
