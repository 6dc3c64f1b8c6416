package train

import (
	"context"
	"fmt"
	"time"
)

// RunOptions say what RunSteps does.
type RunOptions struct {
	// Next returns the batch and the learning rate of a step, counted from
	// FirstStep on.
	Next func(ctx context.Context, step int) (batch []Sample, learningRate float64, err error)
	// FirstStep is the number of the first step: more than 0 after a resume.
	FirstStep int
	// MaxSteps ends the run before the step of that number.
	MaxSteps int
	// MinSteps are taken even after Until.
	MinSteps int
	// Until is when no further step begins; the zero time is never.
	Until time.Time
	// OnStep, if set, is called after each step.
	OnStep func(StepResult)
	// Position, if set, makes a checkpoint after each step; it returns what
	// Load is to return, for a run that goes on with step next.
	Position func(next int) []byte
}

// StepResult is what a step came to.
type StepResult struct {
	Step     int
	LossSum  float64 // nats
	Tokens   int     // counted
	GradNorm float64 // before clipping
	Took     time.Duration
}

// RunResult is what a run of steps came to.
type RunResult struct {
	Steps   int
	Tokens  int
	LossSum float64
}

// RunSteps takes steps until MaxSteps, until the time is up, or until ctx is
// done: then it returns ctx's error within one micro-batch, with the steps
// that were completed.
func (t *Trainer) RunSteps(ctx context.Context, o RunOptions) (RunResult, error) {
	var r RunResult
	for step := o.FirstStep; step < o.MaxSteps; step++ {
		if step >= o.MinSteps && !o.Until.IsZero() && !time.Now().Before(o.Until) {
			return r, nil
		}
		if err := ctx.Err(); err != nil {
			return r, err
		}
		began := time.Now()
		batch, rate, err := o.Next(ctx, step)
		if err != nil {
			return r, fmt.Errorf("batch of step %d: %w", step, err)
		}
		sum, tokens, err := t.Step(ctx, batch, rate)
		if err != nil {
			return r, err
		}
		r.Steps++
		r.Tokens += tokens
		r.LossSum += sum
		if o.Position != nil {
			if err := t.Save(o.Position(step + 1)); err != nil {
				return r, err
			}
		}
		if o.OnStep != nil {
			o.OnStep(StepResult{Step: step, LossSum: sum, Tokens: tokens, GradNorm: t.gradNorm, Took: time.Since(began)})
		}
	}
	return r, nil
}
