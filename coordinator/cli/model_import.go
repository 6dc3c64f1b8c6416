package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

func newModelImport(e *env) *cobra.Command {
	var req api.ImportModelRequest
	cmd := &cobra.Command{
		Use:   "import DIR",
		Short: "Add a Hugging Face checkpoint folder",
		Long: `Checks a Hugging Face checkpoint folder (config.json, tokenizer, safetensors) and adds
it to what the daemon serves and trains. Its files are used where they are, and must
stay as they are: one that changes is not served any more, and "moot shard verify" names
it. With --copy the daemon keeps a copy of its own. The ID that is printed follows from
the content alone. A folder with pytorch_model.bin is stored as safetensors; nothing in
it is executed. Folders in the cache of Hugging Face are full of links: --follow-links.

With --quantize nf4 the linear layers are stored in four bits, as bitsandbytes does:
a quarter of the bytes to pull and to hold, for a little of the quality. Anybody who
has the 16-bit model can do the same, and gets the same ID.`,
		Example: `  moot model import ./SmolLM2-135M
  moot model import ./Llama-2-7b-hf --quantize nf4`,
		Args: needs(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Dir = args[0]
			return runModelImport(cmd.Context(), e, req)
		},
	}
	cmd.Flags().BoolVar(&req.Copy, "copy", false, "store a copy, so that the folder may change or go")
	cmd.Flags().BoolVar(&req.FollowLinks, "follow-links", false, "take symbolic links to files for these files")
	cmd.Flags().StringVar(&req.Quantize, "quantize", "", "store the weights in fewer bits: `nf4` (default: as they are)")
	cmd.Flags().StringVar(&req.Source, "source", "", "where it is from, as `text` (default: as a cache of Hugging Face says)")
	return cmd
}

func runModelImport(ctx context.Context, e *env, req api.ImportModelRequest) (err error) {
	if req.Dir, err = absolute(req.Dir); err != nil {
		return err
	}
	c, err := e.open()
	if err != nil {
		return err
	}
	m, err := c.ImportModel(ctx, req, e.board.progress(""))
	if err != nil {
		return err
	}
	return e.answer(m, func(p *page) {
		p.field("model", "%s", m.ID)
		p.field("name", "%s", m.Name)
		p.field("type", "%s", strings.Join(append([]string{m.Type}, m.Architectures...), " "))
		p.field("parameters", "%s", plain.Group(m.Parameters))
		p.field("size", "%s in %s", size(m.Bytes), plain.Plural(m.Files, "file"))
		p.field("where", "%s", place(m.Dir, m.InPlace))
		p.field("licence", "%s", m.Licence)
		p.field("source", "%s", m.Source)
		p.field("trainable", "%s", trainable(m))
		for _, w := range m.Warnings {
			p.field("warning", "%s", w)
		}
	})
}

func trainable(m api.Model) string {
	if m.Trainable {
		return "yes"
	}
	return strings.TrimSuffix("no: "+m.Why, ": ")
}
