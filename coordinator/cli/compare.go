package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

// runTasks asks the questions of a file.
func runTasks(ctx context.Context, e *env, req api.CompareRequest) error {
	v, err := compare(ctx, e, req)
	if err != nil {
		return err
	}
	return e.answer(v, func(p *page) {
		p.field("model", "%s", v.Model)
		p.field("took", "%s", took(v.Seconds, v.Device))
		rows := make([][]string, 0, len(v.Versions))
		words, choices, tooLong := 0, 0, 0
		for _, a := range v.Versions {
			row := []string{versionName(a), "", "", "", ""}
			if w := a.Tasks.Words; w != nil {
				words = w.Asked
				row[1], row[2] = score(w.Exact), score(w.Loose)
			}
			if c := a.Tasks.Choices; c != nil {
				choices = c.Asked
				row[3], row[4] = score(c.Plain), score(c.Byte)
			}
			tooLong = a.Tasks.TooLong
			rows = append(rows, row)
		}
		p.line("")
		p.table([]string{"VERSION", ">EXACT", ">LOOSE", ">CHOICE", ">BY BYTE"}, rows)
		p.line("")
		p.line("%s questions in words, %s with choices; in brackets the 95 %% interval.", plain.Group(words), plain.Group(choices))
		if c := v.Versions[0].Tasks.Choices; c != nil {
			p.line("Guessing a choice would be right in %s.", percent(c.Chance))
		}
		if tooLong > 0 {
			p.line("%s questions do not fit into the model's context and count as wrong.", plain.Group(tooLong))
		}
	})
}

// runSamples prints the answers of several versions, one below the other.
func runSamples(ctx context.Context, e *env, req api.CompareRequest) error {
	v, err := compare(ctx, e, req)
	if err != nil {
		return err
	}
	return e.answer(v, func(p *page) {
		for i, prompt := range v.Prompts {
			if i > 0 {
				p.line("")
			}
			p.line("> %s", plain.Clean(prompt.Instruction))
			for _, a := range v.Versions {
				p.line("")
				p.line("%s:", versionName(a))
				p.line("%s", cleanText(a.Outputs[i].Text))
			}
		}
	})
}

func compare(ctx context.Context, e *env, req api.CompareRequest) (api.Comparison, error) {
	c, err := e.open()
	if err != nil {
		return api.Comparison{}, err
	}
	return c.Compare(ctx, req, e.board.progress(""))
}

func versionName(a api.VersionAnswer) string {
	if a.Round == nil || a.Version == strconv.FormatUint(*a.Round, 10) {
		return a.Version
	}
	return fmt.Sprintf("%s (round %d)", a.Version, *a.Round)
}

func score(s api.Score) string {
	return fmt.Sprintf("%.1f %% [%.1f, %.1f]", 100*s.Accuracy, 100*s.Low, 100*s.High)
}
