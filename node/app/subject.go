package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/chat"
	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// subject is a loaded base model with or without adapter.
type subject struct {
	name    string // as it was named: CID or path
	dir     string // of the base model
	adapter string // folder or CID of the state; "" without
	// template is that of the run that was named, or "".
	template string
	model    *model.Model
	computer
}

// source is where a subject comes from.
type source struct {
	name, dir string
	manifest  *run.Manifest    // of the run that was named, or nil
	snapshot  *runner.Snapshot // of it
}

// withSubject loads what a request names, and calls use with it. One caller at
// a time computes; the others wait.
func (n *node) withSubject(ctx context.Context, q *api.Subject, progress api.ProgressFunc, use func(*subject) error) error {
	src, err := n.locate(ctx, q)
	if err != nil {
		return err
	}
	release, err := n.takeCompute(ctx, progress)
	if err != nil {
		return err
	}
	defer release()
	return n.withLoaded(q, src, progress, use)
}

// withLoaded loads what was found, and calls use with it. The caller has the
// token of takeCompute.
func (n *node) withLoaded(q *api.Subject, src *source, progress api.ProgressFunc, use func(*subject) error) error {
	c, err := n.computerFor(q, src, progress)
	if err != nil {
		return err
	}
	progress(api.Progress{Phase: "load", Text: "loads the model, computes on " + c.text})
	s, err := n.load(q, src, c)
	if err == nil {
		err = use(s)
	}
	return c.close(err)
}

