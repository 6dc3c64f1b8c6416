package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

func newDataCheck(e *env) *cobra.Command {
	var req api.CheckDatasetRequest
	cmd := &cobra.Command{
		Use:   "check FILE...",
		Short: "Look through rows before they are imported",
		Long: `Reads files of rows as "moot data import" does, and stores nothing. It tells the
format, and lists rows that an import refuses, with file, line and field. With a
model it also encodes all rows: it lists those that are too long or that the chat
template refuses, counts tokens, and shows samples, in which the tokens that the
loss counts stand between [[ and ]]. Rows that are there twice are listed; a row of
the --eval file that is trained on is a leak, which an import refuses.

The exit code is 17 when a row is invalid or leaks, or when no row gives a sample.`,
		Example: `  moot data check alpaca.json
  moot data check chats.jsonl --model last --max-tokens 1024
  moot data check train.jsonl --eval held-out.jsonl
  moot data check faq.csv --field instruction=question --field output=answer
  moot data check rows.csv --model ./SmolLM2-135M --template alpaca --samples 5`,
		Args: needs(true, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Files = args
			return runDataCheck(cmd.Context(), e, req)
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Model, "model", "", "`ID or folder` of the model that is to learn from the rows")
	f.StringVar(&req.Eval, "eval", "", "`file` of held-out rows, of which none may be trained on")
	f.StringVar(&req.Template, "template", "", "how a row becomes text: alpaca, chat or none (default: by format)")
	f.StringVar(&req.Format, "format", "", formatUsage)
	f.StringToStringVar(&req.Fields, "field", nil, fieldUsage)
	f.IntVar(&req.MaxTokens, "max-tokens", 0, "longest sample in `tokens` (default: the model's context)")
	f.IntVar(&req.Samples, "samples", 0, "show this `number` of samples of each file (default 3)")
	f.IntVar(&req.Problems, "problems", 0, "list this `number` of problems of each file (default 20)")
	return cmd
}

// formatUsage says what --format is.
const formatUsage = "`form` of the rows: alpaca, messages, sharegpt,\ncompletion or text (default: detected)"

// fieldUsage says what --field is.
const fieldUsage = "which field of the files is meant: `ours=theirs`, such as\noutput=answer; may be given several times"

func runDataCheck(ctx context.Context, e *env, req api.CheckDatasetRequest) (err error) {
	if req.Files, err = absoluteAll(req.Files); err != nil {
		return err
	}
	if req.Eval != "" {
		if req.Eval, err = absolute(req.Eval); err != nil {
			return err
		}
	}
	if req.Model, err = folderOrID(req.Model); err != nil {
		return err
	}
	c, err := e.open()
	if err != nil {
		return err
	}
	check, err := c.CheckDataset(ctx, req, e.board.progress(""))
	if err != nil {
		return err
	}
	err = e.answer(check, func(p *page) {
		for i, f := range check.Files {
			if i > 0 {
				p.line("")
			}
			fileCheck(p, f)
		}
	})
	if err != nil {
		return err
	}
	return badRows(e, check)
}

// badRows is the error for a check that found rows which an import refuses, or
// none that could be trained on. With --json the answer was all.
func badRows(e *env, check api.DatasetCheck) error {
	var err *api.Error
	switch {
	case check.Invalid > 0:
		err = api.Errorf(api.CodeData, "%s of %s cannot be trained on", plain.Group(check.Invalid), plain.Plural(check.Rows, "row")).
			WithHint("repair them, or leave them out with \"moot data import --drop-invalid\"")
	case check.Leaks > 0:
		err = api.Errorf(api.CodeData, "%s of the held-out rows are trained on too", plain.Group(check.Leaks)).
			WithHint("take them out of one of the files")
	case check.Dropped == check.Rows:
		err = api.Errorf(api.CodeData, "none of %s gives a sample", plain.Plural(check.Rows, "row")).
			WithHint("give another --template, or a greater --max-tokens")
	default:
		return nil
	}
	if e.json {
		return reported{err}
	}
	return err
}

func fileCheck(p *page, f api.FileCheck) {
	p.field("file", "%s", f.File)
	if f.Input == "" {
		p.field("format", "not known: no row can be read")
	} else {
		p.field("format", "%s (%s)", f.Input, f.Why)
	}
	p.field("template", "%s", f.Template)
	counts := fmt.Sprintf("%s, %s invalid, %s dropped, %s cut", plain.Group(f.Rows), plain.Group(f.Invalid), plain.Group(f.Dropped), plain.Group(f.Cut))
	if f.Repeated > 0 {
		counts += fmt.Sprintf(", %s repeated", plain.Group(f.Repeated))
	}
	if f.Leaks > 0 {
		counts += fmt.Sprintf(", %s trained on", plain.Group(f.Leaks))
	}
	p.field("rows", "%s", counts)
	if t := f.Tokens; t != nil && t.Sum > 0 {
		p.field("tokens", "%s, %s of them counted by the loss", plain.Group(t.Sum), percent(float64(t.Counted)/float64(t.Sum)))
		p.field("a sample", "%s to %s tokens, median %s, 95 %% have at most %s", plain.Group(t.Min), plain.Group(t.Max), plain.Group(t.Median), plain.Group(t.P95))
	}
	for _, x := range f.Problems {
		p.field(x.Kind, "%s: %s", x.Place, x.Why)
	}
	if rest := f.Invalid + f.Dropped + f.Cut + f.Repeated + f.Leaks - len(f.Problems); rest > 0 {
		p.field("", "and %s more", plain.Group(rest))
	}
	for _, s := range f.Samples {
		p.line("")
		p.line("%s", plain.Clean(s.Place))
		var b strings.Builder
		for _, part := range s.Parts {
			if part.Counted {
				b.WriteString("[[" + part.Text + "]]")
			} else {
				b.WriteString(part.Text)
			}
		}
		for _, line := range strings.Split(cleanText(b.String()), "\n") {
			p.line("  %s", line)
		}
	}
}
