package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

func newAdapterExport(e *env) *cobra.Command {
	var (
		req          api.ExportRequest
		round        string
		fromSnapshot bool
	)
	cmd := &cobra.Command{
		Use:   "export ID|FOLDER",
		Short: "Write what a run trained, or an adapter's folder, for PEFT, vLLM or llama.cpp",
		Long: `Writes the adapter as a run has it now, or had it after a round, with a model card:

  peft    adapter_config.json and adapter_model.safetensors, for PEFT and vLLM
  merged  the base model's folder with the adapter in its weights
  gguf    adapter.gguf, for llama.cpp (--lora)

With a folder of an adapter that was trained anywhere (PEFT, of every form that is
known: DoRA, modules_to_save, biases, adapter_model.bin) and --model, that is written
instead; with --snapshot, what "moot run snapshot" made, anywhere. A run in mode
full has no adapter: it is exported as merged.

What was written is read back and tested: it must change the base model, and give
the logits that the adapter gives. The exit code is 18 when it does not.`,
		Example: `  moot adapter export last --out ./adapter
  moot adapter export last --round best --out ./best
  moot adapter export last --round 40 --out ./adapter-40 --overwrite
  moot adapter export last --format merged --out ./merged
  moot adapter export --snapshot bafybeih2…2qay --out ./adapter
  moot adapter export last --format gguf --dtype f16 --out ./gguf
  moot adapter export ./their-adapter --model ./their-base --format merged --out ./merged`,
		Args: needs(false, "ID|FOLDER"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if req.Run = args[0]; fromSnapshot {
				req.Run, req.Snapshot = "", args[0]
			}
			if req.Model != "" {
				if req.Adapter, err = absolute(args[0]); err != nil {
					return err
				}
				if req.Model, err = folderOrID(req.Model); err != nil {
					return err
				}
				req.Run = ""
			}
			if req.Round, req.Best, err = roundOf(round); err != nil {
				return err
			}
			return runAdapterExport(cmd.Context(), e, req)
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Dir, "out", "", "`folder` to write; it is made")
	f.StringVar(&req.Format, "format", "", "peft, merged or gguf (default peft, or merged in mode full)")
	f.BoolVar(&fromSnapshot, "snapshot", false, "the ID is that of a snapshot, not of a run")
	f.StringVar(&req.Model, "model", "", "`ID or folder` of the base model, when a folder is exported")
	f.BoolVar(&req.NF4, "nf4", false, "merge into the weights as they are after quantisation to four bits")
	f.StringVar(&req.DType, "dtype", "", "`type` of the values in GGUF: f32 or f16 (default f32)")
	f.StringVar(&round, "round", "last", "take the adapter after this `round`: a number, last, or best, which has\nthe lowest loss on held-out rows")
	f.BoolVar(&req.Overwrite, "overwrite", false, "write into a folder that is not empty")
	return cmd
}

// roundOf reads the name of a round.
func roundOf(given string) (round *uint64, best bool, err error) {
	switch given {
	case "last", "":
		return nil, false, nil
	case "best":
		return nil, true, nil
	}
	n, err := strconv.ParseUint(given, 10, 64)
	if err != nil {
		return nil, false, api.Errorf(api.CodeUsage, "--round is %q, must be a number, last or best", given)
	}
	return &n, false, nil
}

func runAdapterExport(ctx context.Context, e *env, req api.ExportRequest) (err error) {
	if req.Dir == "" {
		return api.Errorf(api.CodeUsage, "--out is missing").WithHint(`give the folder to write, as in "moot adapter export last --out ./adapter"`)
	}
	if req.Dir, err = absolute(req.Dir); err != nil {
		return err
	}
	c, err := e.open()
	if err != nil {
		return err
	}
	x, err := c.Export(ctx, req, e.board.progress(""))
	if err != nil {
		return err
	}
	return e.answer(x, func(p *page) {
		p.field("folder", "%s", x.Dir)
		if x.Run != "" {
			p.field("run", "%s", x.Run)
			p.field("round", "%d", x.Round)
		}
		p.field("adapter", "%s", x.State+x.Adapter)
		p.field("model", "%s", x.Model)
		p.field("merged into", "%s", x.MergedInto)
		for _, f := range x.Files {
			p.field("file", "%s (%s)", f.Name, size(f.Bytes))
		}
		if t := x.Test; t != nil {
			p.field("test", "passed: logits differ by %.2g, at most %.2g; the adapter changes them by %.2g", t.Difference, t.Tolerance, t.Effect)
		}
		for _, w := range x.Warnings {
			p.field("warning", "%s", w)
		}
	})
}
