package app

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/shard"
)

// evalBatchTokens bounds the tokens whose activations are held at once, but for
// a longer row.
const evalBatchTokens = train.DefaultMicroBatchTokens

// Evaluate implements api.Backend. Rows that are longer than the model's
// context are left out.
func (n *node) Evaluate(ctx context.Context, req api.EvaluateRequest, progress api.ProgressFunc) (api.Evaluation, error) {
	ev := api.Evaluation{Dataset: req.Dataset}
	trained := "" // the template that the run uses for this data set
	if req.Run != "" {
		p, err := n.runs.opened(req.Run)
		if err != nil {
			return ev, err
		}
		m := p.Manifest()
		ev.Dataset = orElse(ev.Dataset, m.Dataset.String())
		if ev.Dataset == m.Dataset.String() {
			trained = m.Template
		}
	}
	rows, index, err := n.heldOut(ctx, ev.Dataset, req.MaxRows)
	if err != nil {
		return ev, err
	}
	begin := time.Now()
	err = n.withSubject(ctx, &req.Subject, progress, func(s *subject) error {
		begin = time.Now() // loading is not what is measured
		ev.Model, ev.Adapter, ev.Device = s.name, s.adapter, s.text
		e, err := s.encoder(orElse(trained, index.Template))
		if err != nil {
			return err
		}
		if err := e.Accepts(index.Format); err != nil {
			return api.Errorf(api.CodeData, "data set %s: %w", ev.Dataset, err)
		}
		rows, err := s.measureLoss(ctx, e, rows, progress, &ev)
		if err != nil || req.LossOnly || index.Format == shard.FormatText {
			return err
		}
		return s.measureAnswers(ctx, e, rows, &req, progress, &ev)
	})
	ev.Seconds = time.Since(begin).Seconds()
	return ev, err
}

// heldOut reads the first limit held-out rows of a data set, 0: all.
func (n *node) heldOut(ctx context.Context, id string, limit int) ([]shard.Row, *shard.DatasetIndex, error) {
	root, err := parseID("data set", id)
	if err != nil {
		return nil, nil, err
	}
	d, err := shard.OpenDataset(ctx, n.store, root)
	if errors.Is(err, shard.ErrIncomplete) {
		return nil, nil, api.Errorf(api.CodeNotFound, "data set %s is not here: %w", id, err).
			WithHint("%s", howToHave(root))
	}
	if err != nil {
		return nil, nil, api.Errorf(api.CodeData, "%w", err)
	}
	x := d.Index()
	if x.Eval.Rows == 0 {
		return nil, nil, api.Errorf(api.CodeData, "data set %s has no held-out rows", id).
			WithHint("import the data again with an eval file or an eval fraction")
	}
	if limit == 0 || int64(limit) > x.Eval.Rows {
		limit = int(x.Eval.Rows)
	}
	rows, err := dataset.NewSource(d, nil).HeldOutRows(ctx, limit)
	if err != nil {
		return nil, nil, fmt.Errorf("read held-out rows of %s: %w", id, err)
	}
	return rows, &x, nil
}

// measureLoss fills in the loss of the rows, and returns those that fit.
func (s *subject) measureLoss(ctx context.Context, e *dataset.Encoder, rows []shard.Row, progress api.ProgressFunc, ev *api.Evaluation) ([]shard.Row, error) {
	var batch model.Batch
	var sum model.Loss
	flush := func() error {
		if batch.Tokens() == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		l, err := s.model.Evaluate(&batch)
		if err != nil {
			return fmt.Errorf("evaluate: %w", err)
		}
		sum.Sum += l.Sum
		sum.Tokens += l.Tokens
		batch.Reset()
		return nil
	}
	var fit []shard.Row
	for i, row := range rows {
		sample, ok := e.Encode(row)
		if !ok {
			continue
		}
		if batch.Tokens()+len(sample.IDs) > evalBatchTokens {
			if err := flush(); err != nil {
				return nil, err
			}
			progress(api.Progress{Phase: "loss", Done: int64(i), Total: int64(len(rows)), Unit: "rows"})
		}
		if err := batch.Add(sample.IDs, sample.Labels); err != nil {
			return nil, err
		}
		fit = append(fit, row)
	}
	if err := flush(); err != nil {
		return nil, err
	}
	progress(api.Progress{Phase: "loss", Done: int64(len(rows)), Total: int64(len(rows)), Unit: "rows"})
	if sum.Tokens == 0 {
		return nil, api.Errorf(api.CodeData, "none of the %d held-out rows fits into the model's context of %d tokens (%d were refused by its chat template)",
			len(rows), s.model.Config().Context, e.Refused())
	}
	ev.Rows, ev.Tokens, ev.Loss = len(fit), int64(sum.Tokens), sum.Sum/float64(sum.Tokens)
	ev.Perplexity = math.Exp(ev.Loss)
	if math.IsInf(ev.Perplexity, 0) || math.IsNaN(ev.Perplexity) {
		return nil, api.Errorf(api.CodeVerify, "the loss is %v, which is not a usable number", ev.Loss)
	}
	return fit, nil
}

// measureAnswers fills in how many answers are those of the rows.
func (s *subject) measureAnswers(ctx context.Context, e *dataset.Encoder, rows []shard.Row, req *api.EvaluateRequest, progress api.ProgressFunc, ev *api.Evaluation) error {
	total := int64(len(rows))
	for i, row := range rows {
		ids, want, err := e.EncodeQuestion(row)
		if err != nil {
			return api.Errorf(api.CodeData, "held-out row %d: %w", i+1, err)
		}
		out, err := s.complete(ctx, e, ids, req.MaxTokens)
		if err != nil {
			return err
		}
		if strings.TrimSpace(out.Text) == strings.TrimSpace(want) {
			ev.Correct++
		}
		progress(api.Progress{Phase: "answers", Done: int64(i + 1), Total: total, Unit: "rows"})
	}
	ev.Accuracy = new(float64(ev.Correct) / float64(total))
	return nil
}
