package demo

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/moot-net/moot/node/api"
)

// AdapterDir is the folder of the adapter within Options.Dir.
const AdapterDir = "adapter"

// answerTokens bounds the answers that are shown.
const answerTokens = 48

// compare exports the adapter from a survivor, and measures and shows what it
// changed.
func (d *demo) compare(ctx context.Context, survivors []*node) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.limits.measure, errTimeout)
	defer cancel()
	// The base model is measured by one survivor while the other is busy with
	// the adapter.
	x, other := survivors[0], survivors[1]
	dir := filepath.Join(d.o.Dir, AdapterDir)
	exported, err := x.client.Export(ctx, api.ExportRequest{Run: d.report.Run, Dir: dir}, d.o.Screen.Progress("export"))
	if err != nil {
		return d.blame("export the adapter", err, x)
	}
	d.report.AdapterDir = exported.Dir
	d.o.Screen.Clear()
	base, tuned := api.Subject{Model: d.report.Model}, api.Subject{Model: d.report.Model, Adapter: dir}
	var baseText, tunedText []string
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		e, ok := <-d.base
		if !ok {
			if e, err = d.evaluate(gctx, other, base, "base"); err != nil {
				return err
			}
		}
		d.report.EvalLoss.Base, d.report.Accuracy.Base = &e.Loss, e.Accuracy
		baseText, err = d.generate(gctx, other, base)
		return err
	})
	g.Go(func() error {
		e, err := d.evaluate(gctx, x, tuned, "adapter")
		if err != nil {
			return err
		}
		d.report.EvalLoss.Adapter, d.report.Accuracy.Adapter = &e.Loss, e.Accuracy
		tunedText, err = d.generate(gctx, x, tuned)
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	d.o.Screen.Clear()
	for i, p := range d.prompts {
		d.report.Answers = append(d.report.Answers, Answer{Prompt: p.Prompt, Expected: p.Expected, Base: baseText[i], Adapter: tunedText[i]})
	}
	d.sayResult(exported)
	return nil
}

func (d *demo) evaluate(ctx context.Context, x *node, s api.Subject, name string) (api.Evaluation, error) {
	e, err := x.client.Evaluate(ctx, api.EvaluateRequest{Subject: s, Dataset: d.report.Dataset}, d.o.Screen.Progress(name))
	if err != nil {
		return e, d.blame("measure the "+name, err, x)
	}
	return e, nil
}

func (d *demo) generate(ctx context.Context, x *node, s api.Subject) ([]string, error) {
	if len(d.prompts) == 0 {
		return nil, nil
	}
	req := api.GenerateRequest{Subject: s, MaxTokens: answerTokens}
	for _, p := range d.prompts {
		req.Prompts = append(req.Prompts, p.Prompt)
	}
	g, err := x.client.Generate(ctx, req, nil)
	if err == nil && len(g.Outputs) != len(d.prompts) {
		err = api.Errorf(api.CodeInternal, "%d answers for %d prompts", len(g.Outputs), len(d.prompts))
	}
	if err != nil {
		return nil, d.blame("answer prompts", err, x)
	}
	texts := make([]string, len(g.Outputs))
	for i, o := range g.Outputs {
		texts[i] = o.Text
	}
	return texts, nil
}

func (d *demo) sayResult(exported api.Export) {
	say := d.o.Screen.Say
	say("adapter    %s", exported.Dir)
	for _, f := range exported.Files {
		say("           %s, %s", f.Name, size(f.Bytes))
	}
	say("")
	say("held-out rows         base   adapter")
	say("loss              %s  %s", number(d.report.EvalLoss.Base), number(d.report.EvalLoss.Adapter))
	if a := d.report.Accuracy; a.Base != nil && a.Adapter != nil {
		say("right answers     %6.1f %%  %6.1f %%", 100**a.Base, 100**a.Adapter)
	}
	for _, a := range d.report.Answers {
		say("")
		say("prompt     %s", oneLine(strings.TrimSpace(a.Prompt.Instruction+" "+a.Prompt.Input)))
		say("  base     %s", oneLine(a.Base))
		say("  adapter  %s", oneLine(a.Adapter))
	}
}

// oneLine fits a text beside its name.
func oneLine(s string) string {
	r := []rune(strings.Join(strings.Fields(s), " "))
	if len(r) > 68 {
		r = append(r[:67], '…')
	}
	return string(r)
}

// verdict checks what the demo promises.
func (d *demo) verdict(launcher, joiner *node) error {
	r := &d.report
	var missing []string
	check := func(ok bool, format string, args ...any) {
		if !ok {
			missing = append(missing, fmt.Sprintf(format, args...))
		}
	}
	check(len(r.StateCIDs) == 3 && same(r.StateCIDs), "the live peers have different states")
	check(same(r.Heads), "the live peers have different heads")
	check(r.LauncherKilledAfterRound > 0 && !launcher.proc.alive() && !answers(launcher), "the launcher is not dead")
	check(r.JoinerDeltas > 0, "no delta of the latecomer %s was included", api.ShortID(joiner.peer))
	check(r.Rounds > r.LauncherKilledAfterRound, "nothing was trained after the launcher was killed")
	a, l := r.Accuracy, r.EvalLoss
	check(a.Base != nil && a.Adapter != nil && *a.Adapter > *a.Base, "the adapter answers no better than the base model")
	check(l.Base != nil && l.Adapter != nil && *l.Adapter < *l.Base/2, "the adapter's loss is not below half of the base model's")
	if len(missing) == 0 {
		return nil
	}
	return api.Errorf(api.CodeVerify, "the demo did not show what it should: %s", strings.Join(missing, "; "))
}

// answers reports whether a node's API does.
func answers(x *node) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return x.client.Healthy(ctx) == nil
}

// size writes a number of bytes for people.
func size[T int64 | uint64](n T) string {
	if n < 1<<20 {
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
