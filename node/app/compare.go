package app

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/node/internal/task"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// version is one that is compared.
type version struct {
	at       int // in the request
	name     string
	snapshot *runner.Snapshot // of a run
}

// Compare implements api.Backend. The base model is loaded once.
func (n *node) Compare(ctx context.Context, req api.CompareRequest, progress api.ProgressFunc) (api.Comparison, error) {
	v := api.Comparison{Prompts: req.Prompts}
	tasks, err := readTasks(req.Tasks, req.MaxTasks)
	if err != nil {
		return v, err
	}
	base := req.Subject
	base.Adapter = ""
	versions, err := n.versions(ctx, &req)
	if err != nil {
		return v, err
	}
	v.Versions = make([]api.VersionAnswer, len(versions))
	src, err := n.locate(ctx, &base)
	if err != nil {
		return v, err
	}
	manifest := src.manifest
	src.snapshot = nil
	release, err := n.takeCompute(ctx, progress)
	if err != nil {
		return v, err
	}
	defer release()
	err = n.withLoaded(&base, src, progress, func(s *subject) error {
		return s.compare(ctx, &comparing{&req, manifest, versions, tasks}, &v, progress)
	})
	return v, err
}

// comparing is what is compared, and what is asked.
type comparing struct {
	req      *api.CompareRequest
	manifest *run.Manifest // of the run, or nil
	versions []version
	tasks    []task.Task
}

// compare fills in what the versions answer.
func (s *subject) compare(ctx context.Context, c *comparing, v *api.Comparison, progress api.ProgressFunc) error {
	req, versions := c.req, c.versions
	begin := time.Now()
	e, err := s.encoder(orElse(orElse(req.Template, s.template), dataset.Alpaca.String()))
	if err != nil {
		return err
	}
	v.Model, v.Device = s.name, s.text
	// The base model before anything is applied to it.
	slices.SortStableFunc(versions, func(a, b version) int { return one(a.name != api.VersionBase) - one(b.name != api.VersionBase) })
	for i, x := range versions {
		a := &v.Versions[x.at]
		a.Version = x.name
		if x.snapshot != nil {
			a.Round, a.Adapter = new(x.snapshot.Round), x.snapshot.ID.String()
		} else if x.name == api.VersionAdapter {
			a.Adapter = req.Adapter
		}
		if a.Adapter != "" {
			var ad *lora.Adapter
			if x.snapshot != nil {
				ad, err = trainedOf(c.manifest, x.snapshot.State, s.model)
			} else {
				ad, err = lora.ReadAny(req.Adapter, train.Modules(s.model.Config()))
			}
			if err == nil {
				err = train.Apply(s.model, ad)
			}
			if err != nil {
				return modelError(err)
			}
		}
		told := func(done, total int) {
			progress(api.Progress{
				Phase: "answers", Done: int64(i*total + done), Total: int64(len(versions) * total), Unit: "answers", Text: x.name,
			})
		}
		if err := s.ask(ctx, e, req, c.tasks, a, told); err != nil {
			return fmt.Errorf("version %s: %w", x.name, err)
		}
	}
	v.Seconds = time.Since(begin).Seconds()
	return nil
}

// one is 1 if it holds.
func one(holds bool) int {
	if holds {
		return 1
	}
	return 0
}

func readTasks(path string, most int) ([]task.Task, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, api.Errorf(api.CodeNotFound, "read tasks: %w", err)
	}
	defer f.Close()
	list, err := task.Read(f)
	if err != nil {
		return nil, api.Errorf(api.CodeData, "%s: %w", path, err).
			WithHint("each line is an object with instruction and output, or with instruction, choices and answer")
	}
	if most > 0 && most < len(list) {
		list = list[:most]
	}
	return list, nil
}

// versions finds what is compared, in the order of the request, and pulls the
// states that are not here.
func (n *node) versions(ctx context.Context, req *api.CompareRequest) ([]version, error) {
	names, given := req.Versions, len(req.Versions) > 0
	if !given {
		names = []string{api.VersionBase}
		switch {
		case req.Run != "":
			names = append(names, api.VersionBest, api.VersionLast)
		case req.Adapter != "":
			names = append(names, api.VersionAdapter)
		}
	}
	var list []version
	for _, name := range names {
		x := version{at: len(list), name: name}
		if name != api.VersionBase && name != api.VersionAdapter {
			p, err := n.runs.opened(req.Run)
			if err != nil {
				return nil, err
			}
			var round *uint64
			if number, err := strconv.ParseUint(name, 10, 32); err == nil {
				round = &number
			} else if name == api.VersionBest {
				round, err = bestRound(p)
				if err != nil && !given {
					continue
				}
				if err != nil {
					return nil, err
				}
				if !given && *round == p.Summary().Round {
					continue
				}
			}
			snapshot, err := p.StateAt(ctx, round, cid.Undef)
			if err != nil {
				return nil, err
			}
			x.snapshot = &snapshot
		}
		list = append(list, x)
	}
	return list, nil
}

