package train

import (
	"context"
	"fmt"
	"math"

	"github.com/moot-net/moot/node/internal/model"
)

// Step takes one optimizer step on the mean loss over all counted tokens of
// the batch, and returns their summed loss (before the step, in nats) and
// their number. A batch without a counted token changes nothing. With ctx
// done it returns ctx's error within one micro-batch, and on any error it has
// changed nothing.
func (t *Trainer) Step(ctx context.Context, batch []Sample, learningRate float64) (lossSum float64, tokens int, err error) {
	counted := 0
	for _, s := range batch {
		if err := s.check(t.maxTokens); err != nil {
			return 0, 0, fmt.Errorf("step: %w", err)
		}
		counted += s.Counted()
	}
	if counted == 0 {
		return 0, 0, nil
	}
	t.b.Zero(t.grads)
	loss, err := t.accumulate(ctx, batch, float32(1/float64(counted)))
	if err != nil {
		return 0, 0, err
	}
	if err := t.update(loss.Sum, learningRate); err != nil {
		return 0, 0, fmt.Errorf("step: %w", err)
	}
	return loss.Sum, loss.Tokens, nil
}

// update takes the optimizer's step by the gradients that were accumulated.
func (t *Trainer) update(lossSum, learningRate float64) error {
	norm := math.Sqrt(t.b.SumSquares(t.grads))
	if err := t.b.Err(); err != nil {
		return err
	}
	if math.IsNaN(lossSum+norm) || math.IsInf(lossSum+norm, 0) {
		return fmt.Errorf("loss %v, gradient norm %v: %w", lossSum, norm, ErrNotFinite)
	}
	t.gradNorm = norm
	t.steps++
	t.optimizer.step(t.values, t.grads, update{rate: learningRate, number: t.steps, gradScale: clip(norm, t.clipNorm)})
	return t.b.Err()
}

// clip returns what to multiply a gradient of the given norm with, as
// PyTorch's clip_grad_norm_ does.
func clip(norm, limit float64) float64 {
	if limit <= 0 {
		return 1
	}
	return min(1, limit/(norm+1e-6))
}

// accumulate adds up gradients and losses over the batch. With scale 0 it only
// evaluates.
func (t *Trainer) accumulate(ctx context.Context, batch []Sample, scale float32) (model.Loss, error) {
	var total model.Loss
	for len(batch) > 0 {
		n := 1
		if !t.unpacked {
			n = microBatch(batch, t.micro)
		}
		part := batch[:n]
		batch = batch[n:]
		if err := ctx.Err(); err != nil {
			return model.Loss{}, err
		}
		t.batch.Reset()
		for _, s := range part {
			if err := t.batch.Add(s.IDs, s.Labels); err != nil {
				return model.Loss{}, err
			}
		}
		loss, err := t.run(scale)
		if err != nil {
			return model.Loss{}, err
		}
		total.Sum += loss.Sum
		total.Tokens += loss.Tokens
		total.Correct += loss.Correct
	}
	return total, nil
}

func (t *Trainer) run(scale float32) (model.Loss, error) {
	if scale == 0 {
		return t.model.Evaluate(&t.batch)
	}
	return t.model.Accumulate(&t.batch, scale)
}

// microBatch returns how many of the samples fit in limit tokens, at least
// one.
func microBatch(samples []Sample, limit int) int {
	n, tokens := 1, len(samples[0].IDs)
	for n < len(samples) && tokens+len(samples[n].IDs) <= limit {
		tokens += len(samples[n].IDs)
		n++
	}
	return n
}

// Score is what Evaluate measures.
type Score struct {
	LossSum float64 // nats
	Tokens  int     // counted
	Correct int     // counted tokens that were the most likely one
}

// Loss returns the mean loss per counted token.
func (s Score) Loss() float64 { return s.LossSum / float64(max(1, s.Tokens)) }

// Accuracy returns the share of counted tokens that were the most likely one.
func (s Score) Accuracy() float64 { return float64(s.Correct) / float64(max(1, s.Tokens)) }

// Eval returns the mean loss per counted token, and their number.
func (t *Trainer) Eval(ctx context.Context, samples []Sample) (loss float64, tokens int, err error) {
	s, err := t.Evaluate(ctx, samples)
	return s.Loss(), s.Tokens, err
}

// Evaluate measures loss and token accuracy.
func (t *Trainer) Evaluate(ctx context.Context, samples []Sample) (Score, error) {
	for _, s := range samples {
		if err := s.check(t.maxTokens); err != nil {
			return Score{}, fmt.Errorf("evaluate: %w", err)
		}
	}
	loss, err := t.accumulate(ctx, samples, 0)
	return Score{LossSum: loss.Sum, Tokens: loss.Tokens, Correct: loss.Correct}, err
}