// takeCompute waits until nobody else computes.
func (n *node) takeCompute(ctx context.Context, progress api.ProgressFunc) (release func(), err error) {
	select {
	case n.compute <- struct{}{}:
	default:
		progress(api.Progress{Phase: "load", Text: "waits until another request has computed"})
		select {
		case n.compute <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return func() { <-n.compute }, nil
}

// locate finds model and adapter, and pulls the state of a run if needed.
func (n *node) locate(ctx context.Context, q *api.Subject) (*source, error) {
	src := &source{name: q.Model}
	if q.Run != "" {
		p, err := n.runs.opened(q.Run)
		if err != nil {
			return nil, err
		}
		snapshot, err := p.StateAt(ctx, q.Round, cid.Undef)
		if err != nil {
			return nil, err
		}
		src.manifest, src.snapshot = p.Manifest(), &snapshot
		src.name = orElse(q.Model, src.manifest.Model.String())
	}
	if filepath.IsAbs(src.name) {
		src.dir = src.name
		return src, nil
	}
	root, err := parseID("model", src.name)
	if err != nil {
		return nil, err
	}
	src.dir, err = n.modelDir(ctx, root)
	return src, err
}

func (n *node) load(q *api.Subject, src *source, c computer) (*subject, error) {
	s := &subject{name: src.name, dir: src.dir, computer: c}
	if src.manifest != nil {
		s.template = src.manifest.Template
	}
	var err error
	if s.model, err = model.Load(src.dir, c.options); err != nil {
		return nil, modelError(err)
	}
	var a *lora.Adapter
	switch {
	case src.snapshot != nil:
		s.adapter = src.snapshot.ID.String()
		a, err = trainedOf(src.manifest, src.snapshot.State, s.model)
	case q.Adapter != "":
		s.adapter = q.Adapter
		a, err = lora.ReadAny(q.Adapter, train.Modules(s.model.Config()))
	default:
		return s, nil
	}
	if err == nil {
		err = train.Apply(s.model, a)
	}
	if err != nil {
		return nil, modelError(err)
	}
	return s, nil
}

// modelError gives an error about a model or an adapter its code.
func modelError(err error) error {
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, model.ErrUnsupported) && !errors.Is(err, lora.ErrUnsupported) {
		return api.Errorf(api.CodeNotFound, "%w", err)
	}
	return api.Errorf(api.CodeModel, "%w", err)
}

// trainedOf makes what a state of a run holds, for the run's model.
func trainedOf(m *run.Manifest, state *fold.State, base *model.Model) (*lora.Adapter, error) {
	if m.Mode == run.ModeFull {
		return wholeOf(m, state, base)
	}
	c := base.Config()
	return adapterOf(m, state, adaptable(&c))
}

// wholeOf makes the model that a state of a run of all parameters holds.
func wholeOf(m *run.Manifest, state *fold.State, base *model.Model) (*lora.Adapter, error) {
	if err := sameLayout(m, train.FullLayout(base.Config())); err != nil {
		return nil, err
	}
	difference := make([]float32, len(state.Theta))
	fold.ToFloat32(difference, state.Theta)
	return train.Whole(base, difference)
}

// adapterOf makes the adapter that a state of a run holds.
func adapterOf(m *run.Manifest, state *fold.State, modules []lora.Module) (*lora.Adapter, error) {
	a, err := lora.New(runner.Spec(m), modules)
	if err != nil {
		return nil, err
	}
	if err := sameLayout(m, a.Layout()); err != nil {
		return nil, err
	}
	fold.ToFloat32(a.Values(), state.Theta)
	return a, nil
}

// sameLayout reports whether the tensors of a run are those that its model
// takes.
func sameLayout(m *run.Manifest, layout []lora.TensorInfo) error {
	if len(layout) != len(m.Tensors) {
		return fmt.Errorf("the run trains %d tensors, the model takes %d", len(m.Tensors), len(layout))
	}
	for i, t := range m.Tensors {
		if want := (lora.TensorInfo{Name: t.Name, Rows: int(t.Rows), Cols: int(t.Cols)}); layout[i] != want {
			return fmt.Errorf("the run trains tensor %v, the model takes %v", want, layout[i])
		}
	}
	return nil
}

// encoder makes tokens by a template, for the subject's context.
func (s *subject) encoder(template string) (*dataset.Encoder, error) {
	t, err := dataset.ParseTemplate(template)
	if err != nil {
		return nil, api.Errorf(api.CodeUsage, "%w", err)
	}
	e, err := dataset.LoadEncoder(s.dir, t, s.model.Config().Context)
	if err != nil {
		return nil, encoderError(s.name, err)
	}
	return e, nil
}

// encoderError is the error for a model that encodes nothing by a template.
func encoderError(model string, err error) error {
	e := api.Errorf(api.CodeModel, "model %s: %w", model, err)
	if errors.Is(err, chat.ErrNoTemplate) {
		return e.WithHint("use a model that was made for conversations; prompts with one answer can do with --template alpaca or none")
	}
	return e
}

// The reasons why an answer ends.
const (
	stopEOS    = "eos"
	stopLength = "length" // MaxTokens
	stopFull   = "full"   // the model's context
)

// answer answers a prompt.
func (s *subject) answer(ctx context.Context, e *dataset.Encoder, p api.Prompt, maxTokens int) (api.Output, error) {
	ids := e.EncodePrompt(p.Instruction, p.Input)
	if len(ids) == 0 && p.Instruction != "" {
		if _, _, err := e.EncodeQuestion(shard.Row{Instruction: p.Instruction, Input: p.Input}); err != nil {
			return api.Output{}, api.Errorf(api.CodeModel, "model %s: %w", s.name, err)
		}
	}
	out, err := s.complete(ctx, e, ids, maxTokens)
	out.Prompt = p
	return out, err
}

// complete continues tokens with the most likely ones.
func (s *subject) complete(ctx context.Context, e *dataset.Encoder, ids []int32, maxTokens int) (api.Output, error) {
	out := api.Output{Stop: stopLength}
	if len(ids) == 0 {
		return out, api.Errorf(api.CodeUsage, "the prompt is empty, there is nothing to continue")
	}
	limit := maxTokens
	if room := s.model.Config().Context - len(ids); room < limit {
		limit, out.Stop = max(room, 0), stopFull
	}
	answer, err := s.model.Generate(ctx, ids, model.GenerateOptions{MaxTokens: limit, Stop: e.Stop()})
	if err != nil {
		return out, err
	}
	if len(answer) < limit {
		out.Stop = stopEOS
	}
	out.Text, out.Tokens = e.Decode(answer), len(answer)
	return out, nil
}
