package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

func newModelImport(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "import DIR",
		Short: "Store a Hugging Face checkpoint folder",
		Long: `Checks a Hugging Face checkpoint folder (config.json, tokenizer, safetensors) and
stores it in the daemon. The ID that is printed follows from the content alone.`,
		Example: `  moot model import ./SmolLM2-135M`,
		Args:    needs(false, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runModelImport(cmd.Context(), e, args[0])
		},
	}
}

func runModelImport(ctx context.Context, e *env, dir string) error {
	dir, err := absolute(dir)
	if err != nil {
		return err
	}
	c, err := e.open()
	if err != nil {
		return err
	}
	m, err := c.ImportModel(ctx, api.ImportModelRequest{Dir: dir}, e.board.progress(""))
	if err != nil {
		return err
	}
	return e.answer(m, func(p *page) {
		p.field("model", "%s", m.ID)
		p.field("name", "%s", m.Name)
		p.field("type", "%s", strings.Join(append([]string{m.Type}, m.Architectures...), " "))
		p.field("parameters", "%s", group(m.Parameters))
		p.field("size", "%s in %s", size(m.Bytes), plural(m.Files, "file"))
		p.field("licence", "%s", m.Licence)
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
