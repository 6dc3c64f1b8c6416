package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

func newShardExport(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "export ID FILE.car",
		Short: "Write a model or data set to one file",
		Long: `Writes all blocks of a model or data set to a CAR file, as IPFS programs read it, so
that it can travel on a disk. The file must not exist; mootd writes it.`,
		Example: `  moot shard export last model.car`,
		Args:    needs(false, "ID", "FILE.car"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runShardExport(cmd.Context(), e, api.ExportShardsRequest{ID: args[0], File: args[1]})
		},
	}
}

func runShardExport(ctx context.Context, e *env, req api.ExportShardsRequest) (err error) {
	if req.File, err = absolute(req.File); err != nil {
		return err
	}
	c, err := e.open()
	if err != nil {
		return err
	}
	a, err := c.ExportShards(ctx, req, e.board.progress(""))
	if err != nil {
		return err
	}
	return e.archive(a)
}

func (e *env) archive(a api.Archive) error {
	return e.answer(a, func(p *page) {
		for _, r := range a.Roots {
			p.field(r.Kind, "%s", r.ID)
			p.field("name", "%s", r.Name)
		}
		p.field("file", "%s", a.File)
		p.field("size", "%s in %s", size(a.Bytes), plain.Plural(a.Blocks, "block"))
	})
}

func newShardImport(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE.car",
		Short: "Store what is in a CAR file",
		Long: `Stores the blocks of a CAR file, each checked against its hash. What is a model can be
trained from then on, what is a data set can be trained on.`,
		Example: `  moot shard import model.car`,
		Args:    needs(false, "FILE.car"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runShardImport(cmd.Context(), e, api.ImportShardsRequest{File: args[0]})
		},
	}
}

func runShardImport(ctx context.Context, e *env, req api.ImportShardsRequest) (err error) {
	if req.File, err = absolute(req.File); err != nil {
		return err
	}
	c, err := e.open()
	if err != nil {
		return err
	}
	a, err := c.ImportShards(ctx, req, e.board.progress(""))
	if err != nil {
		return err
	}
	return e.archive(a)
}

func newShardVerify(e *env) *cobra.Command {
	var req api.VerifyRequest
	cmd := &cobra.Command{
		Use:   "verify [ID]",
		Short: "Compare what the node holds with its hashes",
		Long: `Reads everything that the node holds, or the model or data set with an ID, and compares
it with its hashes. What is damaged is not served any more. With --repair it is pulled
from peers that have it; files in folders of yours are left as they are.
Exit code 14 says that something is broken.`,
		Example: `  moot shard verify
  moot shard verify last --repair`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				req.ID = args[0]
			}
			return runShardVerify(cmd.Context(), e, req)
		},
	}
	cmd.Flags().BoolVar(&req.Repair, "repair", false, "pull what is broken from peers")
	return cmd
}

func runShardVerify(ctx context.Context, e *env, req api.VerifyRequest) error {
	c, err := e.open()
	if err != nil {
		return err
	}
	v, err := c.VerifyShards(ctx, req, e.board.progress(""))
	if err != nil {
		return err
	}
	err = e.answer(v, func(p *page) {
		p.field("right", "%s in %s", size(v.Bytes), plain.Plural(v.Blocks, "block"))
		if v.Damaged > 0 {
			p.field("damaged", "%s", plain.Plural(v.Damaged, "block"))
		}
		if v.Repaired > 0 {
			p.field("repaired", "%s", plain.Plural(v.Repaired, "block"))
		}
		for _, b := range v.Broken {
			where := b.Disk
			if where == "" {
				where = fmt.Sprintf("%s of %s", b.Path, api.ShortID(b.ID))
			}
			p.field("broken", "%s: %s missing, %s", where, plain.Plural(b.Missing, "block"), size(b.Bytes))
		}
	})
	if err != nil || len(v.Broken) == 0 {
		return err
	}
	broken := api.Errorf(api.CodeIntegrity, "%s broken", plain.Plural(len(v.Broken), "file"))
	if !req.Repair {
		broken = broken.WithHint("\"moot shard verify --repair\" pulls what is missing from peers")
	}
	if e.json {
		return reported{broken}
	}
	return broken
}
