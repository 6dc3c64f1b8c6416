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
	rounds := t.long(100, 40)
	s, err := t.Lab.subject(t.ctx, t.demo)
	if err != nil {
		return err
	}
	// The usual settings first, then others; the short form has fewer.
	usual := s.usual
	var together, untuned learning
	together.after = math.Inf(1)
	settings := []tuning{usual, {rate: 2 * usual.rate, outer: outer(0.5, 0.6)}, {rate: usual.rate / 2, outer: outer(1, 0.6)}, {rate: 2 * usual.rate, outer: outer(1, 0.3)}, {rate: usual.rate, outer: outer(1, 0)}}
	for i, with := range settings[:t.long(len(settings), 2)] {
		l, err := t.faultless(peers, rounds, with)
		if err != nil {
			return err
		}
		o := with.outer
		t.figure(fmt.Sprintf("loss_lr_%g_outer_%.1f_%.1f", float64(with.rate)/1e9, float64(o.LearningRateQ16)/fold.One, float64(o.MomentumQ16)/fold.One), l.after)
		if i == 0 {
			untuned = l
		}
		if l.after < together.after {
			together = l
		}
	}
	// One step after the other, or with the batch of all peers at once.
	best := map[int]learning{1: {after: math.Inf(1)}, peers: {after: math.Inf(1)}}
	factors := map[int][]float64{1: {0.5, 0.25, 1, 0.125, 2}, peers: {2, 1, 0.5, 4, 0.25}}
	for _, batches := range []int{1, peers} {
		for _, factor := range factors[batches][:t.long(5, 2)] {
			rate := factor * float64(usual.rate) / 1e9
			l, err := t.alone(rate, batches, together.tokens)
			if err != nil {
				return err
			}
			t.figure(fmt.Sprintf("loss_alone_batch_%dx_lr_%g", batches, rate), l.after)
			t.say("alone with %d times the batch and a learning rate of %g: loss %.4f", batches, rate, l.after)
			if l.after < best[batches].after {
				best[batches] = l
			}
		}
	}
	t.figure("loss_over_alone_at_batch_of_all", together.after/best[peers].after-1)
	single := best[1]
	if best[peers].after < single.after {
		single = best[peers]
	}
	t.because("%d rounds: one node takes %d times as many steps one after the other", rounds, peers)
	t.meanAtMost("honest_without_weight", together.withoutWeight, 0.02)
	t.figure("loss_floor", t.floor())
	t.figure("loss_over_alone_untuned", untuned.after/single.after-1)
	t.figure("tokens", float64(together.tokens))
	t.figure("loss_before", together.before)
	t.figure("loss", together.after)
	t.figure("loss_alone", single.after)
	t.meanAtMost("loss_over_alone", together.after/single.after-1, 0.01)
	t.meanAtLeast("loss_reduction_kept", (together.before-together.after)/(single.before-single.after), 0.95)
	share := func(l learning) []Point {
		points := make([]Point, len(l.curve))
		for i, p := range l.curve {
			points[i] = Point{p.X / l.curve[len(l.curve)-1].X, p.Y}
		}
		return points
	}
	t.charts = append(t.charts, Chart{
		Name: "loss", Title: "eight peers, 2-bit deltas, beside one node", X: "part of the tokens", Y: "held-out loss",
		Lines: []Line{{"eight peers", share(together)}, {"one node", share(single)}},
	})
	return nil
}

// outer is an outer step, with a learning rate and momentum.
func outer(rate, momentum float64) run.Outer {
	q := func(x float64) uint32 { return uint32(math.Round(x * fold.One)) }
	return run.Outer{LearningRateQ16: q(rate), MomentumQ16: q(momentum)}
}

// alone trains one node without rounds until it took so many tokens.
func (t *trial) alone(rate float64, batches int, tokens uint64) (learning, error) {
	s, err := t.Lab.subject(t.ctx, t.demo)
	if err != nil {
		return learning{}, err
	}
	m := *s.base
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
	task := s.task(&m)
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
	seed, n := runner.SampleSeed(head, id), batches*int(m.Inner.BatchSamples)
	next := tokens / 6
	for step := 0; l.tokens < tokens; step++ {
		batch, err := s.source.Batch(t.ctx, seed, uint64(step*n), n)
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
