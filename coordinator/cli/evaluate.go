package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

func newEvaluate(e *env) *cobra.Command {
	var (
		req     api.EvaluateRequest
		subject subjectFlags
	)
	cmd := &cobra.Command{
		Use:   "evaluate",
		Short: "Measure a model on held-out rows, with or without an adapter",
		Long: `Measures loss and accuracy on the held-out rows of a data set. Accuracy counts
greedy answers that equal the row's output but for white space at the ends.`,
		Example: `  moot evaluate --run last
  moot evaluate --model last --adapter ./adapter --data last --max-rows 100
  moot evaluate --model last --data last --loss-only`,
		Args: needs(false),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if req.Subject, err = subject.subject(cmd); err != nil {
				return err
			}
			return runEvaluate(cmd.Context(), e, req)
		},
	}
	subject.register(cmd)
	f := cmd.Flags()
	f.StringVar(&req.Dataset, "data", "", "`ID` of the data set (with --run not needed)")
	f.IntVar(&req.MaxRows, "max-rows", 0, "use this `number` of rows at most (default all)")
	f.BoolVar(&req.LossOnly, "loss-only", false, "leave out the answers, which take longest")
	f.IntVar(&req.MaxTokens, "max-tokens", 0, "longest answer in `tokens` (default 64)")
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
		p.field("rows", "%s", group(v.Rows))
		p.field("loss", "%.4f (perplexity %.2f) on %s tokens", v.Loss, v.Perplexity, group(v.Tokens))
		if v.Accuracy != nil {
			p.field("accuracy", "%s (%s of %s)", percent(*v.Accuracy), group(v.Correct), group(v.Rows))
		}
		p.field("took", "%.1f s", v.Seconds)
	})
}
