package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

func newGenerate(e *env) *cobra.Command {
	var (
		req     api.GenerateRequest
		subject subjectFlags
		prompts []string
	)
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Answer prompts, with or without an adapter",
		Example: `  moot generate --run last --prompt "Name three primary colours."
  moot generate --model last --adapter ./adapter --prompt "Hello" --prompt "Good bye"
  moot generate --model ./SmolLM2-135M --template none --prompt "Once upon a time"`,
		Args: needs(false),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if req.Subject, err = subject.subject(cmd); err != nil {
				return err
			}
			for _, p := range prompts {
				req.Prompts = append(req.Prompts, api.Prompt{Instruction: p})
			}
			return runGenerate(cmd.Context(), e, req)
		},
	}
	subject.register(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&prompts, "prompt", nil, "`text` to answer (may be given again)")
	f.IntVar(&req.MaxTokens, "max-tokens", 0, "longest answer in `tokens` (default 128)")
	f.StringVar(&req.Template, "template", "", "how a prompt becomes text: alpaca or none (default alpaca)")
	return cmd
}

func runGenerate(ctx context.Context, e *env, req api.GenerateRequest) error {
	if len(req.Prompts) == 0 {
		return api.Errorf(api.CodeUsage, "--prompt is missing").WithHint(`give what is to be answered, as in --prompt "Hello"`)
	}
	c, err := e.open()
	if err != nil {
		return err
	}
	g, err := c.Generate(ctx, req, e.board.progress(""))
	if err != nil {
		return err
	}
	return e.answer(g, func(p *page) {
		for i, o := range g.Outputs {
			if len(g.Outputs) > 1 {
				if i > 0 {
					p.line("")
				}
				p.line("> %s", clean(o.Prompt.Instruction))
			}
			p.line("%s", cleanText(o.Text))
		}
	})
}