// ask fills in what the subject answers.
func (s *subject) ask(ctx context.Context, e *dataset.Encoder, req *api.CompareRequest, tasks []task.Task, a *api.VersionAnswer, told func(done, total int)) error {
	for i, p := range req.Prompts {
		out, err := s.answer(ctx, e, p, req.MaxTokens)
		if err != nil {
			return fmt.Errorf("answer prompt %d: %w", i+1, err)
		}
		a.Outputs = append(a.Outputs, out)
		told(i+1, len(req.Prompts))
	}
	if len(tasks) == 0 {
		return nil
	}
	a.Tasks = &api.Tasks{Answers: []api.TaskAnswer{}}
	for i := range tasks {
		if err := s.solve(ctx, e, &tasks[i], req.MaxTokens, a.Tasks); err != nil {
			return fmt.Errorf("question of line %d: %w", tasks[i].Line, err)
		}
		told(i+1, len(tasks))
	}
	if w := a.Tasks.Words; w != nil {
		finish(&w.Exact, w.Asked)
		finish(&w.Loose, w.Asked)
	}
	if c := a.Tasks.Choices; c != nil {
		finish(&c.Plain, c.Asked)
		finish(&c.Byte, c.Asked)
		c.Chance /= float64(c.Asked)
	}
	return nil
}

func finish(s *api.Score, asked int) {
	s.Accuracy = float64(s.Right) / float64(asked)
	s.Low, s.High = task.Wilson(s.Right, asked)
}

// solve answers one question and counts it.
func (s *subject) solve(ctx context.Context, e *dataset.Encoder, t *task.Task, maxTokens int, to *api.Tasks) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(t.Choices) == 0 {
		return s.solveInWords(ctx, e, t, maxTokens, to)
	}
	if to.Choices == nil {
		to.Choices = new(api.ChoiceScore)
	}
	c := to.Choices
	c.Asked++
	c.Chance += 1 / float64(len(t.Choices))
	logs := make([]float64, len(t.Choices))
	for i, text := range t.Choices {
		sample, ok := e.Encode(shard.Row{Instruction: t.Instruction, Input: t.Input, Output: text})
		if !ok {
			to.TooLong++
			to.Answers = append(to.Answers, api.TaskAnswer{Line: t.Line})
			return nil
		}
		var b model.Batch
		if err := b.Add(sample.IDs, sample.Labels); err != nil {
			return err
		}
		l, err := s.model.Evaluate(&b)
		if err != nil {
			return err
		}
		if math.IsNaN(l.Sum) || math.IsInf(l.Sum, 0) {
			return api.Errorf(api.CodeVerify, "the loss of choice %d is %v, which is not a usable number", i+1, l.Sum)
		}
		logs[i] = -l.Sum
	}
	plain, byByte := t.Choose(logs)
	c.Plain.Right += one(plain == t.Right)
	c.Byte.Right += one(byByte == t.Right)
	to.Answers = append(to.Answers, api.TaskAnswer{Line: t.Line, Text: t.Choices[plain], Right: plain == t.Right})
	return nil
}

func (s *subject) solveInWords(ctx context.Context, e *dataset.Encoder, t *task.Task, maxTokens int, to *api.Tasks) error {
	if to.Words == nil {
		to.Words = new(api.WordScore)
	}
	to.Words.Asked++
	ids := e.EncodePrompt(t.Instruction, t.Input)
	if len(ids) >= s.model.Config().Context {
		to.TooLong++
		to.Answers = append(to.Answers, api.TaskAnswer{Line: t.Line})
		return nil
	}
	out, err := s.answer(ctx, e, api.Prompt{Instruction: t.Instruction, Input: t.Input}, maxTokens)
	if err != nil {
		return err
	}
	exact, loose := t.Matches(out.Text)
	to.Words.Exact.Right += one(exact)
	to.Words.Loose.Right += one(loose)
	to.Answers = append(to.Answers, api.TaskAnswer{Line: t.Line, Text: out.Text, Right: exact})
	return nil
}
