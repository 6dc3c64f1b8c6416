package cli

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

func newGenerate(e *env) *cobra.Command {
	var (
		req     api.GenerateRequest
		subject subjectFlags
		prompts []string
		several []string
	)
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Answer prompts, with or without an adapter",
		Example: `  moot generate --run last --prompt "Name three primary colours."
  moot generate --model last --adapter ./adapter --prompt "Hello" --prompt "Good bye"
  moot generate --model ./SmolLM2-135M --template none --prompt "Once upon a time"
  moot generate --run last --prompt -
  moot generate --run last --versions base,5,best,last --prompt "Hello"`,
		Args: needs(false),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if req.Subject, err = subject.subject(cmd); err != nil {
				return err
			}
			if req.Prompts, err = readPrompts(prompts, cmd.InOrStdin()); err != nil {
				return err
			}
			if len(several) > 0 {
				return runSamples(cmd.Context(), e, api.CompareRequest{
					Subject: req.Subject, Versions: several, Prompts: req.Prompts, MaxTokens: req.MaxTokens, Template: req.Template,
				})
			}
			return runGenerate(cmd.Context(), e, req)
		},
	}
	subject.register(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&prompts, "prompt", nil, "`text` to answer; - reads it from stdin (may be given again)")
	f.StringSliceVar(&several, "versions", nil, "answers of several `versions`, one below the other:\nbase, best, last, rounds by number, adapter")
	f.IntVar(&req.MaxTokens, "max-tokens", 0, "longest answer in `tokens` (default 128)")
	f.StringVar(&req.Template, "template", "", "how a prompt becomes text: alpaca, chat or none\n(default: that of the run, else alpaca)")
	return cmd
}

// maxPromptBytes bounds what is read from stdin.
const maxPromptBytes = 1 << 20

// readPrompts makes prompts of texts; one of them may be "-", which is all of
// stdin without the line break at its end.
func readPrompts(texts []string, stdin io.Reader) ([]api.Prompt, error) {
	prompts := make([]api.Prompt, 0, len(texts))
	read := false
	for _, text := range texts {
		if text == "-" {
			if read {
				return nil, api.Errorf(api.CodeUsage, "--prompt - is given twice; stdin can be read once")
			}
			read = true
			b, err := io.ReadAll(io.LimitReader(stdin, maxPromptBytes+1))
			if err != nil {
				return nil, api.Errorf(api.CodeInternal, "read prompt from stdin: %w", err)
			}
			if len(b) > maxPromptBytes {
				return nil, api.Errorf(api.CodeUsage, "the prompt on stdin has more than %d bytes", maxPromptBytes)
			}
			text = strings.TrimRight(string(b), "\r\n")
		}
		prompts = append(prompts, api.Prompt{Instruction: text})
	}
	return prompts, nil
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
				p.line("> %s", plain.Clean(o.Prompt.Instruction))
			}
			p.line("%s", cleanText(o.Text))
		}
	})
}
