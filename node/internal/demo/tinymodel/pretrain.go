package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/tokenizer"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/shard/safetensors"
)

// pretraining says how the base model is made.
var pretraining = struct {
	steps, warmup int
	texts         int // in a step
	rate, floor   float64
	adam          train.Adam
}{
	steps: 5000, warmup: 100, texts: 32, rate: 3e-3, floor: 6e-5,
	adam: train.Adam{Beta2: 0.95, WeightDecay: 0.1, ClipNorm: 1},
}

// contextTokens is the context of the model.
const contextTokens = 256

func modelConfig() model.Config {
	c := model.Llama(128, 352, 4, 4, vocabTokens, contextTokens)
	c.TiedHead = true
	c.BOS, c.EOS = bosID, []int32{eosID}
	return c
}

// pretrain trains all parameters of a new model on texts about w, and writes
// it to dir.
func pretrain(ctx context.Context, log io.Writer, dir string, w *world, tok *tokenizer.Tokenizer, steps int) error {
	m, err := model.New(modelConfig(), worldSeed, model.Options{Threads: runtime.NumCPU()})
	if err != nil {
		return err
	}
	t, err := train.NewFull(train.FullOptions{Model: m, Adam: pretraining.adam})
	if err != nil {
		return err
	}
	random := w.random("pretraining")
	began, sum, counted, tokens := time.Now(), 0.0, 0, 0
	_, err = t.RunSteps(ctx, train.RunOptions{
		MaxSteps: steps,
		Next: func(_ context.Context, step int) ([]train.Sample, float64, error) {
			return drawTexts(w, random, tok), rate(step, steps), nil
		},
		OnStep: func(r train.StepResult) {
			sum, counted, tokens = sum+r.LossSum, counted+r.Tokens, tokens+r.Tokens
			if (r.Step+1)%500 == 0 || r.Step+1 == steps {
				fmt.Fprintf(log, "step %d of %d: loss %.4f, %.0f tokens/s\n", r.Step+1, steps, sum/float64(counted), float64(tokens)/time.Since(began).Seconds())
				sum, counted = 0, 0
			}
		},
	})
	if err != nil {
		return err
	}
	return m.Save(dir, safetensors.BF16)
}

func drawTexts(w *world, random *rand.Rand, tok *tokenizer.Tokenizer) []train.Sample {
	batch := make([]train.Sample, pretraining.texts)
	for i := range batch {
		ids := tok.Encode(w.text(random), tokenizer.EncodeOptions{AddSpecial: true})
		ids = append(ids, eosID)
		batch[i] = train.Sample{IDs: ids, Labels: ids}
	}
	return batch
}

// rate is the learning rate of a step: a warm-up, then half a cosine.
func rate(step, steps int) float64 {
	p := &pretraining
	warm := min(1, float64(step+1)/float64(p.warmup))
	return warm * max(p.floor, p.rate*(1+math.Cos(math.Pi*float64(step)/float64(steps)))/2)
}
