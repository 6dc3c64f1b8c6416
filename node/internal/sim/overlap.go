package sim

import (
	"fmt"
	"time"

	"github.com/moot-net/moot/proto/fold"
)

func overlapScenarios() []Scenario {
	return []Scenario{{
		// Not of all-quick: a loss of one seed scatters as far as its limit.
		Name:  "overlap",
		About: "steps of the next round while the deltas of this one travel: what that costs, with a real model, and how busy 32 seats are with it",
		run:   overlap,
	}}
}

const (
	// overlapParams is whose deltas are on their way, by their bytes.
	overlapParams              = 10e6
	overlapSteps, overlapEarly = 30, 10
	// overlapTraining is which part of the period the steps of a round take.
	overlapTraining = 0.7
)

// overlap compares runs that differ in how many steps may be taken early.
func overlap(t *trial) error {
	if err := overlapBusy(t); err != nil {
		return err
	}
	return overlapQuality(t)
}

// overlapBusy measures which part of the time seats train, by the speed of their
// lines, without early steps and with a third of them.
func overlapBusy(t *trial) error {
	for _, mbit := range []float64{50, 10, 5, 3} {
		without, err := overlapAt(t, mbit, 0)
		if err != nil {
			return err
		}
		with, err := overlapAt(t, mbit, overlapEarly)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%g_mbit", mbit)
		t.figure("busy_"+name, without.share())
		t.figure("exchange_s_"+name, without.rest)
		t.figure("round_s_"+name, without.training+without.rest)
		t.figure("round_s_early_"+name, with.training+with.rest)
		t.figure("steps_early_"+name, with.early)
		// What a third of the steps can fill of the time between.
		filled := min(without.rest, without.training*overlapEarly/overlapSteps)
		t.figure("busy_early_reckoned_"+name, without.training/(without.training+without.rest-filled))
		if mbit == 10 {
			t.atLeast("busy_early_"+name, with.share(), 0.95)
		} else {
			t.figure("busy_early_"+name, with.share())
		}
	}
	return nil
}

// occupation is what a seat does in a round, in seconds.
type occupation struct {
	training, rest float64
	early          float64 // steps
}

func (o occupation) share() float64 { return o.training / (o.training + o.rest) }

// overlapAt plays rounds on lines of a speed.
func overlapAt(t *trial, mbit float64, early uint32) (occupation, error) {
	const peers = 32
	m := quickManifest()
	m.MinPeers, m.Inner.MaxSteps, m.Inner.OverlapSteps = peers, overlapSteps, early
	layout, err := m.Layout()
	if err != nil {
		return occupation{}, err
	}
	net := wide()
	net.upBits, net.downBits = mbit*1e6, mbit*1e6
	net.weight = overlapParams * float64(m.CodecBits) / 8 / float64(fold.EncodedBytes(layout, int(m.CodecBits)))
	w, err := newWorld(t.ctx, worldOptions{seed: t.Seed, nodes: peers, net: net, manifest: m, task: newQuickTask(layout, t.Seed)})
	if err != nil {
		return occupation{}, err
	}
	for _, n := range w.nodes {
		n.speed = 0.4 / overlapTraining
	}
	w.start(w.nodes...)
	play := func(rounds, most int) error {
		end := w.nodes[0].chain.Head().Record.TrainedRounds + uint64(rounds)
		ok, err := w.runUntil(time.Duration(most)*w.period(), func() bool { return w.nodes[0].chain.Head().Record.TrainedRounds >= end })
		if err != nil || !ok {
			return cause(err, "%d rounds on lines of %g Mbit/s did not end", rounds, mbit)
		}
		return nil
	}
	if err := play(2, 20); err != nil { // in which peers are let in
		return occupation{}, err
	}
	for _, n := range w.nodes {
		n.busy, n.earlySteps = 0, 0
	}
	began, rounds := w.now, t.long(20, 6)
	if err := play(rounds, 2*rounds); err != nil {
		return occupation{}, err
	}
	var busy time.Duration
	var steps uint64
	for _, n := range w.nodes {
		busy += n.busy
		steps += n.earlySteps
	}
	all := float64(peers * rounds)
	o := occupation{training: busy.Seconds() / all, early: float64(steps) / all}
	o.rest = (w.now-began).Seconds()/float64(rounds) - o.training
	t.say("%g Mbit/s, %d steps early at most: %.1f %% busy, %.1f s of steps and %.1f s of rest a round, %.1f steps early", mbit, early, 100*o.share(), o.training, o.rest, o.early)
	t.safety(w)
	return o, nil
}

// overlapQuality measures what early steps cost: on lines so slow that as many are
// taken as may be.
func overlapQuality(t *trial) error {
	const peers = 8
	s, err := t.Lab.subject(t.ctx, t.demo)
	if err != nil {
		return err
	}
	rounds := t.long(100, 40)
	learn := func(early uint32) (learning, error) {
		net := wide()
		layout, err := s.base.Layout()
		if err != nil {
			return learning{}, err
		}
		// All deltas are on their way for as long as the steps of a round take.
		delta := float64(fold.EncodedBytes(layout, int(s.base.CodecBits)))
		net.weight = 0.4 * float64(s.base.PeriodMillis) / 1e3 * net.upBits / 8 / delta / (peers - 1)
		w, err := t.realWorld(peers, rounds, net, tuning{early: early})
		if err != nil {
			return learning{}, err
		}
		w.start(w.nodes...)
		if ok, err := t.finish(w, 4*rounds); err != nil || !ok {
			return learning{}, cause(err, "the run with %d early steps did not end in %d periods", early, 4*rounds)
		}
		l, err := w.learned(w.nodes[0], max(rounds/6, 1))
		if err != nil {
			return learning{}, err
		}
		steps := uint64(0)
		for _, n := range w.nodes {
			steps += n.earlySteps
		}
		sum := w.tally(w.nodes[0], 0, roundOf(w.nodes[0]))
		name := fmt.Sprintf("%d_early", early)
		t.figure("loss_"+name, l.after)
		t.figure("steps_"+name, float64(steps)/float64(peers*rounds))
		t.figure("hours_"+name, w.now.Hours())
		t.figure("honest_excluded_"+name, float64(sum.excluded)/float64(max(sum.honestSeats, 1)))
		t.say("%d steps early at most: loss %.4f, %.1f steps early, %.1f hours", early, l.after, float64(steps)/float64(peers*rounds), w.now.Hours())
		t.safety(w)
		return l, nil
	}
	without, err := learn(0)
	if err != nil {
		return err
	}
	third, err := learn(s.steps / 3)
	if err != nil {
		return err
	}
	all, err := learn(s.steps)
	if err != nil {
		return err
	}
	t.figure("loss_before", without.before)
	t.figure("tokens", float64(without.tokens))
	t.figure("tokens_early", float64(third.tokens))
	t.meanAtMost("loss_over_without", third.after/without.after-1, 0.0025)
	t.meanAtLeast("loss_reduction_kept", (without.before-third.after)/(without.before-without.after), 0.995)
	t.figure("loss_over_without_all_early", all.after/without.after-1)
	t.charts = append(t.charts, Chart{
		Name: "loss", Title: "eight peers, with a third and with all of the steps taken early", X: "trained rounds", Y: "held-out loss",
		Lines: []Line{{"none early", without.curve}, {"a third", third.curve}, {"all", all.curve}},
	})
	return nil
}
