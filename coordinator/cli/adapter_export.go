package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

func newAdapterExport(e *env) *cobra.Command {
	var (
		req   api.ExportRequest
		round uint64
	)
	cmd := &cobra.Command{
		Use:   "export ID",
		Short: "Write the adapter of a run as a PEFT folder",
		Long: `Writes the adapter as a run has it now, or had it after a round, as a folder that
PEFT, vLLM and llama.cpp's converter read (adapter_config.json and
adapter_model.safetensors).`,
		Example: `  moot adapter export last --out ./adapter
  moot adapter export last --round 40 --out ./adapter-40 --overwrite`,
		Args: needs(false, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Run = args[0]
			if cmd.Flags().Changed("round") {
				req.Round = &round
			}
			return runAdapterExport(cmd.Context(), e, req)
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Dir, "out", "", "`folder` to write; it is made")
	f.Uint64Var(&round, "round", 0, "take the adapter after this round `number` (default: the last)")
	f.BoolVar(&req.Overwrite, "overwrite", false, "write into a folder that is not empty")
	return cmd
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
		p.field("run", "%s", x.Run)
		p.field("round", "%d", x.Round)
		p.field("adapter", "%s", x.State)
		p.field("model", "%s", x.Model)
		for _, f := range x.Files {
			p.field("file", "%s (%s)", f.Name, size(f.Bytes))
		}
	})
}
