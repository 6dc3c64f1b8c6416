package sim

import (
	"fmt"
	"math"

	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/run"
)

// quality compares eight peers that trade deltas of two bits with one node that
// takes as many tokens, one batch after the other, with the learning rate that
// is best for it.
func quality(t *trial) error {
	const peers = 8
	rounds := t.long(16, 6)
	together, err := t.cleanRun(peers, rounds)
	if err != nil {
		return err
	}
	rates := []float64{1e-3, 2e-3, 4e-3, 8e-3}
	if t.Quick {
		rates = []float64{2e-3, 4e-3}
	}
	best := learning{after: math.Inf(1)}
	for _, rate := range rates {
		l, err := t.alone(rate, together.tokens)
		if err != nil {
			return err
		}
		t.figure(fmt.Sprintf("loss_alone_lr_%g", rate), l.after)
		t.say("alone with a learning rate of %g: loss %.4f", rate, l.after)
		if l.after < best.after {
			best = l
		}
	}
	t.figure("tokens", float64(together.tokens))
	t.figure("loss_before", together.before)
	t.figure("loss", together.after)
	t.figure("loss_alone", best.after)
	t.atMost("loss_over_alone", together.after/best.after-1, 0.01)
	t.atLeast("loss_reduction_kept", (together.before-together.after)/(best.before-best.after), 0.95)
	share := func(l learning) []Point {
		points := make([]Point, len(l.curve))
		for i, p := range l.curve {
			points[i] = Point{p.X / l.curve[len(l.curve)-1].X, p.Y}
		}
		return points
	}
	t.charts = append(t.charts, Chart{
		Name: "loss", Title: "eight peers, 2-bit deltas, beside one node", X: "part of the tokens", Y: "held-out loss",
		Lines: []Line{{"eight peers", share(together)}, {"one node", share(best)}},
	})
	return nil
}

// alone trains one node without rounds until it took so many tokens.
func (t *trial) alone(rate float64, tokens uint64) (learning, error) {
	m := *t.Lab.base
	m.GenesisSeed = t.Seed
	key, id, err := nodeKey(0)
	if err != nil || key == nil {
		return learning{}, err
	}
	m.Launcher = id
	state, genesis, err := run.Genesis(&m)
	if err != nil {
		return learning{}, err
	}
	head, err := genesis.CID()
	if err != nil {
		return learning{}, err
	}
	task := t.Lab.task(&m)
	trainer, err := task.openTrainer()
	if err != nil {
		return learning{}, err
	}
	theta := make([]float32, len(state.Theta))
	fold.ToFloat32(theta, state.Theta)
	if err := trainer.SetAdapter(theta); err != nil {
		return learning{}, err
	}
	var l learning
	if l.before, err = task.loss(t.ctx, theta, noRecord); err != nil {
		return learning{}, err
	}
	l.curve = []Point{{0, l.before}}
	seed, n := runner.SampleSeed(head, id), int(m.Inner.BatchSamples)
	next := tokens / 6
	for step := 0; l.tokens < tokens; step++ {
		batch, err := t.Lab.source.Batch(t.ctx, seed, uint64(step*n), n)
		if err != nil {
			return learning{}, err
		}
		part := float64(l.tokens) / float64(tokens)
		_, took, err := trainer.Step(t.ctx, batch, rate*(1+math.Cos(math.Pi*part))/2)
		if err != nil {
			return learning{}, err
		}
		if l.tokens += uint64(took); l.tokens >= next || l.tokens >= tokens {
			next += tokens / 6
			trainer.Adapter(theta)
			if l.after, err = task.loss(t.ctx, theta, noRecord); err != nil {
				return learning{}, err
			}
			l.curve = append(l.curve, Point{float64(l.tokens), l.after})
		}
	}
	return l, nil
}
