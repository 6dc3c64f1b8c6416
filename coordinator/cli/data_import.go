package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

func newDataImport(e *env) *cobra.Command {
	var req api.ImportDatasetRequest
	cmd := &cobra.Command{
		Use:   "import FILE...",
		Short: "Store rows as a data set",
		Long: `Checks files of rows and stores them in the daemon as a data set. Files are .json
(an array), .jsonl (a row a line), .csv or .tsv (names of fields in the first line),
.parquet, or .txt (empty lines separate rows). Rows are told by their fields:
instruction, input and output (alpaca); messages; conversations (sharegpt); prompt
and completion (completion); or text. Fields with other names are named by --field.
Conversations are trained by the model's own
chat template.
Some rows should be held out: they measure what a run has learned.
Training rows are put in an order that --seed and the rows draw: a peer reads a few
shards in a round, which of sorted files would be of one subject. The same files and
options give the same data set everywhere.`,
		Example: `  moot data import alpaca.json --eval-fraction 0.02 --licence CC-BY-NC-4.0
  moot data import part1.jsonl part2.jsonl --eval held-out.jsonl
  moot data import faq.csv --field instruction=question --field output=answer --eval-fraction 0.05
  moot data import chats.json --format sharegpt --eval-fraction 0.05`,
		Args: needs(true, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Files = args
			return runDataImport(cmd.Context(), e, req)
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Format, "format", "", formatUsage)
	f.StringToStringVar(&req.Fields, "field", nil, fieldUsage)
	f.StringVar(&req.Template, "template", "", "how a row becomes text: alpaca, chat or none (default: by format)")
	f.StringVar(&req.EvalFile, "eval", "", "`file` of held-out rows")
	f.Float64Var(&req.EvalFraction, "eval-fraction", 0, "`share` of the rows to hold out, such as 0.02")
	f.BoolVar(&req.Shuffle, "shuffle", true, "order the training rows at random; --shuffle=false\nkeeps the order of the files")
	f.Uint64Var(&req.Seed, "seed", 0, "`number` that draws held-out rows and order")
	f.IntVar(&req.ShardBytes, "shard-bytes", 0, "largest shard in `bytes` (default 1 MiB)")
	f.BoolVar(&req.DropInvalid, "drop-invalid", false, "leave invalid rows out and count them, instead of refusing the file")
	f.StringVar(&req.Licence, "licence", "", "`name` of the data's licence, for those who join")
	f.StringVar(&req.Source, "source", "", "where the data is from, as `text`")
	cmd.MarkFlagsMutuallyExclusive("eval", "eval-fraction")
	return cmd
}

func runDataImport(ctx context.Context, e *env, req api.ImportDatasetRequest) error {
	var err error
	if req.Files, err = absoluteAll(req.Files); err != nil {
		return err
	}
	if req.EvalFile != "" {
		if req.EvalFile, err = absolute(req.EvalFile); err != nil {
			return err
		}
	}
	c, err := e.open()
	if err != nil {
		return err
	}
	d, err := c.ImportDataset(ctx, req, e.board.progress(""))
	if err != nil {
		return err
	}
	return e.answer(d, func(p *page) {
		p.field("data", "%s", d.ID)
		p.field("name", "%s", d.Name)
		p.field("format", "%s", orElse(d.Detected, d.Format))
		p.field("template", "%s", d.Template)
		p.field("rows", "%s to train on, %s held out, %s dropped", plain.Group(d.TrainRows), plain.Group(d.EvalRows), plain.Group(d.DroppedRows))
		p.field("size", "%s in %s", size(d.Bytes), plain.Plural(d.TrainShards+d.EvalShards, "shard"))
		p.field("licence", "%s", d.Licence)
		p.field("source", "%s", d.Source)
		for _, w := range d.Warnings {
			p.field("warning", "%s", w)
		}
	})
}
