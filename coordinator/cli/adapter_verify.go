package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

func newAdapterVerify(e *env) *cobra.Command {
	var (
		req   api.VerifyAdapterRequest
		round uint64
	)
	cmd := &cobra.Command{
		Use:   "verify FOLDER|FILE",
		Short: "Test an export again, or an adapter from anywhere",
		Long: `Tests an adapter (a PEFT folder or a GGUF file) or a merged model:

  files    all bytes are those that were exported, as moot.json beside them says
  base     the base model is the one that it was trained on
  tensors  it can be read, its layers are those of the base model, all is finite
  run      it is what the run has, bit by bit, if the run is known here
  effect   it changes what the base model says

What cannot be told is said, and is no failure. The exit code is 18 when a check
failed. The model card is not compared: people edit it.`,
		Example: `  moot adapter verify ./adapter
  moot adapter verify ./gguf/adapter.gguf --model last
  moot adapter verify ./adapter --run last --round 40`,
		Args: needs(false, "FOLDER|FILE"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if req.Path, err = absolute(args[0]); err != nil {
				return err
			}
			if req.Model, err = folderOrID(req.Model); err != nil {
				return err
			}
			if cmd.Flags().Changed("round") {
				req.Round = &round
			}
			return runAdapterVerify(cmd.Context(), e, req)
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Model, "model", "", "`ID or folder` of the base model (default: what the files name)")
	f.StringVar(&req.Run, "run", "", "compare with this run (default: the one that moot.json names)")
	f.Uint64Var(&round, "round", 0, "compare with the run after this round `number` (default: the one that\nmoot.json names, else the last)")
	f.StringVar(&req.Snapshot, "snapshot", "", "compare with the snapshot of this `CID`")
	return cmd
}

func runAdapterVerify(ctx context.Context, e *env, req api.VerifyAdapterRequest) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	v, err := c.VerifyAdapter(ctx, req, e.board.progress(""))
	if err != nil {
		return err
	}
	err = e.answer(v, func(p *page) {
		p.field("path", "%s (%s)", v.Path, v.Format)
		if v.Run != "" {
			p.field("from", "round %d of run %s", v.Round, v.Run)
		}
		p.field("model", "%s", v.Model)
		for _, x := range v.Checks {
			p.field(x.Name, "%s: %s", map[api.CheckLevel]string{api.CheckOK: "passed", api.CheckWarn: "not told", api.CheckFail: "failed"}[x.Level], x.Text)
			p.field("", "%s", x.Fix)
		}
	})
	if err != nil || v.OK {
		return err
	}
	return failedChecks(e, v)
}

// failedChecks is the error for what did not stand its test. With --json the
// answer was all.
func failedChecks(e *env, v api.AdapterCheck) error {
	var first *api.Check
	failed := 0
	for i := range v.Checks {
		if v.Checks[i].Level == api.CheckFail {
			if failed++; first == nil {
				first = &v.Checks[i]
			}
		}
	}
	if first == nil {
		return api.Errorf(api.CodeInternal, "verify %s: it is not right, and no check says why", v.Path)
	}
	err := api.Errorf(api.CodeVerify, "verify %s: %s failed, %s: %s", v.Path, plain.Plural(failed, "check"), first.Name, first.Text)
	if e.json {
		return reported{err}
	}
	return err.WithHint("%s", first.Fix)
}
